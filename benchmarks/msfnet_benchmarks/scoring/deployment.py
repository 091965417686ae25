"""Errors by range and direction, depth boundaries and drift, for those who deploy depth.

Everything is summed image by image, so that memory does not grow with their number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.scoring.boundaries import BoundaryCounts
from msfnet_benchmarks.scoring.metrics import ScoredPixels
from msfnet_benchmarks.scoring.protocols import Protocol
from msfnet_benchmarks.scoring.steadiness import DriftReport, ScaleDrift
from msfnet_benchmarks.tables import format_table, range_name

FACTOR = 1.25
"""Beyond this factor a pixel counts as over- or under-estimated; within it, it counts for delta1.
"""


@dataclass(frozen=True)
class RangeBin:
    """The error of the pixels whose ground truth lies in one range, over all images."""

    low_m: float
    """The smallest ground truth of the range, included."""
    high_m: float | None
    """The end of the range, excluded; None: no end."""
    pixels: int
    rel: float | None
    """Mean absolute relative error over the pixels; None without pixels."""
    rmse: float | None
    """Root of the mean squared error over the pixels, metres; None without pixels."""
    over: float | None
    """Share of pixels with y/g >= 1.25; None without pixels."""
    under: float | None
    """Share of pixels with g/y >= 1.25; None without pixels."""


@dataclass(frozen=True)
class DeploymentReport:
    """Errors by range and direction; shares and means are over pixels."""

    bins: tuple[RangeBin, ...]
    over: float
    """Share of pixels with y/g >= 1.25: obstacles are nearer than predicted."""
    under: float
    """Share of pixels with g/y >= 1.25: obstacles are farther than predicted."""
    boundary_f1: float | None
    """The F1 score of depth boundaries; None where the ground truth is too sparse to have them."""
    drift: tuple[DriftReport, ...]
    """The drift of every drive; empty where frames have no order."""

    def text(self) -> str:
        """Return a readable table."""
        rows = [
            (
                range_name(b.low_m, b.high_m),
                *(_cell(value) for value in (b.rel, b.rmse, b.over, b.under)),
                str(b.pixels),
            )
            for b in self.bins
        ]
        f1 = "n/a (sparse ground truth)" if self.boundary_f1 is None else f"{self.boundary_f1:.4f}"
        lines = [
            format_table(("range", "REL", "RMSE m", "over", "under", "pixels"), rows),
            f"over-estimated {self.over:.4f}, under-estimated {self.under:.4f} of all pixels "
            f"(beyond a factor of {FACTOR}); boundary F1 {f1}",
            *(drift.text() for drift in self.drift),
        ]
        return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


class DeploymentAccumulator:
    """Collects a protocol's images for a :class:`DeploymentReport`."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._edges = protocol.bins_m
        # One row a bin, one more for what lies beyond the last: pixels, |y-g|/g, (y-g)^2, over,
        # under.
        self._sums = np.zeros((len(self._edges), 5))
        self._boundaries = BoundaryCounts() if protocol.dense else None
        self._drift = ScaleDrift() if protocol.ordered else None

    def add(
        self,
        name: str,
        pixels: ScoredPixels,
        *,
        prediction: NDArray[np.float32],
        ground_truth: NDArray[np.float32],
    ) -> None:
        """Count one image.

        Args:
            name: ``FOLDER/FRAME``; frames of one folder come in order.
            pixels: what the protocol scores of it.
            prediction: (H, W) metres, as the protocol takes it.
            ground_truth: (H, W) metres.
        """
        for block in pixels.blocks():
            self._add_block(block)
        if self._boundaries is not None:
            self._boundaries.add(
                prediction=self._protocol.clip(prediction),
                ground_truth=ground_truth,
                valid=self._protocol.valid(ground_truth),
            )
        if self._drift is not None:
            self._drift.add(name.rpartition("/")[0], pixels)

    def _add_block(self, block: ScoredPixels) -> None:
        y, g, ratio = block.prediction, block.ground_truth, block.ratio
        # 3 k: within the factor, + 1: over, + 2: under; bytes add several times as fast as words.
        place = np.zeros(g.size, np.uint8)
        for edge in self._edges[1:]:
            place += g >= edge
        place = 3 * place + block.over(FACTOR).view(np.uint8)
        place += 2 * block.under(FACTOR).view(np.uint8)
        cells, size = place.astype(np.intp), 3 * len(self._edges)
        counts, rel, squared = (
            np.bincount(cells, weights, size).reshape(-1, 3)
            for weights in (None, np.abs(ratio - 1), np.square(y - g))
        )
        columns = (counts.sum(1), rel.sum(1), squared.sum(1), counts[:, 1], counts[:, 2])
        self._sums += np.stack(columns, axis=1)

    def report(self) -> DeploymentReport:
        """Return the figures so far; at least one image must have been added."""
        pixels, _, _, over, under = self._sums.sum(axis=0).tolist()
        rows = self._sums[:-1] if not self._sums[-1, 0] else self._sums
        ends = (*self._edges[1:], None)
        return DeploymentReport(
            bins=tuple(_bin(*limits) for limits in zip(self._edges, ends, rows, strict=False)),
            over=over / pixels,
            under=under / pixels,
            boundary_f1=self._boundaries.f1() if self._boundaries else None,
            drift=self._drift.reports() if self._drift else (),
        )


def _bin(low: float, high: float | None, sums: NDArray[np.float64]) -> RangeBin:
    pixels, rel, squared, over, under = sums.tolist()
    if not pixels:
        return RangeBin(low, high, 0, None, None, None, None)
    rmse = float(np.sqrt(squared / pixels))
    return RangeBin(low, high, int(pixels), rel / pixels, rmse, over / pixels, under / pixels)
