"""Describes frames by a few figures, and tells when two sets of frames look unlike each other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.precision_records import FrameSummary

DESCRIBED_PIXELS = 320 * 240
"""Frames of more pixels are described shrunk to this many, so that sharpness compares."""

MARGIN = 0.15
"""How far beyond the calibration's span frames still look alike, in widths of the span."""

RIDGE = 0.03
"""Added to the variance of features in widths: what few frames share by accident tells nothing."""


@dataclass(frozen=True)
class FrameStatistics:
    """Statistics of one frame; the depths are None where none was predicted."""

    brightness: float
    """Mean grey level (ITU-R BT.601 luma), 0 to 255."""
    contrast: float
    """Standard deviation of the grey level."""
    colourfulness: float
    """M3 of Hasler and Suesstrunk, "Measuring colourfulness in natural images", 2003."""
    sharpness: float
    """ln(1 + variance of the grey level's Laplacian)."""
    redness: float
    """Mean of red - green: the light's colour, which tells lamps from daylight."""
    yellowness: float
    """Mean of (red + green) / 2 - blue."""
    uprightness: float
    """ln of the variance of horizontal over that of vertical gradients: walls or roads."""
    slope: float
    """Mean grey level of the upper third - that of the lower third: sky or ceiling."""
    log_aspect: float
    """ln(width / height): a network's input is stretched to one shape."""
    log_near_depth: float | None = None
    """ln of the 5 % quantile of predicted depth in metres."""
    log_middle_depth: float | None = None
    """ln of the median of predicted depth in metres."""
    log_far_depth: float | None = None
    """ln of the 95 % quantile of predicted depth in metres."""

    def figures(self) -> dict[str, float]:
        """Return the features that were measured, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class _Feature:
    """A feature's name in messages, and the smallest width of its span."""

    words: str
    width: float
    logarithmic: bool = False
    unit: str = ""

    def text(self, low: float, high: float) -> str:
        """Return a range as a reader knows it: 30 to 60, 1.5 to 4.1 m."""
        if self.logarithmic:
            low, high = math.exp(low), math.exp(high)
        ends = [f"{value:.3g}" for value in (low, high)]
        return " to ".join(dict.fromkeys(ends)) + self.unit


_FEATURES = {
    "brightness": _Feature("brightness", 66),
    "contrast": _Feature("contrast", 45),
    "colourfulness": _Feature("colourfulness", 31),
    "sharpness": _Feature("sharpness", 1.6),
    "redness": _Feature("redness", 39),
    "yellowness": _Feature("yellowness", 45),
    "uprightness": _Feature("uprightness", 0.9),
    "slope": _Feature("brightness of the top less the bottom", 128),
    "log_aspect": _Feature("width / height", 0.5, True),
    "log_near_depth": _Feature("depth (5 % quantile)", 0.7, True, " m"),
    "log_middle_depth": _Feature("depth (median)", 0.7, True, " m"),
    "log_far_depth": _Feature("depth (95 % quantile)", 0.7, True, " m"),
}
"""The widths are the spans of 1,114 NYU frames of 21 rooms, rounded; a third wider or narrower for
the aspect, a factor of two for depths. Few frames or one drive span far less by accident."""

_JOINT = tuple(_FEATURES)[:8]
"""What all frames have and is regarded together as well: all but aspect and depth."""


