"""What was measured when a model was brought to a lower precision; part of its spec."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.words import counted

CalibrationMethod = Literal["entropy", "percentile", "minmax"]
"""How the range of a tensor is chosen: the least loss of information (KL divergence), 99.99 % of
the values, or all of them."""

CalibrationTarget = Literal["tensorrt", "cpu"]
"""Where an INT8 model is to run."""


@dataclass(frozen=True)
class FrameSummary:
    """Which frames a model was calibrated on, and what they look like."""

    hashes: tuple[str, ...]
    """One of each frame, see :func:`msfnet_datasets.frame_statistics.frame_hash`."""
    percentiles: Mapping[str, tuple[float, float, float]]
    """5 %, 50 % and 95 % quantiles over the frames, by feature of
    :class:`msfnet_datasets.frame_statistics.FrameStatistics`."""
    covariance: tuple[tuple[float, ...], ...]
    """Of the features that are compared together, each in its least width."""
    reach: float
    """The 95 % quantile over the frames of their Mahalanobis distance from the medians."""

    def __post_init__(self) -> None:
        """Refuse figures that no frames can have."""
        ranges = self.percentiles.values()
        if not (self.hashes and 0 <= self.reach < math.inf and all(map(_ordered, ranges))):
            fault = "has quantiles out of order" if self.hashes else "names no frame"
            raise MsfnetError(f"the summary of calibration frames {fault}; calibrate again")
        square = all(len(row) == len(self.covariance) for row in self.covariance)
        if not (square and np.isfinite(self.covariance).all()) or self._is_indefinite():
            raise MsfnetError(
                "the summary of calibration frames has no covariance; calibrate again"
            )

    def _is_indefinite(self) -> bool:
        """Tell whether the matrix gives some combination of features a negative variance."""
        return bool(np.linalg.eigvalsh(np.array(self.covariance)).min(initial=0) < -1e-6)

    @property
    def count(self) -> int:
        """How many frames there were."""
        return len(self.hashes)


def _ordered(quantiles: tuple[float, float, float]) -> bool:
    low, middle, high = quantiles
    return -math.inf < low <= middle <= high < math.inf


@dataclass(frozen=True)
class CalibrationRecord:
    """How the ranges of an INT8 model were found."""

    method: CalibrationMethod
    target: CalibrationTarget
    convolutions: int
    """How many are in INT8."""
    frames: int
    """How many frames were used."""
    summary: FrameSummary | None = None
    """None in models that an older msfnet calibrated."""

    def text(self) -> str:
        """Return the record in a few words."""
        return (
            f"{self.method}, {counted(self.frames, 'frame')}, "
            f"{counted(self.convolutions, 'convolution')}, for {self.target}"
        )


@dataclass(frozen=True)
class DepthChange:
    """How far a lower precision moves depth from FP32's, relative to it."""

    median: float
    """Largest median of any image."""
    p99: float
    """Largest 99th percentile of any image."""
    images: int
    """How many images were compared."""
    random: bool = False
    """The images were random pixels, not frames."""

    def text(self) -> str:
        """Return the figures in a few words."""
        return (
            f"{self.median:.1e} at the median and {self.p99:.1e} at the 99th percentile of the "
            f"worst of {counted(self.images, 'random image' if self.random else 'image')}"
        )


@dataclass(frozen=True)
class Fp32Island:
    """Blocks that keep a part in FP32 for one reason."""

    reason: str
    """An operator's name, or what FP16 could not hold."""
    blocks: tuple[str, ...]

    def text(self) -> str:
        """Return the island in a few words."""
        return f"{self.reason} in {', '.join(self.blocks)}"


@dataclass(frozen=True)
class SearchRecord:
    """What the precision search measured on frames that it did not choose by."""

    budget: str
    """What depth was allowed to lose against FP32: ``rel +1%``, ``delta1 -0.003``."""
    change: float
    """How much the budget's metric moved from FP32's; a fraction where the budget is in %."""
    protocol: str
    """Scored the depth."""
    frames: int
    """How many frames were scored."""
    speedup: float
    """Latency of FP32 / latency of this model."""
    engine: str
    """Where it was timed."""

    def text(self) -> str:
        """Return the record in a few words."""
        change = f"{self.change:+.2%}" if self.budget.endswith("%") else f"{self.change:+.4f}"
        return (
            f"budget {self.budget}: {self.budget.split(' ')[0]} {change} under {self.protocol} on "
            f"{counted(self.frames, 'frame')} held out, {self.speedup:.2f} times as fast as FP32 "
            f"on {self.engine}"
        )
