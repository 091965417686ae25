"""Sample pictures for a report: every model's depth in the same colours, and its errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_datasets.figures import widen_points
from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.colour import colour_depth, colour_table, scale_marks

_GREY = (208, 208, 208)
"""The colour of pixels without a reference; no colour scale has it."""

_SPARSE = 0.5
"""Ground truth of less coverage is widened for the eye."""

_ERROR_COLOURS = "viridis"


@dataclass(frozen=True, eq=False)
class ColourScale:
    """The meaning of a picture's colours."""

    colours: NDArray[np.uint8]
    """(256, 3) RGB, from the low end to the high one."""
    marks: tuple[tuple[float, str], ...]
    """Figures with their place along the colours (0 to 1)."""
    unit: str


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture for the page: a frame, a model's depth in colours, or its error."""

    title: str
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    group: str = "Depth"
    """Pictures of one group stand side by side under it."""
    scale: ColourScale | None = None
    """None: the colours are the camera's."""


class _Reference(NamedTuple):
    name: str
    values: NDArray[np.float32]
    """(H, W) metres."""
    valid: NDArray[np.bool_]
    sparse: bool


def gallery(
    depths: Mapping[str, DepthMap],
    frame: Frame,
    *,
    range_m: tuple[float, float],
    ground_truth: NDArray[np.float32] | None = None,
    scored: NDArray[np.bool_] | None = None,
    baseline: str | None = None,
) -> list[Picture]:
    """Return a frame, its ground truth, the models' depth of it, and their relative errors.

    Depth has one scale for all models: from the 1st to the 99th percentile of all shown depth,
    within the model's range. Errors are |y - g| / g with g the ground truth, or without
    one the baseline's depth; they share a scale too, which ends at the 95th percentile of all of
    them, rounded up to 1, 2 or 5 times a power of ten. Pixels without a reference are grey.

    Args:
        depths: by model, each at the frame's size.
        frame: the models' input.
        range_m: lowest and highest depth that the models can answer, metres.
        ground_truth: (H, W) float32 metres, 0 = none, at the frame's size.
        scored: (H, W): where a protocol scores; errors are shown and averaged there, so that the
            mean is the frame's REL. None: wherever there is ground truth.
        baseline: the model that the others are compared with where there is no ground truth.

    Raises:
        MsfnetError: ground truth or depth of another size than the frame.
    """
    size = frame.image.shape[:2]
    shapes = {name: depth.values.shape for name, depth in depths.items()}
    if ground_truth is not None:
        shapes["the ground truth"] = ground_truth.shape
    for name, shape in shapes.items():
        if shape != size:
            raise MsfnetError(f"the frame is {size}, {name} {shape}; give them one size")
    reference = _reference(depths, ground_truth, baseline)
    compared = reference
    if reference and scored is not None:
        compared = reference._replace(valid=reference.valid & scored)
    range_m = _shown_range(depths, reference, range_m)
    group, scale = f"Depth of {frame.name or 'a frame'}", _depth_scale(range_m)
    pictures = [Picture("frame", frame.image, group)]
    if reference and ground_truth is not None:
        shown = _widened(reference)
        coloured = colour_depth(shown, shown > 0, range_m)
        pictures.append(Picture(_titled("ground truth", reference), coloured, group, scale))
    pictures += [
        Picture(name, colour_depth(depth.values, depth.valid, range_m), group, scale)
        for name, depth in depths.items()
    ]
    where = " where it is scored" if scored is not None else ""
    return [*pictures, *(_errors(depths, compared, where) if compared else [])]


