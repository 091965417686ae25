"""NYU Depth V2 with ground truth: DenseDepth's lists, the labelled set, BTS's folders."""

from __future__ import annotations

import os
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_datasets.ground_truth import DepthEncoding, read_encoded
from msfnet_datasets.sample import INDOORS_MEDIAN_M, Sample, SampleList
from msfnet_datasets.split_lists import existing_image, find_list, read_split_list
from msfnet_runtime import MsfnetError
from msfnet_runtime.sources import nyu

LABELLED = "nyu_depth_v2_labeled.mat"
"""The labelled set: MATLAB 7.3, which is HDF5. 1,449 pairs with filled depth."""
SPLITS = "splits.mat"
"""The official split beside it: MATLAB 5, 795 to train and 654 to test, counted from 1."""


def nyu_samples(
    path: Path, split: str | None = None, encoding: DepthEncoding | None = None
) -> SampleList:
    """Return the pairs of one of DenseDepth's lists.

    Args:
        path: the root that holds ``data/``.
        split: the list's name; the test list, or else the validation list, if left out.
        encoding: of the depth; millimetres for the test list, 8 bits for the rest if left out.

    Raises:
        MsfnetError: no such list.
    """
    lists = nyu.find_lists(path)
    chosen = split or next((name for name in ("test", "val") if name in lists), "train")
    if chosen not in lists:
        raise MsfnetError(f"{path} has no list nyu2_{chosen}.csv; it has {', '.join(lists)}")
    usual = DepthEncoding.UINT16_MM if chosen == "test" else DepthEncoding.UINT8_10M
    return SampleList(
        tuple(_pair(*pair, encoding or usual) for pair in nyu.read_list(lists[chosen]))
    )


def nyu_sync_samples(path: Path, name: str) -> SampleList:
    """Return the pairs of a list of BTS's: raw depth in millimetres beside each image.

    Raises:
        MsfnetError: no such list, or one of other lines.
    """
    file = find_list(name, path)
    samples, without = [], []
    for entry in read_split_list(file):
        if entry.declared_none:
            without.append(str(entry.image))
            continue
        if entry.depth is None:
            raise MsfnetError(f"{file} names no depth for {entry.image}; give `image depth focal`")
        image = existing_image(path / entry.image)
        samples.append(_pair(image, path / entry.depth, DepthEncoding.UINT16_MM))
    return SampleList(tuple(samples), tuple(without))


def _pair(image: Path, depth: Path, encoding: DepthEncoding) -> Sample:
    return Sample(
        f"{image.parent.name}/{image.stem}",
        image,
        depth,
        partial(read_encoded, depth, encoding),
        nyu.INTRINSICS,
        encoding.text(),
        INDOORS_MEDIAN_M,
    )


def is_labelled(path: Path) -> bool:
    """Tell whether a path is the labelled set, or the folder that holds it."""
    return path.suffix == ".mat" or (path / LABELLED).is_file()


def nyu_labelled_samples(path: Path, split: str = "") -> SampleList:
    """Return the pairs of the labelled set.

    Args:
        path: ``nyu_depth_v2_labeled.mat`` or its folder, which also holds ``splits.mat``.
        split: ``train`` or ``test`` of the official split; all pairs if left out.

    Raises:
        MsfnetError: not such a file, another split, or h5py or scipy is missing.
    """
    file = path if path.suffix == ".mat" else path / LABELLED
    content = _open(file)
    count = len(content["depths"])
    indices = _split_indices(file.with_name(SPLITS), split, count) if split else range(count)
    return SampleList(
        tuple(
            Sample(
                f"labelled/{index + 1:04d}",
                file,
                file,
                partial(_read_labelled_depth, file, index),
                nyu.INTRINSICS,
                "float32, metres",
                INDOORS_MEDIAN_M,
                partial(_read_labelled_image, file, index),
            )
            for index in indices
        )
    )


def _split_indices(file: Path, split: str, count: int) -> list[int]:
    """Return a split's indices, counted from 0."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise _missing("scipy") from None
    names = {"train": "trainNdxs", "test": "testNdxs"}
    if split not in names:
        raise MsfnetError(f"the labelled set has no split {split!r}; choose train or test")
    try:
        indices = loadmat(file)[names[split]].ravel().astype(int) - 1
    except (OSError, KeyError, ValueError, NotImplementedError):
        raise MsfnetError(f"{file} is not NYU's split; put splits.mat beside the data") from None
    inside: list[int] = [int(i) for i in indices if 0 <= i < count]
    if len(inside) < len(indices):
        raise MsfnetError(
            f"{file} names {len(indices) - len(inside)} pairs beyond the {count} of the data; "
            "the two do not belong together"
        )
    return inside


def _missing(library: str) -> MsfnetError:
    return MsfnetError(
        f"NYU's labelled set needs {library}; install it with pip install 'msfnet[nyu]'"
    )


def _open(file: Path) -> Any:
    """Return the open HDF5 file, once per process: handles do not survive a fork."""
    return _open_in(file, os.getpid())


@cache
def _open_in(file: Path, process: int) -> Any:
    try:
        import h5py
    except ImportError:
        raise _missing("h5py") from None
    try:
        content = h5py.File(file, "r")
        images, depths = content["images"].shape, content["depths"].shape
    except (OSError, KeyError, AttributeError):
        raise MsfnetError(f"{file} is not NYU's labelled set; download it again") from None
    if images[1:2] != (3,) or (images[0], *images[2:]) != depths:
        raise MsfnetError(f"{file} holds images {images} and depth {depths}; download it again")
    return content


def _read_labelled_image(file: Path, index: int) -> NDArray[np.uint8]:
    """MATLAB counts columns first: (3, W, H) is stored for (H, W, 3)."""
    return np.ascontiguousarray(_read(file, "images", index).transpose(2, 1, 0), np.uint8)


def _read_labelled_depth(file: Path, index: int, size: tuple[int, int]) -> NDArray[np.float32]:
    depth = np.ascontiguousarray(_read(file, "depths", index).T, np.float32)
    if not np.isfinite(depth).all():
        raise MsfnetError(f"{file}: the depth of pair {index + 1} is not finite; download it again")
    return depth


def _read(file: Path, name: str, index: int) -> NDArray[Any]:
    try:
        return np.asarray(_open(file)[name][index])
    except OSError:
        raise MsfnetError(f"{file}: pair {index + 1} is unreadable; download it again") from None
