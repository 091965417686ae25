"""Tests the colours of depth maps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from msfnet_runtime import MsfnetError
from msfnet_runtime.colour import colour_depth, colour_table, draw_scale, panels, scale_marks
from tests.runtime.streams import frame, ramp


def test_colours_are_turbo_on_a_logarithmic_scale() -> None:
    """Equal factors are equal steps; the reference computes OpenCV's map pixel by pixel."""
    values = np.array([[0.5, 1.0, 4.0, 25.3, 80.0]], np.float32)
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)

    coloured = colour_depth(values, values > 0, (0.5, 80.0))

    for got, metres in zip(coloured[0], values[0], strict=True):
        place = np.log(metres / 0.5) / np.log(80.0 / 0.5)
        np.testing.assert_array_equal(got, table[255 - round(float(place) * 255), 0, ::-1])


def test_near_is_red_far_is_blue_invalid_is_black() -> None:
    """Beyond the range the colour is that of the end; invalid NaN and infinity are ignored."""
    values = np.array([[0.01, 0.8, 40.0, 900.0, np.nan, np.inf, 7.0]], np.float32)
    valid = np.array([[True, True, True, True, False, False, False]])

    with np.errstate(all="raise"):
        coloured = colour_depth(values, valid, (0.5, 80.0)).astype(int)[0]

    assert coloured[1][0] > coloured[1][2] + 80
    assert coloured[2][2] > coloured[2][0] + 80
    ends = colour_depth(np.array([[0.5, 80]], np.float32), np.ones((1, 2), bool), (0.5, 80.0))[0]
    np.testing.assert_array_equal(coloured[[0, 3]], ends)
    assert not coloured[4:].any()


@pytest.mark.parametrize(
    ("range_m", "marks"),
    [
        ((0.5, 80.0), [0.5, 1, 2, 5, 10, 20, 50]),
        ((0.1, 10.0), [0.1, 0.2, 0.5, 1, 2, 5, 10]),
        ((3.0, 4.0), [3.0, 4.0]),
        ((4.5, 9.5), [4.5, 9.5]),
    ],
)
def test_the_scale_has_round_metres(range_m: tuple[float, float], marks: list[float]) -> None:
    """They are 1, 2 and 5 times powers of ten, or the ends if less than two are within."""
    assert scale_marks(range_m) == marks


def test_the_scale_is_drawn_at_the_bottom_of_wide_pictures_only() -> None:
    """Its bar has the colours of the range from near to far; pixels above do not change."""
    wide, narrow = (np.full((h, w, 3), 90, np.uint8) for h, w in ((270, 480), (60, 100)))

    draw_scale(wide, (0.5, 80.0))
    draw_scale(narrow, (0.5, 80.0))

    assert (narrow == 90).all()
    assert (wide[:200] == 90).all()
    bars = [row for row in wide[200:] if len(np.unique(row, axis=0)) > 150]
    assert bars, "a row with the whole range of colours"
    red, blue = bars[0][:, 0].astype(int), bars[0][:, 2].astype(int)
    assert np.argmax(red - blue) < np.argmax(blue - red)


@pytest.mark.parametrize("name", ["turbo", "magma", "viridis", "cividis", "grey"])
def test_every_map_is_opencvs_nearest_first(name: str) -> None:
    """Near has the bright end; an unknown map is refused with a list."""
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    number = getattr(cv2, f"COLORMAP_{name.upper()}", None)
    expected = ramp.repeat(3, 1) if number is None else cv2.applyColorMap(ramp, number)[:, 0, ::-1]

    np.testing.assert_array_equal(colour_table(name), expected[::-1])
    with pytest.raises(MsfnetError, match=r"'jet' .*turbo, magma"):
        colour_table("jet")


def test_panels_of_each_layout() -> None:
    """They are frame and colours; a blend that keeps invalid pixels; or colours alone."""
    each, depth = frame(3, (60, 100)), ramp((60, 100))
    colours = colour_depth(depth.values, depth.valid, (0.5, 80.0))

    both = panels(each, depth, (0.5, 80.0))
    (mixed,) = panels(each, depth, (0.5, 80.0), "overlay")
    (alone,) = panels(each, depth, (0.5, 80.0), "depth")

    np.testing.assert_array_equal(both[0], each.image)
    np.testing.assert_array_equal(both[1], colours)
    np.testing.assert_array_equal(alone, colours)
    np.testing.assert_array_equal(mixed[~depth.valid], each.image[~depth.valid])
    blend = 0.45 * each.image + 0.55 * colours
    assert np.abs(mixed - blend)[depth.valid].max() <= 0.51
