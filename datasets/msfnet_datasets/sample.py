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

OUTDOORS_MEDIAN_M = (0.2, 60.0)
INDOORS_MEDIAN_M = (0.2, 10.0)
"""NYU's camera sees 10 m."""


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
    unit: str = ""
    """How ``depth_path`` stores depth, as its layout declares it, in words."""
    median_m: tuple[float, float] = OUTDOORS_MEDIAN_M
    """Where the median depth can lie; elsewhere it was stored in another unit than declared."""
    image_reader: Callable[[], NDArray[np.uint8]] | None = None
    """Reads the image where ``image_path`` is no image file: (H, W, 3) uint8 RGB."""

    def frame(self, index: int = 0) -> Frame:
        """Read the image.

        Raises:
            MsfnetError: unreadable.
        """
        image = self.image_reader() if self.image_reader else read_image(self.image_path)
        return Frame(image, index, intrinsics=self.intrinsics, name=self.name)

    def ground_truth(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """Read the ground truth of an image of ``size``: (H, W) float32 metres, 0 = none.

        Raises:
            MsfnetError: unreadable, or of another size than the image.
        """
        depth = self.depth_reader(size)
        if depth.shape != size:
            raise MsfnetError(
                f"{self.depth_path} is {depth.shape}, its image {size}; check the data set"
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
