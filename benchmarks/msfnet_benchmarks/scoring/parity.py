"""Measures how much the depth of two models differs on the same frames.

The relative differences go into a histogram of fixed size, so that memory does not grow with the
number of frames; percentiles are accurate within 0.3 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.scoring.metrics import ScoredPixels
from msfnet_benchmarks.tables import format_table, range_name
from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.progress import Progress, silent

AGREEMENT = 1.01
"""Two depths agree within this factor."""

_DECADES = (-10, 4)
_BINS_PER_DECADE = 500
"""A bin is 0.46 % wide; its geometric middle is reported."""


@dataclass(frozen=True)
class RangeParity:
    """Parity where the reference lies in one range."""

    low_m: float
    """The smallest depth of the reference, included."""
    high_m: float | None
    """The end of the range, excluded; None: no end."""
    p50: float
    p99: float
    agreement: float
    pixels: int


@dataclass(frozen=True)
class ParityReport:
    """Relative difference |candidate - reference| / reference, over all pixels of all frames."""

    p50: float
    p99: float
    p999: float
    maximum: float
    """Exact, unlike the percentiles."""
    agreement: float
    """Share of pixels with max(candidate / reference, reference / candidate) < 1.01."""
    frames: int
    pixels: int
    ranges: tuple[RangeParity, ...] = ()
    """The differences by range of the reference; only ranges that have pixels."""

    def text(self) -> str:
        """Return a readable table: all pixels first, then each range."""
        header = ("difference", "p50", "p99", "p99.9", "max", f"d<{AGREEMENT}", "pixels")
        everything = (
            "all",
            *(f"{value:.1e}" for value in (self.p50, self.p99, self.p999, self.maximum)),
            f"{self.agreement:.4f}",
            str(self.pixels),
        )
        rows = [
            (
                *(range_name(r.low_m, r.high_m), f"{r.p50:.1e}", f"{r.p99:.1e}", "", ""),
                *(f"{r.agreement:.4f}", str(r.pixels)),
            )
            for r in self.ranges
        ]
        return format_table(header, [everything, *rows])


class ParityAccumulator:
    """Collects the relative difference of pairs of depth maps in constant memory."""

    def __init__(self, edges_m: Sequence[float] = ()) -> None:
        """Start empty; ``edges_m`` are the edges of the ranges reported separately, metres."""
        low, high = _DECADES
        self._edges = np.logspace(low, high, (high - low) * _BINS_PER_DECADE + 1)
        self._ranges = tuple(edges_m) or (0.0,)
        # A row a range, the last for what lies beyond. In it one bin below the edges, where
        # differences count as none, and one above.
        self._counts = np.zeros((len(self._ranges), self._edges.size + 1), np.int64)
        self._agreeing = np.zeros(len(self._ranges), np.int64)
        self._maximum = 0.0
        self._frames = 0

    def add(self, *, candidate: DepthMap, reference: DepthMap) -> None:
        """Count the pixels of one frame that the reference calls valid.

        Raises:
            MsfnetError: sizes differ, or the candidate has no depth where the reference has.
        """
        if candidate.values.shape != reference.values.shape:
            raise MsfnetError(
                f"depth maps of {candidate.values.shape} and {reference.values.shape} cannot be "
                "compared; run both models on the same frames"
            )
        if not candidate.valid[reference.valid].all():
            raise MsfnetError(
                f"frame {reference.index}: the candidate has no depth where the reference has; "
                "check its precision"
            )
        self._frames += 1
        pixels = ScoredPixels(candidate.values[reference.valid], reference.values[reference.valid])
        for block in pixels.blocks():
            self._add_block(block)

    def _add_block(self, block: ScoredPixels) -> None:
        g = block.ground_truth
        difference = np.abs(block.prediction - g) / g
        small = np.zeros(g.size, np.uint8)
        for edge in self._ranges[1:]:
            small += g >= edge
        rows = small.astype(np.intp)
        cells = self._bin(difference) + rows * self._counts.shape[1]
        counted = np.bincount(cells, minlength=self._counts.size)
        self._counts += counted.reshape(self._counts.shape)
        self._maximum = max(self._maximum, float(difference.max(initial=0.0)))
        agreeing = rows[block.within(AGREEMENT)]
        self._agreeing += np.bincount(agreeing, minlength=self._agreeing.size)

    def _bin(self, difference: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the bin of each difference: the logarithm finds it sooner than a search."""
        low, high = _DECADES
        exponent = np.log10(np.clip(difference, 10.0 ** (low - 1), 10.0 ** (high + 1)))
        place = np.floor((exponent - low) * _BINS_PER_DECADE).astype(np.intp) + 1
        return np.asarray(np.clip(place, 0, self._edges.size))

    def report(self) -> ParityReport:
        """Return the figures so far.

        Raises:
            MsfnetError: no pixel has been compared.
        """
        counts = self._counts.sum(axis=0)
        pixels = int(counts.sum())
        if not pixels:
            raise MsfnetError("no pixel was compared; check that the models predict valid depth")
        return ParityReport(
            p50=self._quantile(counts, 0.5),
            p99=self._quantile(counts, 0.99),
            p999=self._quantile(counts, 0.999),
            maximum=self._maximum,
            agreement=int(self._agreeing.sum()) / pixels,
            frames=self._frames,
            pixels=pixels,
            ranges=self._range_reports() if len(self._ranges) > 1 else (),
        )

    def _range_reports(self) -> tuple[RangeParity, ...]:
        edges = (*self._ranges, None)
        return tuple(
            RangeParity(
                low_m=self._ranges[row],
                high_m=edges[row + 1],
                p50=self._quantile(counts, 0.5),
                p99=self._quantile(counts, 0.99),
                agreement=int(self._agreeing[row]) / int(counts.sum()),
                pixels=int(counts.sum()),
            )
            for row, counts in enumerate(self._counts)
            if counts.any()
        )

    def _quantile(self, counts: NDArray[np.int64], share: float) -> float:
        cumulative = np.cumsum(counts)
        index = int(np.searchsorted(cumulative, share * cumulative[-1]))
        if index == 0:
            return 0.0
        if index == self._edges.size:
            return self._maximum
        return min(float(np.sqrt(self._edges[index - 1] * self._edges[index])), self._maximum)


def compare(
    candidate: Callable[[Frame], DepthMap],
    reference: Callable[[Frame], DepthMap],
    frames: Iterable[Frame],
    *,
    progress: Progress = silent,
) -> ParityReport:
    """Compare two models on the same frames.

    Args:
        candidate: the model to check, for example an INT8 engine.
        reference: the model it should equal, for example the PyTorch checkpoint.
        frames: input of both models.
        progress: called after each frame.

    Raises:
        MsfnetError: as :class:`ParityAccumulator`.
    """
    accumulator = ParityAccumulator()
    for done, frame in enumerate(frames, 1):
        accumulator.add(candidate=candidate(frame), reference=reference(frame))
        progress(done, 0, "compared")
    return accumulator.report()
