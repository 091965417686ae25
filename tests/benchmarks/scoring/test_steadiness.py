from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from msfnet_benchmarks.scoring.steadiness import FlickerReport, RunningStd, measure_flicker
from msfnet_runtime import DepthMap, Frame, MsfnetError


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_running_deviation_is_numpys(count: int, seed: int) -> None:
    """Also far from zero, where sums of squares would cancel."""
    values = np.random.default_rng(seed).normal(1e6, 1e-2, (count, 3, 4))
    running = RunningStd()
    for value in values:
        running.add(value)

    np.testing.assert_allclose(running.std(), values.std(axis=0), atol=1e-8)


def flicker(depths: NDArray[np.floating], valid: NDArray[np.bool_] | None = None) -> FlickerReport:
    """Show a model frames that it answers with (N, H, W) metres."""
    mask = np.ones(depths.shape, np.bool_) if valid is None else valid
    size = (*depths.shape[1:], 3)
    frames = [Frame(np.zeros(size, np.uint8), index) for index in range(len(depths))]
    return measure_flicker(
        lambda f: DepthMap(depths[f.index].astype(np.float32), mask[f.index]), frames
    )


def test_flicker_is_the_deviation_of_log_depth() -> None:
    """Pixel by pixel over the frames; drift is that of the median step."""
    depths = np.random.default_rng(1).lognormal(1, 0.1, (12, 20, 30)).astype(np.float32)

    result = flicker(depths)

    spread = np.log(depths.astype(float)).std(axis=0)
    steps = np.median(np.diff(np.log(depths.astype(float)), axis=0), axis=(1, 2))
    assert result.mean == pytest.approx(spread.mean())
    assert result.p50 == pytest.approx(np.median(spread))
    assert result.p95 == pytest.approx(np.percentile(spread, 95))
    assert result.drift == pytest.approx(steps.std())
    assert (result.frames, result.pixels) == (12, 600)
    assert "flicker" in result.text()


def test_a_breathing_scale_is_drift_and_a_still_model_is_still() -> None:
    """Every pixel times 1.1 every other frame: the steps are ln 1.1, up and down."""
    still = np.random.default_rng(2).uniform(1, 9, (4, 5))

    calm = flicker(np.stack([still] * 5))
    breathing = flicker(np.stack([still, 1.1 * still] * 3))

    assert (calm.mean, calm.p95, calm.drift) == (0, 0, 0)
    step = np.log(1.1)
    assert breathing.mean == pytest.approx(step / 2, rel=1e-5)
    assert breathing.drift == pytest.approx(np.std([step, -step, step, -step, step]), rel=1e-5)


def test_pixels_that_miss_a_frame_are_left_out() -> None:
    """They have no deviation to compare."""
    depths = np.full((3, 2, 2), 4.0)
    depths[1, 0, 0] = np.nan
    valid = np.isfinite(depths)

    assert flicker(depths, valid).pixels == 3
    assert flicker(depths, valid).mean == 0


def test_too_little_to_tell_is_refused() -> None:
    """One frame, frames of two sizes, and no pixel that all frames have."""
    one = np.full((1, 2, 2), 4.0)
    with pytest.raises(MsfnetError, match="at least two frames"):
        flicker(one)
    never = np.zeros((2, 1, 2), np.bool_)
    never[0, 0, 0] = never[1, 0, 1] = True
    with pytest.raises(MsfnetError, match="at least two frames"):
        flicker(np.full((2, 1, 2), 4.0), never)
    frames = [Frame(np.zeros((2, width, 3), np.uint8)) for width in (2, 3)]
    with pytest.raises(MsfnetError, match="one size"):
        measure_flicker(
            lambda f: DepthMap(
                np.ones(f.image.shape[:2], np.float32), np.ones(f.image.shape[:2], np.bool_)
            ),
            frames,
        )