def describe_frame(frame: Frame, depth: DepthMap | None = None) -> FrameStatistics:
    """Measure one frame; a depth map without a valid pixel counts as none."""
    height, width = frame.image.shape[:2]
    image = _shrink(frame.image)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    redness, yellowness, colourfulness = _colours(image)
    across, down = (float(cv2.Sobel(grey, cv2.CV_32F, *axis).var()) for axis in ((1, 0), (0, 1)))
    return FrameStatistics(
        float(grey.mean()),
        float(grey.std()),
        colourfulness,
        math.log1p(float(cv2.Laplacian(grey, cv2.CV_32F).var())),
        redness,
        yellowness,
        math.log1p(across) - math.log1p(down),
        float(grey[: -(-len(grey) // 3)].mean() - grey[2 * len(grey) // 3 :].mean()),
        math.log(width / height),
        *_log_depths(depth),
    )


def frame_hash(frame: Frame) -> str:
    """Return the first 16 hexadecimal digits of SHA-256 over the image's shape and pixels."""
    digest = hashlib.sha256(repr(frame.image.shape).encode())
    digest.update(frame.image.tobytes())
    return digest.hexdigest()[:16]


def summarise_frames(frames: Iterable[tuple[Frame, FrameStatistics]]) -> FrameSummary:
    """Return the summary of frames and their statistics; one frame is held at a time.

    Raises:
        MsfnetError: there are none.
    """
    described = [(frame_hash(frame), statistics) for frame, statistics in frames]
    if not described:
        raise MsfnetError("no frames to summarise; give at least one")
    hashes, statistics = zip(*described, strict=True)
    columns = _columns(statistics)
    spans = {name: _quantiles(values) for name, values in columns.items()}
    points = _joint_points(statistics)
    covariance = np.atleast_2d(np.cov(points.T, bias=True))
    distances = _distances(points, np.median(points, axis=0), covariance)
    reach = float(np.percentile(distances, 95))
    return FrameSummary(hashes, spans, tuple(map(tuple, covariance.tolist())), reach)


def unlike(calibration: FrameSummary, evaluated: Sequence[FrameStatistics]) -> list[str]:
    """Return one line for each way in which the evaluated frames look unlike the calibration's.

    A feature is unlike where more than half of the evaluated frames that have it lie outside the
    calibration's 5 % to 95 % span, widened at both ends by ``MARGIN`` + 2 / calibration frames +
    1 / evaluated frames of its width. The combination is, where more than half are further from
    the calibration's medians (Mahalanobis) than ``reach`` times 1 + 4 / calibration frames +
    0.5 / evaluated frames; it takes 16 calibration frames. Few frames say little of their kind.

    Measured: 64 NYU frames of 21 rooms, drawn at random or for their looks, 60 times each, never
    warned of the rest of those rooms nor of any of five others; they did of each KITTI drive.

    Raises:
        MsfnetError: the calibration's summary lacks features, or is not a summary of frames.
    """
    if not evaluated:
        return []
    if not calibration.percentiles.keys() >= {*_JOINT} or len(calibration.covariance) != len(
        _JOINT
    ):
        raise MsfnetError("the model's calibration summary lacks features; calibrate it again")
    reasons = [
        reason
        for name, values in _columns(evaluated).items()
        if name in calibration.percentiles
        and (reason := _unlike_feature(name, calibration, np.array(values)))
    ]
    return reasons + _unlike_together(calibration, evaluated)


def _unlike_feature(name: str, calibration: FrameSummary, values: NDArray[np.float64]) -> str:
    """Return why the (N,) values of one feature are unlike, or nothing."""
    feature, (low, _, high) = _FEATURES[name], calibration.percentiles[name]
    slack = MARGIN + 2 / calibration.count + 1 / len(values)
    slack *= max(high - low, feature.width)
    if np.mean((values < low - slack) | (values > high + slack)) <= 0.5:
        return ""
    seen = feature.text(*np.percentile(values, (5, 95)))
    return (
        f"calibrated on frames of {feature.words} {feature.text(low, high)}, "
        f"but evaluated on {seen}"
    )


def _unlike_together(calibration: FrameSummary, evaluated: Sequence[FrameStatistics]) -> list[str]:
    if calibration.count < 2 * len(_JOINT):
        return []
    medians = [calibration.percentiles[name][1] / _FEATURES[name].width for name in _JOINT]
    covariance = np.array(calibration.covariance)
    distances = _distances(_joint_points(evaluated), np.array(medians), covariance)
    slack = 1 + 4 / calibration.count + 0.5 / len(evaluated)
    distance = float(np.median(distances))
    if distance <= calibration.reach * slack:
        return []
    return [
        "evaluated on frames that combine light, colours and edges unlike those calibrated on: "
        f"{distance:.1f} from their middle, where 95 % of those are within {calibration.reach:.1f}"
    ]


def _joint_points(statistics: Sequence[FrameStatistics]) -> NDArray[np.float64]:
    """Return (N, F) features in their least widths."""
    figures = [entry.figures() for entry in statistics]
    return np.array([[entry[name] / _FEATURES[name].width for name in _JOINT] for entry in figures])


def _distances(
    points: NDArray[np.float64], centre: NDArray[np.float64], covariance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the (N,) Mahalanobis distances of (N, F) points, with ``RIDGE`` on the diagonal."""
    root = np.linalg.cholesky(covariance + RIDGE * np.eye(len(centre)))
    distances: NDArray[np.float64] = np.linalg.norm(
        np.linalg.solve(root, (points - centre).T), axis=0
    )
    return distances


def _shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = math.sqrt(DESCRIBED_PIXELS / (height * width))
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cast("NDArray[np.uint8]", cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def _colours(image: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Return redness, yellowness and colourfulness."""
    red, green, blue = np.moveaxis(image.astype(np.float32), -1, 0)
    opponents = red - green, (red + green) / 2 - blue
    redness, yellowness = (float(channel.mean()) for channel in opponents)
    spread = math.hypot(*(float(channel.std()) for channel in opponents))
    return redness, yellowness, spread + 0.3 * math.hypot(redness, yellowness)


def _log_depths(depth: DepthMap | None) -> tuple[float, ...]:
    if depth is None or not depth.valid.any():
        return ()
    metres = np.quantile(depth.values[depth.valid], (0.05, 0.5, 0.95))
    return tuple(float(value) for value in np.log(metres))


def _columns(statistics: Iterable[FrameStatistics]) -> dict[str, list[float]]:
    """Return each feature's values over the frames that have it."""
    columns: dict[str, list[float]] = {}
    for entry in statistics:
        for name, value in entry.figures().items():
            columns.setdefault(name, []).append(value)
    return columns


def _quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the 5 %, 50 % and 95 % quantiles."""
    low, middle, high = (float(value) for value in np.percentile(values, (5, 50, 95)))
    return low, middle, high
