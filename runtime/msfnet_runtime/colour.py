"""Depth as colour: a fixed logarithmic scale, so that near is as readable as far."""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.types import DepthMap, Frame

_MIN_WIDTH_FOR_SCALE = 160
"""Narrower pictures carry no scale, pixels: its figures would hide them."""


def colour_depth(
    values: NDArray[np.float32], valid: NDArray[np.bool_], range_m: tuple[float, float]
) -> NDArray[np.uint8]:
    """Colour a depth map: near is red, far is blue, invalid is black.

    The scale is fixed by ``range_m``, so that colours compare between frames and videos: 256
    steps of OpenCV's Turbo map, even in the logarithm of the depth. Depth beyond the range takes
    the colour of its end.

    Args:
        values: (H, W) float32, metres.
        valid: (H, W) bool.
        range_m: the smallest and largest depth of the scale, metres.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    low, high = range_m
    inside = np.clip(np.where(valid, values, high), low, high)
    steps = np.log(inside / low) * (255 / math.log(high / low))
    coloured = _turbo()[np.rint(steps).astype(np.uint8)]
    coloured[~valid] = 0
    return coloured


def side_by_side(frame: Frame, depth: DepthMap, range_m: tuple[float, float]) -> NDArray[np.uint8]:
    """Return (H, 2 W, 3) uint8 RGB: the frame, and its coloured depth with the scale in metres."""
    coloured = colour_depth(depth.values, depth.valid, range_m)
    draw_scale(coloured, range_m)
    return np.concatenate([frame.image, coloured], axis=1)


def draw_scale(picture: NDArray[np.uint8], range_m: tuple[float, float]) -> None:
    """Draw the colours of the range with their metres into a picture's bottom, in place.

    Args:
        picture: (H, W, 3) uint8 RGB; left as it is when narrower than 160 pixels.
        range_m: the scale's ends, metres.
    """
    height, width = picture.shape[:2]
    if width < _MIN_WIDTH_FOR_SCALE or height < _MIN_WIDTH_FOR_SCALE // 2:
        return
    size = max(0.35, min(width, height) / 900)
    bar, left = max(5, round(14 * size)), round(24 * size)
    length, top = width // 2, height - 2 * bar
    picture[top - round(30 * size) : height, : length + 3 * left] //= 4
    depths = np.geomspace(*range_m, length).astype(np.float32)[None]
    picture[top : top + bar, left : left + length] = colour_depth(depths, depths > 0, range_m)
    low, high = range_m
    for metres in scale_marks(range_m):
        column = left + round(math.log(metres / low) / math.log(high / low) * (length - 1))
        text = f"{metres:g}" + (" m" if metres == scale_marks(range_m)[-1] else "")
        shift = cv2.getTextSize(f"{metres:g}", cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0] // 2
        place = (max(column - shift, 0), top - round(8 * size))
        cv2.putText(
            picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA
        )
        picture[top : top + bar, column] = 255


def scale_marks(range_m: tuple[float, float]) -> list[float]:
    """Return the round depths within a range, metres: 1, 2 and 5 times powers of ten."""
    low, high = range_m
    tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [round(step * 10.0**ten, 9) for ten in tens for step in (1, 2, 5)]
    return [mark for mark in marks if low <= mark <= high] or [low, high]


@functools.cache
def _turbo() -> NDArray[np.uint8]:
    """Return Turbo from red to blue as (256, 3) uint8 RGB."""
    ramp = np.arange(255, -1, -1, dtype=np.uint8)[:, None]
    bgr = np.asarray(cv2.applyColorMap(ramp, cv2.COLORMAP_TURBO), np.uint8)
    return np.ascontiguousarray(bgr[:, 0, ::-1])
