"""NYU Depth V2 in DenseDepth's layout: CSV lists of images and depth images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from msfnet_datasets.ground_truth import GroundTruth, read_depth
from msfnet_datasets.layout import DatasetLayout, GroundTruths, Part
from msfnet_datasets.sample import Sample, SampleList
from msfnet_datasets.split_lists import find_list, names_file
from msfnet_runtime import MsfnetError
from msfnet_runtime.depth_storage import ENCODINGS, DepthStorage
from msfnet_runtime.sources import holds, nyu

INDOORS_MEDIAN_M = (0.2, 10.0)
"""NYU's camera sees 10 m."""


class Nyu(DatasetLayout):
    """DenseDepth's lists; depth is millimetres in the list ``test`` and 8 bits in the others."""

    name = "nyu"
    title = "NYU Depth V2 in DenseDepth's layout"
    expects = "NYU lists (data/nyu2_train.csv or the like)"
    ground_truths: ClassVar[GroundTruths] = {"nyu_depth": ("uint8_10m", "uint16_mm")}
    median_m = INDOORS_MEDIAN_M
    protocol = "nyu_densedepth"

    def recognises(self, path: Path, split: str | None) -> bool:
        """Recognise ``nyu2_*.csv``, unless a text list is asked for."""
        return not (split or "").endswith(".txt") and holds(nyu.find_lists, path)

    def open(
        self, path: Path, split: str | None, depth: DepthStorage | None, kind: GroundTruth
    ) -> SampleList:
        """Open ``nyu2_<split>.csv`` or a list file; the usual list for None.

        Depth is millimetres in lists whose name ends in ``test`` and 8 bits in others.
        """
        file = self._list(path, split or self.usual_split(path))
        stored = depth or ("uint16_mm" if file.stem.endswith("test") else "uint8_10m")
        return SampleList(tuple(nyu_sample(*pair, stored) for pair in nyu.read_list(file, path)))

    def _list(self, path: Path, split: str) -> Path:
        if names_file(split):
            return find_list(split, path)
        lists = nyu.find_lists(path)
        if split not in lists:
            raise MsfnetError(
                f"{path} has no list nyu2_{split}.csv; it has {', '.join(lists)}",
                parameter="split",
            )
        return lists[split]

    def usual_split(self, path: Path) -> str:
        """Return the test list, or else the validation list, or else the training list."""
        lists = nyu.find_lists(path)
        return next((name for name in ("test", "val") if name in lists), "train")

    def training_lists(self, path: Path) -> tuple[str, str]:
        """Return the lists ``train`` and ``val``."""
        return "train", "val"

    def calibration_split(self, path: Path) -> str | None:
        """Return the training list, where there is one."""
        return "train" if "train" in nyu.find_lists(path) else None

    def parts(self, path: Path, split: str | None, depth: DepthStorage | None) -> Sequence[Part]:
        """Return every list, or the one asked for."""
        names = [split] if split else list(nyu.find_lists(path))
        kind = self.kind(depth)
        return [Part(f"list {Path(n).name}", self.open(path, n, depth, kind)) for n in names]


def nyu_sample(image: Path, depth: Path, storage: DepthStorage) -> Sample:
    """Return the pair of an image and its depth image, by NYU's camera."""
    encoding = ENCODINGS[storage]
    return Sample(
        name=f"{image.parent.name}/{image.stem}",
        image_path=image,
        depth_path=depth,
        depth_reader=partial(read_depth, depth, encoding),
        intrinsics=nyu.INTRINSICS,
        unit=encoding.text(),
        median_m=INDOORS_MEDIAN_M,
    )
