"""NYU Depth V2 as BTS reads it: folders of rooms with raw depth in millimetres, and text lists."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from msfnet_datasets.ground_truth import GroundTruth
from msfnet_datasets.layout import ALL, DatasetLayout, GroundTruths
from msfnet_datasets.nyu import INDOORS_MEDIAN_M, nyu_sample
from msfnet_datasets.sample import SampleList
from msfnet_datasets.split_lists import existing_image, find_list, read_split_list
from msfnet_runtime import MsfnetError
from msfnet_runtime.depth_storage import DepthStorage
from msfnet_runtime.sources.rgbd import CAMERA_FILE


class NyuSync(DatasetLayout):
    """Raw depth beside each image, by BTS's lists (Lee et al. 2019)."""

    name = "nyu_sync"
    title = "NYU Depth V2 in BTS's folders"
    expects = "BTS's folders of NYU with a text list"
    ground_truths: ClassVar[GroundTruths] = {"nyu_depth": ("uint16_mm",)}
    median_m = INDOORS_MEDIAN_M
    protocol = "nyu_bts"
    needs_list = True

    def recognises(self, path: Path, split: str | None) -> bool:
        """Recognise the text list that is asked for; a ``camera.json`` describes other data."""
        return (split or "").endswith(".txt") and not (path / CAMERA_FILE).is_file()

    def open(
        self, path: Path, split: str | None, depth: DepthStorage | None, kind: GroundTruth
    ) -> SampleList:
        """Open a list; entries that it declares to have no depth are counted."""
        if split is None or split == ALL:
            raise MsfnetError(
                f"{path}: BTS's folders of NYU have no list of their own; give a text file of "
                "`image depth focal` lines as the list",
                parameter="split",
            )
        file = find_list(split, path)
        samples, without = [], []
        for entry in read_split_list(file):
            if entry.declared_none:
                without.append(str(entry.image))
            elif entry.depth is None:
                raise MsfnetError(
                    f"{file} names no depth for {entry.image}; write `image depth focal`"
                )
            else:
                image = existing_image(path / entry.image)
                samples.append(nyu_sample(image, path / entry.depth, "uint16_mm"))
        return SampleList(tuple(samples), tuple(without))