def relative_error(
    depth: DepthMap, reference: NDArray[np.float32], valid: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return |y - g| / g, (H, W); NaN where either has no depth."""
    both = valid & depth.valid & (reference > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.abs(depth.values - reference) / reference
    return np.where(both, error, np.float32(np.nan)).astype(np.float32)


def _reference(
    depths: Mapping[str, DepthMap], ground_truth: NDArray[np.float32] | None, baseline: str | None
) -> _Reference | None:
    if ground_truth is not None and (ground_truth > 0).any():
        known = np.isfinite(ground_truth) & (ground_truth > 0)
        return _Reference("ground truth", ground_truth, known, bool(known.mean() < _SPARSE))
    if baseline is not None and baseline in depths and len(depths) > 1:
        depth = depths[baseline]
        return _Reference(baseline, depth.values, depth.valid, False)
    return None


def _shown_range(
    depths: Mapping[str, DepthMap], reference: _Reference | None, range_m: tuple[float, float]
) -> tuple[float, float]:
    """Return the ends of the depth scale, metres."""
    maps = [(depth.values, depth.valid) for depth in depths.values()]
    maps += [(reference.values, reference.valid)] if reference else []
    shown = np.concatenate([values[valid] for values, valid in maps])
    if not shown.size:
        return range_m
    low, high = (float(m) for m in np.clip(np.percentile(shown, (1, 99)), *range_m))
    return low, max(high, 1.1 * low)


def _widened(reference: _Reference) -> NDArray[np.float32]:
    """Return the reference as it is shown, (H, W) metres, 0 = none."""
    values = np.where(reference.valid, reference.values, np.float32(0))
    return np.nan_to_num(widen_points(values)).astype(np.float32) if reference.sparse else values


def _titled(title: str, reference: _Reference) -> str:
    return f"{title} (points widened)" if reference.sparse else title


def _errors(depths: Mapping[str, DepthMap], reference: _Reference, where: str) -> list[Picture]:
    errors = {
        name: relative_error(depth, reference.values, reference.valid)
        for name, depth in depths.items()
        if name != reference.name
    }
    measured = np.concatenate([error[np.isfinite(error)] for error in errors.values()])
    limit = _round_up(float(np.percentile(measured, 95)) if measured.size else 1.0)
    scale = _error_scale(limit)

    def mean(error: NDArray[np.float32]) -> str:
        value = float(np.nanmean(error, dtype=np.float64))
        return f"REL {value:.4f}" if where else f"mean {100 * value:.2g} %"

    return [
        Picture(
            f"{_titled(name, reference)}: {mean(error)}"
            if np.isfinite(error).any()
            else f"{name}: no pixel to compare",
            _colour_error(error, limit, reference.sparse),
            f"Relative error against {reference.name}{where}",
            scale,
        )
        for name, error in errors.items()
    ]


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten; never 0."""
    value = max(value, 1e-6)
    tens = 10.0 ** math.floor(math.log10(value))
    return next(step * tens for step in (1, 2, 5, 10) if value <= step * tens * (1 + 1e-4))


def _colour_error(error: NDArray[np.float32], limit: float, sparse: bool) -> NDArray[np.uint8]:
    """Return (H, W, 3) RGB: dark is accurate, bright is ``limit`` or more, grey is unknown."""
    shown = error
    if sparse:  # An exact 0 would count as no point.
        shown = widen_points(np.where(np.isfinite(error), np.maximum(error, 1e-9), 0)).astype("f4")
    known = np.isfinite(shown)
    steps = np.clip(np.rint(np.where(known, shown, 0) / limit * 255), 0, 255).astype(np.uint8)
    coloured = cv2.LUT(cv2.merge([steps] * 3), _error_table()[None])
    return np.where(known[..., None], coloured, np.array(_GREY, np.uint8)).astype(np.uint8)


def _error_table() -> NDArray[np.uint8]:
    """Return (256, 3) RGB, dark first."""
    return np.ascontiguousarray(colour_table(_ERROR_COLOURS)[::-1])


def _error_scale(limit: float) -> ColourScale:
    marks = tuple((share, f"{100 * share * limit:g} %") for share in (0.0, 0.25, 0.5, 0.75))
    ends = (*marks, (1.0, f"≥ {100 * limit:g} %"))
    return ColourScale(_error_table(), ends, "|y - g| / g; grey: no reference")


def _depth_scale(range_m: tuple[float, float]) -> ColourScale:
    """Return the logarithmic scale of :func:`~msfnet_runtime.colour.colour_depth`."""
    low, high = range_m
    places = [(math.log(m / low) / math.log(high / low), f"{m:g}") for m in scale_marks(range_m)]
    ends = [(0.0, f"{low:.2g}"), (1.0, f"{high:.2g}")]
    inside = [mark for mark in places if 0.12 < mark[0] < 0.88]
    return ColourScale(colour_table("turbo"), (ends[0], *inside, ends[1]), "metres, logarithmic")
