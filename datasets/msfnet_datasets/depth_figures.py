"""Range, median, coverage and histogram of depth maps, frame by frame and over a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfnet_datasets.check_report import BIN_EDGES_M, DepthCheck


@dataclass(frozen=True, eq=False)
class FrameFigures:
    """The ground truth of one frame."""

    size: tuple[int, int]
    """(height, width) of the frame."""
    range_m: tuple[float, float, float]
    """Smallest, median and largest measured depth, metres."""
    counts: NDArray[np.int64]
    """Measured pixels between neighbours of :data:`BIN_EDGES_M`."""


def figures_of(depth: NDArray[np.float32]) -> FrameFigures:
    """Measure one map, (H, W) metres, 0 = none, at least one pixel measured."""
    measured = np.sort(depth[depth > 0])
    height, width = depth.shape
    return FrameFigures(
        (height, width),
        (float(measured[0]), float(np.median(measured)), float(measured[-1])),
        np.diff(np.searchsorted(measured, np.asarray(BIN_EDGES_M, np.float32))),
    )


def summarise(frames: Sequence[FrameFigures], unit: str) -> DepthCheck:
    """Return the figures of a list; the median is that of the frames' medians."""
    low, median, high = np.array([frame.range_m for frame in frames]).T
    counts = np.sum([frame.counts for frame in frames], axis=0)
    pixels = sum(height * width for height, width in (frame.size for frame in frames))
    return DepthCheck(
        unit,
        (float(low.min()), float(np.median(median)), float(high.max())),
        float(counts.sum() / pixels),
        tuple(float(count / counts.sum()) for count in counts),
    )
