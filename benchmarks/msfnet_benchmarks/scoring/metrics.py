"""The depth metrics of the field, in NumPy, one image at a time.

With y the prediction and g the ground truth, both in metres, over the valid pixels:
REL = mean |y-g|/g; SqRel = mean (y-g)^2/g; RMSE; log10 = mean |log10 y - log10 g|; RMSElog;
SILog = 100 sqrt(E[e^2] - E[e]^2) with e = ln y - ln g; delta_k = share of max(y/g, g/y) < 1.25^k,
where a ratio of exactly 1.25^k, up to the rounding of float32, does not count.
Source: Eigen et al. 2014; SILog as in KITTI's benchmark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime import MsfnetError


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class DepthSummary(DepthMetrics):
    """Means over images; ``pixels`` is their total."""

    rmse_pooled: float
    """Square root of the mean of the images' mean squared errors, metres. ``rmse`` is the mean of
    the images' RMSE; the two differ by about 14 % on NYU, and papers rarely say which they give.
    """
    images: int
    """Images that were scored."""


HEADINGS: Mapping[str, str] = MappingProxyType(
    {
        "rel": "REL",
        "sq_rel": "SqRel m",
        "rmse": "RMSE m",
        "rmse_pooled": "RMSE pooled m",
        "rmse_log": "RMSElog",
        "log10": "log10",
        "silog": "SILog",
        "delta1": "d1",
        "delta2": "d2",
        "delta3": "d3",
    }
)
"""All metrics: the heading of each in tables, by its field."""

SHARES = ("delta1", "delta2", "delta3")
"""Metrics that fall as depth gets worse; the others grow."""

TABLE_METRICS = ("rel", "rmse", "rmse_pooled", "log10", "silog", *SHARES)
"""The metrics that a table shows, in its order."""

_TIE = 2.5e-7
"""Ratios this close to a factor, as a share of it, count as equal to it. Stored depth is a whole
number of millimetres or the like, so that a ratio of exactly 1.25 is frequent; float32 metres,
rounded by 6e-8, would decide it by chance."""

_BLOCK = 1 << 15
"""Pixels that are worked on at once: 256 KiB an array stay in a processor's cache."""


@dataclass(frozen=True, eq=False)
class ScoredPixels:
    """The pixels of one image that are compared; every metric starts here.

    Get them from :func:`scored_pixels` or a protocol, which check them.
    """

    prediction: NDArray[np.floating]
    """(N,) metres, finite and above 0."""
    ground_truth: NDArray[np.floating]
    """(N,) metres, finite and above 0."""

    @cached_property
    def ratio(self) -> NDArray[np.floating]:
        """Prediction over ground truth, (N,)."""
        return self.prediction / self.ground_truth

    def blocks(self) -> Iterator[ScoredPixels]:
        """Yield the pixels piece by piece in float64: several times as fast as all at once."""
        for start in range(0, self.prediction.size, _BLOCK):
            piece = slice(start, start + _BLOCK)
            y, g = (depth[piece] for depth in (self.prediction, self.ground_truth))
            yield ScoredPixels(y.astype(np.float64), g.astype(np.float64))

    def over(self, factor: float) -> NDArray[np.bool_]:
        """Return where y/g >= factor, (N,)."""
        return np.asarray(self.ratio >= factor * (1 - _TIE))

    def under(self, factor: float) -> NDArray[np.bool_]:
        """Return where g/y >= factor, (N,)."""
        return np.asarray(self.ratio <= (1 + _TIE) / factor)

    def within(self, factor: float) -> NDArray[np.bool_]:
        """Return where max(y/g, g/y) < factor, (N,)."""
        return ~(self.over(factor) | self.under(factor))

    def metrics(self) -> DepthMetrics:
        """Return the image's metrics."""
        count = self.prediction.size
        # Logarithms are summed from the first pixel's: e**2 less its mean would cancel.
        shift = float(np.log(self.prediction[0] / self.ground_truth[0]))
        sums = np.sum([block._sums(shift) for block in self.blocks()], axis=0)
        rel, sq_rel, squared, log, e, e_squared, *within = (sums / count).tolist()
        variance = max(0.0, e_squared - e**2)
        return DepthMetrics(
            rel=rel,
            sq_rel=sq_rel,
            rmse=float(np.sqrt(squared)),
            rmse_log=float(np.sqrt(variance + (shift + e) ** 2)),
            log10=log / float(np.log(10)),
            silog=float(100 * np.sqrt(variance)),
            delta1=within[0],
            delta2=within[1],
            delta3=within[2],
            pixels=count,
        )

    def _sums(self, shift: float) -> tuple[float, ...]:
        """Return the sums that the metrics are made of, logarithms less ``shift``."""
        squared = np.square(self.prediction - self.ground_truth)
        log_ratio = np.log(self.ratio)
        shifted = log_ratio - shift
        return (
            float(np.abs(self.ratio - 1).sum()),
            float((squared / self.ground_truth).sum()),
            float(squared.sum()),
            float(np.abs(log_ratio).sum()),
            float(shifted.sum()),
            float(np.square(shifted).sum()),
            *(float(np.count_nonzero(self.within(1.25**k))) for k in (1, 2, 3)),
        )


def scored_pixels(
    *,
    prediction: NDArray[np.floating],
    ground_truth: NDArray[np.floating],
    valid: NDArray[np.bool_],
) -> ScoredPixels:
    """Take the pixels to score; keywords only, so that the two cannot be swapped unseen.

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
    y, g = prediction[valid], ground_truth[valid]
    for name, depth in (("prediction", y), ("ground truth", g)):
        if not (depth.min() > 0 and depth.max() < np.inf):  # false for NaN
            raise MsfnetError(f"the {name} is not positive and finite where it is scored")
    return ScoredPixels(y, g)


def depth_metrics(
    *,
    prediction: NDArray[np.floating],
    ground_truth: NDArray[np.floating],
    valid: NDArray[np.bool_],
) -> DepthMetrics:
    """Score one depth map; arguments and errors are those of :func:`scored_pixels`."""
    pixels = scored_pixels(prediction=prediction, ground_truth=ground_truth, valid=valid)
    return pixels.metrics()


_NAMES = tuple(field.name for field in fields(DepthMetrics))


class MetricsAccumulator:
    """Averages metrics over any number of images in constant memory."""

    def __init__(self) -> None:
        self._sums: NDArray[np.float64] = np.zeros(len(_NAMES) + 2)

    def add(self, metrics: DepthMetrics) -> None:
        """Count one image."""
        values = [getattr(metrics, name) for name in _NAMES]
        self._sums += (*values, metrics.rmse**2, 1)

    def summary(self) -> DepthSummary:
        """Return the means so far.

        Raises:
            MsfnetError: nothing has been added.
        """
        *totals, squared_error, count = self._sums.tolist()
        if not count:
            raise MsfnetError("no image was scored; check that the data has ground truth")
        means = {name: total / count for name, total in zip(_NAMES, totals, strict=True)}
        return DepthSummary(
            **{**means, "pixels": int(totals[_NAMES.index("pixels")])},
            rmse_pooled=float(np.sqrt(squared_error / count)),
            images=int(count),
        )
