"""One frame with its ground truth, read when asked for; and a list of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime import CameraIntrinsics, Frame, MsfnetError
from msfnet_runtime.images import read_image

T = TypeVar("T")

HELD_OUT = 0.1
"""The share of the frames that are not trained on, where a data set has no lists."""

SPARSE_BELOW = 0.3
"""Maps with a smaller share of measured pixels are points rather than surfaces."""


@dataclass(frozen=True)
class Sample:
    """One image and where its ground truth comes from; picklable, for reading processes."""

    name: str
    """Readable and unique within the data set."""
    image_path: Path
    """The file that holds the image."""
    depth_path: Path
    """The file that holds the measurement: a depth image, a scan, or a set of many."""
    depth_reader: Callable[[tuple[int, int]], NDArray[np.float32]]
    """Reads the ground truth for an image of (height, width), in metres, 0 = none."""
    intrinsics: CameraIntrinsics | None = None
    """The camera, which may be of another size than the image."""
    unit: str = ""
    """How ``depth_path`` stores depth, as its layout declares it, as text."""
    median_m: tuple[float, float] = (0.2, 60.0)
    """Where the median depth can lie; elsewhere it was stored in another unit than declared."""
    image_reader: Callable[[], NDArray[np.uint8]] | None = None
    """Reads the image where ``image_path`` is not an image file: (H, W, 3) uint8 RGB."""

    def frame(self, index: int = 0) -> Frame:
        """Read the image; its camera is left out where the image may be cropped.

        Raises:
            MsfnetError: unreadable.
        """
        image = self.image_reader() if self.image_reader else read_image(self.image_path)
        camera = self.intrinsics and self.intrinsics.fitted(image.shape[0], image.shape[1])
        return Frame(image, index, intrinsics=camera, name=self.name)

    def ground_truth(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """Read the ground truth of an image of ``size``: (H, W) float32 metres, 0 = none.

        Raises:
            MsfnetError: unreadable, or of another size than the image.
        """
        depth = self.depth_reader(size)
        if depth.shape != size:
            turned = "turn one of them" if depth.shape == size[::-1] else "check the data set"
            raise MsfnetError(
                f"{self.depth_path} is {depth.shape}, its image {self.image_path} {size}; {turned}"
            )
        return depth


@dataclass(frozen=True)
class SampleList(Sequence[Sample]):
    """The samples of a list, in its order."""

    samples: tuple[Sample, ...]
    without_ground_truth: tuple[str, ...] = ()
    """Entries that the list itself declares to have none (``None`` in BTS's lists), by name."""

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Sample, ...]: ...
    def __getitem__(self, index: int | slice) -> Sample | tuple[Sample, ...]:
        """Return one sample, or several."""
        return self.samples[index]


def spread(items: Sequence[T], count: int | None) -> list[T]:
    """Return ``count`` items spread evenly over a sequence, or all of them."""
    if count is None or count >= len(items):
        return list(items)
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, count).round()]


def hold_out(samples: Sequence[Sample], share: float) -> tuple[list[Sample], list[Sample]]:
    """Split off the last frames of every drive or scene, at least one where it has two."""
    drives: dict[str, list[Sample]] = {}
    for sample in samples:
        drives.setdefault(sample.name.rpartition("/")[0], []).append(sample)
    train, validation = [], []
    for frames in drives.values():
        held = min(len(frames) - 1, max(1, round(share * len(frames))))
        train += frames[: len(frames) - held]
        validation += frames[len(frames) - held :]
    return train, validation
