"""NYU Depth V2's labelled set: 1,449 pairs with filled depth in one MATLAB file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from msfnet_datasets.ground_truth import GroundTruth
from msfnet_datasets.layout import ALL, DatasetLayout, GroundTruths
from msfnet_datasets.nyu import INDOORS_MEDIAN_M
from msfnet_datasets.sample import Sample, SampleList
from msfnet_datasets.split_lists import find_list, names_file
from msfnet_runtime import MsfnetError
from msfnet_runtime.depth_storage import ENCODINGS, DepthStorage
from msfnet_runtime.files import existing_file
from msfnet_runtime.libraries import require
from msfnet_runtime.picture_size import check_picture_size
from msfnet_runtime.sources import nyu
from msfnet_runtime.text_lists import read_lines

LABELLED = "nyu_depth_v2_labeled.mat"
"""MATLAB 7.3, which is HDF5."""
SPLITS = "splits.mat"
"""The official split beside it: MATLAB 5, 795 to train and 654 to test, counted from 1."""


class NyuLabelled(DatasetLayout):
    """The file or its folder, which also holds ``splits.mat``."""

    name = "nyu_labelled"
    title = "NYU Depth V2, labelled set"
    expects = f"NYU's labelled set ({LABELLED})"
    ground_truths: ClassVar[GroundTruths] = {"nyu_depth": ("float32_m",)}
    median_m = INDOORS_MEDIAN_M
    protocol = "nyu_densedepth"

    def recognises(self, path: Path, split: str | None) -> bool:
        """Recognise the MATLAB file."""
        return path.suffix == ".mat" or (path / LABELLED).is_file()

    def open(
        self, path: Path, split: str | None, depth: DepthStorage | None, kind: GroundTruth
    ) -> SampleList:
        """Open ``train`` or ``test`` of the official split, a list file, or all pairs.

        A list file has the number of a pair on every line, from 1, or its sample's name.
        """
        file = path if path.suffix == ".mat" else path / LABELLED
        count = len(_open(file)["depths"])
        name = split or self.usual_split(path)
        chosen: Sequence[int] = range(count)
        if names_file(name):
            chosen = _listed_indices(find_list(name, file.parent), count)
        elif name != ALL:
            chosen = _split_indices(file.with_name(SPLITS), name, count)
        return SampleList(
            tuple(
                Sample(
                    name=f"labelled/{index + 1:04d}",
                    image_path=file,
                    depth_path=file,
                    depth_reader=partial(_read_depth, file, index),
                    intrinsics=nyu.INTRINSICS,
                    unit=ENCODINGS["float32_m"].text(),
                    median_m=self.median_m,
                    image_reader=partial(_read_image, file, index),
                )
                for index in chosen
            )
        )

    def usual_split(self, path: Path) -> str:
        """Return the official test split."""
        return "test"

    def training_lists(self, path: Path) -> tuple[str, str]:
        """Return the official split."""
        return "train", "test"

    def calibration_split(self, path: Path) -> str:
        """Return the official training split."""
        return "train"


def _listed_indices(file: Path, count: int) -> list[int]:
    """Return the indices of the pairs that a list file names, counted from 0."""
    indices = []
    for number, line in read_lines(file):
        text = line.rpartition("/")[2]
        if not (text.isdecimal() and 1 <= int(text) <= count):
            raise MsfnetError(
                f"{file}, line {number}: not the number of a pair, 1 to {count}; correct the list"
            )
        indices.append(int(text) - 1)
    if not indices:
        raise MsfnetError(f"{file} is empty; fill the list")
    return indices


def _split_indices(file: Path, split: str, count: int) -> list[int]:
    """Return a split's indices, counted from 0."""
    require("scipy")
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    names = {"train": "trainNdxs", "test": "testNdxs"}
    if split not in names:
        raise MsfnetError(
            f"the labelled set has no list {split!r}; choose train, test, all or a file",
            parameter="split",
        )
    try:
        indices = loadmat(file)[names[split]].ravel().astype(int) - 1
    except (OSError, LookupError, TypeError, ValueError, NotImplementedError, MatReadError):
        raise MsfnetError(f"{file} is not NYU's split; put splits.mat beside the data") from None
    inside: list[int] = [int(i) for i in indices if 0 <= i < count]
    if len(inside) < len(indices):
        raise MsfnetError(
            f"{file} names {len(indices) - len(inside)} pairs beyond the {count} of the data; "
            "the two do not belong together"
        )
    return inside


def _open(file: Path) -> Any:
    """Return the open HDF5 file, once per process: handles do not survive a fork."""
    return _open_in(file, os.getpid())


@cache
def _open_in(file: Path, process: int) -> Any:
    require("h5py")
    import h5py

    try:
        content = h5py.File(existing_file(file, "data set"), "r")
        images, depths = content["images"].shape, content["depths"].shape
    except (OSError, KeyError, AttributeError):
        raise MsfnetError(f"{file} is not NYU's labelled set; download it again") from None
    if images[1:2] != (3,) or (images[0], *images[2:]) != depths:
        raise MsfnetError(f"{file} holds images {images} and depth {depths}; download it again")
    check_picture_size(images[3], images[2], file)
    return content


def _read_image(file: Path, index: int) -> NDArray[np.uint8]:
    """MATLAB counts columns first: (3, W, H) is stored for (H, W, 3)."""
    return np.ascontiguousarray(_read(file, "images", index).transpose(2, 1, 0), np.uint8)


def _read_depth(file: Path, index: int, size: tuple[int, int]) -> NDArray[np.float32]:
    depth = np.ascontiguousarray(_read(file, "depths", index).T, np.float32)
    if not np.isfinite(depth).all():
        raise MsfnetError(f"{file}: the depth of pair {index + 1} is not finite; download it again")
    return depth


def _read(file: Path, name: str, index: int) -> NDArray[Any]:
    try:
        return np.asarray(_open(file)[name][index])
    except OSError:
        raise MsfnetError(f"{file}: pair {index + 1} is unreadable; download it again") from None
