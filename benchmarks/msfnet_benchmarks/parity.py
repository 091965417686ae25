"""How far two artefacts of one model answer apart, on the same frames.

The relative differences go into a histogram of fixed size, so that memory stays constant over
any number of frames; percentiles are right within 0.3 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.progress import Progress, silent

_DECADES = (-10, 4)
_BINS_PER_DECADE = 500
"""A bin is 0.46 % wide; its geometric middle is reported."""


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


class ParityAccumulator:
    """Collects the relative difference of pairs of depth maps in constant memory."""

    def __init__(self) -> None:
        low, high = _DECADES
        self._edges = np.logspace(low, high, (high - low) * _BINS_PER_DECADE + 1)
        # One bin below the edges, where differences count as none, and one above.
        self._counts = np.zeros(self._edges.size + 1, np.int64)
        self._maximum = 0.0
        self._agreeing = 0
        self._frames = 0

    def add(self, *, candidate: DepthMap, reference: DepthMap) -> None:
        """Count the pixels of one frame that the reference calls valid.

        Raises:
            MsfnetError: sizes differ, or the candidate has no depth where the reference has.
        """
        if candidate.values.shape != reference.values.shape:
            raise MsfnetError(
                f"depth maps of {candidate.values.shape} and {reference.values.shape} cannot be "
                "compared; give both models the same frames"
            )
        if not candidate.valid[reference.valid].all():
            raise MsfnetError(
                f"frame {reference.index}: the candidate has no depth where the reference has; "
                "check its precision"
            )
        y, g = (
            depth.values[reference.valid].astype(np.float64) for depth in (candidate, reference)
        )
        difference = np.abs(y - g) / g
        self._counts += np.bincount(
            np.searchsorted(self._edges, difference, side="right"), minlength=self._counts.size
        )
        self._maximum = max(self._maximum, float(difference.max(initial=0.0)))
        self._agreeing += int(np.count_nonzero(np.maximum(y / g, g / y) < 1.01))
        self._frames += 1

    def report(self) -> ParityReport:
        """Return the figures so far.

        Raises:
            MsfnetError: no pixel has been compared.
        """
        pixels = int(self._counts.sum())
        if not pixels:
            raise MsfnetError("no pixel was compared; check that the models give valid depth")
        return ParityReport(
            p50=self._quantile(0.5),
            p99=self._quantile(0.99),
            p999=self._quantile(0.999),
            maximum=self._maximum,
            agreement=self._agreeing / pixels,
            frames=self._frames,
            pixels=pixels,
        )

    def _quantile(self, share: float) -> float:
        cumulative = np.cumsum(self._counts)
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
        candidate: the artefact in question, e.g. an INT8 engine.
        reference: what it should equal, e.g. the PyTorch checkpoint.
        frames: what both are shown.
        progress: told after each frame.

    Raises:
        MsfnetError: as :class:`ParityAccumulator`.
    """
    accumulator = ParityAccumulator()
    for done, frame in enumerate(frames, 1):
        accumulator.add(candidate=candidate(frame), reference=reference(frame))
        progress(done, 0, "compared")
    return accumulator.report()
