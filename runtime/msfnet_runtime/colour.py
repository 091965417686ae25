"""Colours depth maps with a fixed logarithmic scale, so that near and far are both readable."""

from __future__ import annotations

import functools
import math
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.types import DepthMap, Frame
from msfnet_runtime.words import shape_text

Layout = Literal["side-by-side", "overlay", "depth"]

COLOUR_MAPS: dict[str, int | None] = {
    "turbo": cv2.COLORMAP_TURBO,
    "magma": cv2.COLORMAP_MAGMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "grey": None,
}
"""OpenCV's number of each colour map; ``grey`` needs none."""

_OVERLAY = 0.55
"""Weight of the depth in an overlay."""

_MIN_WIDTH_FOR_SCALE = 160
"""Narrower pictures have no scale, pixels: its figures would hide them."""


def colour_depth(
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    range_m: tuple[float, float],
    colours: str = "turbo",
) -> NDArray[np.uint8]:
    """Colour a depth map: near is red, far is blue, invalid is black.

    ``range_m`` fixes the scale, so that colours are comparable between frames and videos: 256
    steps of a colour map, uniform in the logarithm of the depth. Depth beyond the range has the
    colour of the nearer end.

    Args:
        values: (H, W) float32, metres.
        valid: (H, W) bool.
        range_m: the smallest and largest depth of the scale, metres.
        colours: a name of :data:`COLOUR_MAPS`.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    low, high = range_m
    steps_per_e = 255 / math.log(high / low)
    logarithms = cv2.log(np.maximum(np.asarray(values, np.float32), low))
    steps = cv2.convertScaleAbs(logarithms, alpha=steps_per_e, beta=-steps_per_e * math.log(low))
    coloured = cv2.applyColorMap(steps, colour_table(colours)[:, None])
    return np.asarray(cv2.bitwise_and(coloured, coloured, mask=valid.astype(np.uint8)), np.uint8)


def panels(
    frame: Frame,
    depth: DepthMap,
    range_m: tuple[float, float],
    layout: Layout = "side-by-side",
    colours: str = "turbo",
) -> list[NDArray[np.uint8]]:
    """Return the panels of a picture from left to right, each (H, W, 3) uint8 RGB.

    ``side-by-side`` is the frame and its coloured depth; ``overlay`` blends the colours with the
    frame, which is unchanged where depth is invalid; ``depth`` is the colours alone. The last
    panel has the scale in metres.

    Raises:
        MsfnetError: frame and depth differ in size.
    """
    check_sizes(frame, depth)
    coloured = colour_depth(depth.values, depth.valid, range_m, colours)
    if layout == "overlay":
        mixed = cv2.addWeighted(frame.image, 1 - _OVERLAY, coloured, _OVERLAY, 0)
        invalid = (~depth.valid).astype(np.uint8)
        coloured = np.asarray(cv2.copyTo(frame.image, invalid, mixed), np.uint8)
    draw_scale(coloured, range_m, colours)
    return [frame.image, coloured] if layout == "side-by-side" else [coloured]


def check_sizes(frame: Frame, depth: DepthMap) -> None:
    """Check that depth is that of a frame.

    Raises:
        MsfnetError: they differ in size.
    """
    if depth.values.shape != frame.image.shape[:2]:
        raise MsfnetError(
            f"the depth of frame {frame.index} has {shape_text(depth.values.shape)} pixels, its "
            f"image {shape_text(frame.image.shape[:2])}; resize one of them"
        )


def draw_scale(
    picture: NDArray[np.uint8], range_m: tuple[float, float], colours: str = "turbo"
) -> None:
    """Draw the colour scale with its metres at the bottom of a picture, in place.

    Args:
        picture: (H, W, 3) uint8 RGB; unchanged if narrower than 160 pixels.
        range_m: ends of the scale, metres.
        colours: a name of :data:`COLOUR_MAPS`.
    """
    height, width = picture.shape[:2]
    if width < _MIN_WIDTH_FOR_SCALE or height < _MIN_WIDTH_FOR_SCALE // 2:
        return
    size = max(0.35, min(width, height) / 900)
    bar, left = max(5, round(14 * size)), round(24 * size)
    length, top = width // 2, height - 2 * bar
    picture[top - round(30 * size) : height, : length + 3 * left] //= 4
    depths = np.geomspace(*range_m, length).astype(np.float32)[None]
    ramp = colour_depth(depths, depths > 0, range_m, colours)
    picture[top : top + bar, left : left + length] = ramp
    low, high = range_m
    marks = scale_marks(range_m)
    for metres in marks:
        column = left + round(math.log(metres / low) / math.log(high / low) * (length - 1))
        number = f"{float(f'{metres:.3g}'):g}"
        text = number + (" m" if metres == marks[-1] else "")
        shift = cv2.getTextSize(number, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0] // 2
        place = (max(column - shift, 0), top - round(8 * size))
        cv2.putText(
            picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA
        )
        picture[top : top + bar, column] = 255


def scale_marks(range_m: tuple[float, float]) -> list[float]:
    """Return the round depths within a range, metres: 1, 2 and 5 times powers of ten.

    A range with fewer than two of them has its ends as marks.
    """
    low, high = range_m
    tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [round(step * 10.0**ten, 9) for ten in tens for step in (1, 2, 5)]
    inside = [mark for mark in marks if low <= mark <= high]
    return inside if len(inside) > 1 else [low, high]


@functools.cache
def colour_table(name: str) -> NDArray[np.uint8]:
    """Return a colour map as (256, 3) uint8 RGB, the nearest depth first.

    Raises:
        MsfnetError: there is no such map.
    """
    if name not in COLOUR_MAPS:
        raise MsfnetError(
            f"{name!r} is not a colour map; choose one of {', '.join(COLOUR_MAPS)}",
            parameter="colours",
        )
    ramp = np.arange(255, -1, -1, dtype=np.uint8)[:, None]
    kind = COLOUR_MAPS[name]
    bgr = np.repeat(ramp[..., None], 3, axis=2) if kind is None else cv2.applyColorMap(ramp, kind)
    return np.ascontiguousarray(np.asarray(bgr, np.uint8)[:, 0, ::-1])
