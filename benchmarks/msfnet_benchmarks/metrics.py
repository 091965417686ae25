"""The depth metrics of the field, in NumPy, one image at a time.

With y the prediction and g the ground truth, both in metres, over the valid pixels:
REL = mean |y-g|/g; SqRel = mean (y-g)^2/g; RMSE; log10 = mean |log10 y - log10 g|; RMSElog;
SILog = 100 sqrt(E[e^2] - E[e]^2) with e = ln y - ln g; delta_k = share of max(y/g, g/y) < 1.25^k.
Source: Eigen et al. 2014; SILog as in KITTI's benchmark.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime import MsfnetError


@dataclass(frozen=True)
class DepthMetrics:
    """The metrics of one image."""

    rel: float
    """Mean absolute relative error."""
    sq_rel: float
    """Mean squared relative error, metres."""
    rmse: float
    """Root mean squared error, metres."""
    rmse_log: float
    """Root mean squared error of the natural logarithm."""
    log10: float
    """Mean absolute error of the decimal logarithm."""
    silog: float
    """Scale-invariant logarithmic error, times 100."""
    delta1: float
    """Share of pixels within a factor of 1.25."""
    delta2: float
    """Share of pixels within a factor of 1.25 squared."""
    delta3: float
    """Share of pixels within a factor of 1.25 cubed."""
    pixels: int
    """Valid pixels."""


@dataclass(frozen=True)
class DepthSummary(DepthMetrics):
    """Means over images; ``pixels`` is their total."""

    rmse_pooled: float
    """Square root of the mean of the images' mean squared errors, metres. ``rmse`` is the mean of
    the images' RMSE; the two differ by about 14 % on NYU, and papers rarely say which they give.
    """
    images: int
    """Images that were scored."""


def depth_metrics(
    *,
    prediction: NDArray[np.floating],
    ground_truth: NDArray[np.floating],
    valid: NDArray[np.bool_],
) -> DepthMetrics:
    """Score one depth map; keywords only, so that the two cannot be swapped unseen.

    Args:
        prediction: (H, W) metres.
        ground_truth: (H, W) metres.
        valid: (H, W) bool: where to compare.

    Raises:
        MsfnetError: shapes differ, no valid pixel, or a depth that is not positive and finite.
    """
    if not prediction.shape == ground_truth.shape == valid.shape:
        raise MsfnetError(
            f"prediction {prediction.shape}, ground truth {ground_truth.shape} and mask "
            f"{valid.shape} differ in shape; bring them to one grid"
        )
    if not valid.any():
        raise MsfnetError("no pixel has ground truth in the protocol's region and range")
    y, g = (np.asarray(depth[valid], np.float64) for depth in (prediction, ground_truth))
    for name, depth in (("prediction", y), ("ground truth", g)):
        if not (np.isfinite(depth).all() and (depth > 0).all()):
            raise MsfnetError(f"the {name} is not positive and finite where it is scored")
    difference, log_difference = y - g, np.log(y) - np.log(g)
    ratio = np.maximum(y / g, g / y)
    return DepthMetrics(
        rel=float(np.mean(np.abs(difference) / g)),
        sq_rel=float(np.mean(difference**2 / g)),
        rmse=float(np.sqrt(np.mean(difference**2))),
        rmse_log=float(np.sqrt(np.mean(log_difference**2))),
        log10=float(np.mean(np.abs(log_difference)) / np.log(10)),
        silog=float(100 * np.std(log_difference)),
        delta1=float(np.mean(ratio < 1.25)),
        delta2=float(np.mean(ratio < 1.25**2)),
        delta3=float(np.mean(ratio < 1.25**3)),
        pixels=int(y.size),
    )


class MetricsAccumulator:
    """Averages metrics over any number of images in constant memory."""

    def __init__(self) -> None:
        self._sums = {field.name: 0.0 for field in fields(DepthMetrics)}
        self._squared_error = 0.0
        self._images = 0

    def add(self, metrics: DepthMetrics) -> None:
        """Count one image."""
        for name in self._sums:
            self._sums[name] += getattr(metrics, name)
        self._squared_error += metrics.rmse**2
        self._images += 1

    def summary(self) -> DepthSummary:
        """Return the means so far.

        Raises:
            MsfnetError: nothing has been added.
        """
        if not self._images:
            raise MsfnetError("no image was scored; check that the data has ground truth")
        means = {name: total / self._images for name, total in self._sums.items()}
        return DepthSummary(
            **{**means, "pixels": int(self._sums["pixels"])},  # type: ignore[arg-type]
            rmse_pooled=float(np.sqrt(self._squared_error / self._images)),
            images=self._images,
        )


def as_row(metrics: DepthMetrics) -> dict[str, float]:
    """Return the metrics by name."""
    return asdict(metrics)
