from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msfnet_benchmarks.scoring.alignment import Alignment, align
from msfnet_benchmarks.scoring.protocols import PROTOCOLS
from msfnet_runtime import MsfnetError

WIDE = (1e-6, 1e6)
SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.floats(0.01, 100))
def test_the_median_undoes_any_scale(seed: int, scale: float) -> None:
    """The fitted prediction has the truth's median, whatever the prediction was scaled by."""
    rng = np.random.default_rng(seed)
    y, g = rng.uniform(1, 9, (2, 31))

    fitted = align(prediction=y * scale, ground_truth=g, how="median", range_m=WIDE)

    np.testing.assert_allclose(fitted, y * np.median(g) / np.median(y))
    assert np.median(fitted) == pytest.approx(np.median(g))


@given(SEEDS, st.floats(0.01, 100), st.floats(-0.5, 5))
def test_least_squares_undo_scale_and_shift(seed: int, scale: float, shift: float) -> None:
    """The alignment is of depth or of inverse depth, by its name, and gives the truth."""
    g = np.random.default_rng(seed).uniform(1, 9, 40)
    answers: dict[Alignment, np.ndarray] = {
        "least_squares": (g + shift) * scale,
        "least_squares_inverse": 1 / ((1 / g + shift + 0.6) * scale),
    }

    for how, prediction in answers.items():
        fitted = align(prediction=prediction, ground_truth=g, how=how, range_m=WIDE)
        np.testing.assert_allclose(fitted, g, rtol=1e-6)


@given(SEEDS)
def test_least_squares_are_numpys(seed: int) -> None:
    """The line of numpy.linalg.lstsq, where no line is perfect."""
    y, g = np.random.default_rng(seed).uniform(1, 9, (2, 40))

    def line(x: np.ndarray, target: np.ndarray) -> np.ndarray:
        columns = np.stack([x, np.ones_like(x)], axis=1)
        return np.asarray(columns @ np.linalg.lstsq(columns, target, rcond=None)[0])

    depth = align(prediction=y, ground_truth=g, how="least_squares", range_m=WIDE)
    inverse = align(prediction=y, ground_truth=g, how="least_squares_inverse", range_m=(1, 9))

    np.testing.assert_allclose(depth, np.clip(line(y, g), *WIDE), rtol=1e-9)
    np.testing.assert_allclose(1 / inverse, np.clip(line(1 / y, 1 / g), 1 / 9, 1), rtol=1e-9)


def test_a_flat_prediction_has_only_a_median() -> None:
    """A line through one point is none."""
    flat, g = np.full(4, 3.0), np.array([1.0, 2, 3, 10])

    np.testing.assert_allclose(
        align(prediction=flat, ground_truth=g, how="median", range_m=WIDE), 2.5
    )
    with pytest.raises(MsfnetError, match="flat prediction"):
        align(prediction=flat, ground_truth=g, how="least_squares", range_m=WIDE)


def test_alignment_never_touches_the_plain_score() -> None:
    """A prediction twice too far: REL 1 as it is, 0 where alignment is asked for."""
    rng = np.random.default_rng(3)
    truth = rng.uniform(1, 9, (228, 304)).astype(np.float32)
    protocol = PROTOCOLS["nyu_hu"]

    assert protocol.score(prediction=2 * truth, ground_truth=truth).rel == pytest.approx(1)
    for alignment in get_args(Alignment):
        pixels = protocol.pixels(prediction=2 * truth, ground_truth=truth, alignment=alignment)
        assert pixels.metrics().rel == pytest.approx(0, abs=1e-5)
