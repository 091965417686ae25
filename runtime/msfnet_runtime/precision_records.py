"""Records the measurements of a conversion to a lower precision, as part of the spec."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.typed import check_range
from msfnet_runtime.words import counted

CalibrationMethod = Literal["entropy", "minmax", "percentile"]
"""How the range of a tensor is chosen: the least loss of information (KL divergence), all values,
or 99.99 % of them."""

CalibrationTarget = Literal["tensorrt", "cpu"]
"""Where an INT8 model is to run. TensorRT takes symmetric signed activations and fuses a
convolution with the activation behind it, so that pairs stand in front of convolutions only. ONNX
Runtime's CPU provider is fast with unsigned activations that have a zero point, and computes in
INT8 only what has pairs on both sides."""


@dataclass(frozen=True)
class FrameSummary:
    """The frames of a calibration: their hashes, and statistics of their content."""

    hashes: tuple[str, ...]
    """A hash of each frame, see :func:`msfnet_datasets.frame_statistics.frame_hash`."""
    percentiles: Mapping[str, tuple[float, float, float]]
    """5 %, 50 % and 95 % quantiles over the frames, by feature of
    :class:`msfnet_datasets.frame_statistics.FrameStatistics`."""
    covariance: tuple[tuple[float, ...], ...]
    """Covariance of the features that are compared together, in units of their least widths."""
    reach: float
    """The 95 % quantile over the frames of their Mahalanobis distance from the medians."""

    def __post_init__(self) -> None:
        """Refuse values that no set of frames can have."""
        ordered = all(
            -math.inf < low <= middle <= high < math.inf
            for low, middle, high in self.percentiles.values()
        )
        if not (self.hashes and 0 <= self.reach < math.inf and ordered):
            fault = "has quantiles out of order" if self.hashes else "names no frame"
            raise MsfnetError(f"the summary of calibration frames {fault}; calibrate again")
        square = all(len(row) == len(self.covariance) for row in self.covariance)
        # A negative eigenvalue would be a negative variance of some combination of features.
        if (
            not (square and np.isfinite(self.covariance).all())
            or np.linalg.eigvalsh(np.array(self.covariance)).min(initial=0) < -1e-6
        ):
            raise MsfnetError(
                "the summary of calibration frames has no covariance; calibrate again"
            )

    @property
    def count(self) -> int:
        """The number of frames."""
        return len(self.hashes)


@dataclass(frozen=True)
class CalibrationRecord:
    """The calibration of an INT8 model."""

    method: CalibrationMethod
    target: CalibrationTarget
    convolutions: int
    """Number of convolutions in INT8."""
    frames: int
    """Number of frames used."""
    summary: FrameSummary | None = None
    """None in models that an older msfnet calibrated."""
    activations: Literal["int8", "uint8"] = "int8"
    """How activations are stored: symmetric, or unsigned with a zero point."""
    reduced_range: bool = False
    """Whether weights keep to 7 bits, for processors whose 8-bit products saturate."""

    def __post_init__(self) -> None:
        """Refuse negative counts."""
        check_range("calibration.convolutions", self.convolutions, 0)
        check_range("calibration.frames", self.frames, 0)

    def text(self) -> str:
        """Return the record as a short text."""
        return (
            f"{self.method}, {counted(self.frames, 'frame')}, "
            f"{counted(self.convolutions, 'convolution')}, for {self.target}, "
            f"{self.activations} activations{', 7-bit weights' if self.reduced_range else ''}"
        )


@dataclass(frozen=True)
class DepthChange:
    """The change of depth by a lower precision, relative to FP32's depth."""

    median: float
    """Largest median of any image."""
    p99: float
    """Largest 99th percentile of any image."""
    images: int
    """Number of images compared."""
    random: bool = False
    """Whether the images were random pixels instead of frames."""

    def __post_init__(self) -> None:
        """Refuse negative figures."""
        for name in ("median", "p99", "images"):
            check_range(f"change.{name}", getattr(self, name), 0)

    def text(self) -> str:
        """Return the figures as a short text."""
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
        """Return the island as a short text."""
        return f"{self.reason} in {', '.join(self.blocks)}"


@dataclass(frozen=True)
class SearchRecord:
    """The result of the precision search on frames that were held out from it."""

    budget: str
    """Allowed loss of accuracy against FP32: ``rel +1%``, ``delta1 -0.003``."""
    change: float
    """Change of the budget's metric from FP32's; a fraction if the budget is in %."""
    protocol: str
    """Name of the protocol that scored the depth."""
    frames: int
    """Number of frames scored."""
    speedup: float
    """Latency of FP32 / latency of this model."""
    engine: str
    """Description of the engine that was timed."""

    def __post_init__(self) -> None:
        """Refuse negative figures."""
        check_range("search.frames", self.frames, 0)
        check_range("search.speedup", self.speedup, 0)

    def text(self) -> str:
        """Return the record as a short text."""
        change = f"{self.change:+.2%}" if self.budget.endswith("%") else f"{self.change:+.4f}"
        return (
            f"budget {self.budget}: {self.budget.split(' ')[0]} {change} under {self.protocol} on "
            f"{counted(self.frames, 'frame')} held out, {self.speedup:.2f} times as fast as FP32 "
            f"on {self.engine}"
        )
