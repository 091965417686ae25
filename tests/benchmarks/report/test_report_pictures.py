from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_benchmarks.report.pictures import gallery, relative_error
from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.colour import colour_depth

Depth = NDArray[np.float32]
SIZE = (60, 80)
RANGE_M = (0.5, 20.0)


@pytest.fixture
def truth() -> Depth:
    """Return ground truth from 1 to 8 m, without a measurement in its first row."""
    depth = np.geomspace(1, 8, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)
    depth[0] = 0
    return depth


@pytest.fixture
def frame() -> Frame:
    """Return a frame of noise."""
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    return Frame(image, 0, name="kitchen/1")


def answer(truth: Depth, scale: float) -> DepthMap:
    """Return the ground truth times a scale."""
    values = np.maximum(truth, 1).astype(np.float32) * np.float32(scale)
    return DepthMap(values, np.ones(SIZE, np.bool_), 0, 0.0)


def test_every_model_has_its_depth_and_its_error_beside_the_ground_truth(
    truth: Depth, frame: Frame
) -> None:
    """All depth in one scale, all errors in another, with what the colours mean."""
    depths = {"a": answer(truth, 1.1), "b": answer(truth, 0.7)}
    pictures = gallery(depths, frame, range_m=RANGE_M, ground_truth=truth)

    titles = ["frame", "ground truth", "a", "b", "a: mean 10 %", "b: mean 30 %"]
    assert [picture.title for picture in pictures] == titles
    groups = [picture.group for picture in pictures]
    assert groups == ["Depth of kitchen/1"] * 4 + ["Relative error against ground truth"] * 2
    np.testing.assert_array_equal(pictures[0].image, frame.image)
    known = np.concatenate([truth[truth > 0], *(depth.values.ravel() for depth in depths.values())])
    low, high = np.percentile(known, (1, 99))
    for picture, depth in zip(pictures[2:4], depths.values(), strict=True):
        expected = colour_depth(depth.values, depth.valid, (float(low), float(high)))
        np.testing.assert_array_equal(picture.image, expected)
        assert picture.scale is not None
        assert picture.scale.marks[0] == (0.0, f"{low:.2g}")
        assert picture.scale.marks[-1] == (1.0, f"{high:.2g}")


def test_figures_stand_where_their_depth_is_on_the_scale(truth: Depth, frame: Frame) -> None:
    """The scale is logarithmic, as the colours are."""
    pictures = gallery({"a": answer(truth, 1.0)}, frame, range_m=RANGE_M, ground_truth=truth)
    scale = pictures[1].scale
    assert scale is not None
    low, high = np.percentile(
        np.concatenate([truth[truth > 0], np.maximum(truth, 1).ravel()]), (1, 99)
    )

    inside = {text: place for place, text in scale.marks[1:-1]}
    assert inside["2"] == pytest.approx(math.log(2 / low) / math.log(high / low), abs=1e-3)


def test_an_error_map_shows_where_and_how_much(truth: Depth, frame: Frame) -> None:
    """Dark where it is right, brightest at and beyond the limit, grey without ground truth."""
    depth = answer(truth, 1.0)
    depth.values[30:] *= 1.5
    *_, error = gallery({"a": depth}, frame, range_m=RANGE_M, ground_truth=truth)
    assert error.scale is not None

    assert error.scale.marks[-1] == (1.0, "≥ 50 %")
    assert (error.image[0] == 208).all()
    assert (error.image[1:30] == error.scale.colours[0]).all()
    assert (error.image[30:] == error.scale.colours[255]).all()
    assert int(error.scale.colours[0].sum()) < int(error.scale.colours[255].sum())


def test_without_ground_truth_the_baseline_is_the_reference(truth: Depth, frame: Frame) -> None:
    """Its own error map would be dark all over, and is left out; without either there is none."""
    depths = {"base": answer(truth, 1.0), "b": answer(truth, 1.02)}
    pictures = gallery(depths, frame, range_m=RANGE_M, baseline="base")
    alone = gallery(depths, frame, range_m=RANGE_M)

    assert [p.title for p in pictures] == ["frame", "base", "b", "b: mean 2 %"]
    assert pictures[-1].group == "Relative error against base"
    assert [p.title for p in alone] == ["frame", "base", "b"]


def test_relative_error_is_nan_where_either_has_no_depth(truth: Depth) -> None:
    """Elsewhere it equals NumPy's."""
    depth = answer(truth, 1.25)
    depth.valid[5] = False
    error = relative_error(depth, truth, truth > 0)

    assert np.isnan(error[[0, 5]]).all()
    np.testing.assert_allclose(error[[1, 59]], 0.25, rtol=1e-5)


def test_points_of_a_scanner_are_widened_and_that_is_said(truth: Depth, frame: Frame) -> None:
    """A point on every tenth row and column would not be seen."""
    sparse = np.zeros(SIZE, np.float32)
    sparse[5::10, 5::10] = truth[5::10, 5::10]
    pictures = gallery({"a": answer(truth, 1.1)}, frame, range_m=RANGE_M, ground_truth=sparse)

    assert pictures[1].title == "ground truth (points widened)"
    assert pictures[-1].title == "a (points widened): mean 10 %"
    points = (sparse > 0).sum()
    assert (pictures[1].image.any(axis=2)).sum() == 25 * points
    assert ((pictures[-1].image != 208).any(axis=2)).sum() == 25 * points


def test_depth_of_another_size_is_one_line(truth: Depth, frame: Frame) -> None:
    """Who calls it learns what does not fit."""
    with pytest.raises(MsfnetError, match="the ground truth"):
        gallery({"a": answer(truth, 1.0)}, frame, range_m=RANGE_M, ground_truth=truth[1:])
