from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msfnet_benchmarks.scoring.metrics import DepthMetrics, MetricsAccumulator, depth_metrics
from msfnet_runtime import MsfnetError
from msfnet_runtime.depth_storage import ENCODINGS, DepthStorage

ALL = np.ones((2, 2), np.bool_)


def score(prediction: list[float], truth: list[float]) -> DepthMetrics:
    """Score a row of pixels, all valid."""
    y, g = np.array([prediction]), np.array([truth])
    return depth_metrics(prediction=y, ground_truth=g, valid=np.ones_like(y, np.bool_))


def test_the_definitions_pixel_by_pixel_in_plain_python() -> None:
    """Eigen's definitions written out with Python's own math."""
    rng = np.random.default_rng(1)
    y, g = rng.uniform(0.5, 9, 50).tolist(), rng.uniform(0.5, 9, 50).tolist()
    pairs = list(zip(y, g, strict=True))

    def mean(term: Callable[[float, float], float]) -> float:
        return sum(term(a, b) for a, b in pairs) / len(pairs)

    metrics = score(y, g)

    log_error = mean(lambda a, b: math.log(a) - math.log(b))
    expected = {
        "rel": mean(lambda a, b: abs(a - b) / b),
        "sq_rel": mean(lambda a, b: (a - b) ** 2 / b),
        "rmse": math.sqrt(mean(lambda a, b: (a - b) ** 2)),
        "rmse_log": math.sqrt(mean(lambda a, b: (math.log(a) - math.log(b)) ** 2)),
        "log10": mean(lambda a, b: abs(math.log10(a) - math.log10(b))),
        "silog": 100
        * math.sqrt(mean(lambda a, b: (math.log(a) - math.log(b)) ** 2) - log_error**2),
        "delta1": mean(lambda a, b: max(a / b, b / a) < 1.25),
        "delta2": mean(lambda a, b: max(a / b, b / a) < 1.25**2),
        "delta3": mean(lambda a, b: max(a / b, b / a) < 1.25**3),
        "pixels": 50,
    }
    for name, value in expected.items():
        assert getattr(metrics, name) == pytest.approx(value), name


def test_swapping_the_two_changes_the_score() -> None:
    """REL is relative to the ground truth: 2 for 4 is half, 4 for 2 is all of it."""
    assert score([2.0], [4.0]).rel == 0.5
    assert score([4.0], [2.0]).rel == 1.0


def test_the_thresholds_are_strict() -> None:
    """A ratio of exactly 1.25 is not within 1.25."""
    assert score([1.25], [1.0]).delta1 == 0
    assert score([1.2499], [1.0]).delta1 == 1


@given(st.floats(0.1, 10), st.integers(0, 2**32 - 1))
def test_a_common_scale_is_all_rel_and_no_silog(scale: float, seed: int) -> None:
    """REL is |scale - 1|, and the scale-invariant error is none, whatever the depths."""
    truth = np.random.default_rng(seed).uniform(1, 80, 30)

    metrics = score((truth * scale).tolist(), truth.tolist())

    assert metrics.rel == pytest.approx(abs(scale - 1), abs=1e-9)
    assert metrics.silog == pytest.approx(0, abs=1e-5)


def test_pixels_that_are_not_valid_do_not_count() -> None:
    """Not even those that hold no depth at all."""
    prediction = np.array([[2.0, np.nan], [-1.0, 3.0]])
    truth = np.array([[1.0, 0.0], [0.0, 3.0]])
    valid = np.array([[True, False], [False, True]])

    metrics = depth_metrics(prediction=prediction, ground_truth=truth, valid=valid)

    assert (metrics.pixels, metrics.rel) == (2, 0.5)


@pytest.mark.parametrize(
    ("prediction", "truth", "valid", "message"),
    [
        (np.ones((2, 2)), np.ones((2, 3)), ALL, "differ in shape"),
        (np.ones((2, 2)), np.ones((2, 2)), ~ALL, "no pixel has ground truth"),
        (np.full((2, 2), np.nan), np.ones((2, 2)), ALL, "prediction is not positive"),
        (np.ones((2, 2)), -np.ones((2, 2)), ALL, "ground truth is not positive"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray, message: str
) -> None:
    """The error is one line."""
    with pytest.raises(MsfnetError, match=message):
        depth_metrics(prediction=prediction, ground_truth=truth, valid=valid)


def test_positional_arguments_are_impossible() -> None:
    """Nobody can swap prediction and ground truth unseen."""
    with pytest.raises(TypeError):
        depth_metrics(np.ones((2, 2)), np.ones((2, 2)), ALL)  # type: ignore[call-arg]


def test_both_averages_of_rmse_are_given() -> None:
    """Images of RMSE 1 and 3: the mean is 2, the pooled one sqrt(5)."""
    accumulator = MetricsAccumulator()
    accumulator.add(score([3.0, 3.0], [2.0, 2.0]))
    accumulator.add(score([5.0], [2.0]))

    summary = accumulator.summary()

    assert summary.rmse == pytest.approx(2)
    assert summary.rmse_pooled == pytest.approx(math.sqrt(5))
    assert (summary.images, summary.pixels) == (2, 3)
    assert summary.rel == pytest.approx((0.5 + 1.5) / 2)


def test_nothing_scored_has_no_mean() -> None:
    """An error, not a NaN."""
    with pytest.raises(MsfnetError, match="no image was scored"):
        MetricsAccumulator().summary()


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("unit", ["uint8_10m", "uint16_mm", "uint16_256", "float32_m"])
def test_whole_counts_with_the_ratio_of_a_threshold_are_not_within_it(
    unit: DepthStorage, power: int
) -> None:
    """Of any storage, in both directions, in float32 and in float64; one count less is within."""
    encoding = ENCODINGS[unit]
    near, far = 4**power, 5**power
    times = np.arange(1, {"uint8_10m": 255, "float32_m": 2000}.get(unit, 20_000) // far + 1)
    lower, upper = (
        encoding.decode((side * times).astype(encoding.dtype))[None] for side in (near, far)
    )
    less = encoding.decode((far * times - 1).astype(encoding.dtype))[None]
    valid = np.ones_like(lower, np.bool_)

    for prediction, truth in ((lower, upper), (upper, lower)):
        for kind in (np.float32, np.float64):
            scored = depth_metrics(
                prediction=prediction.astype(kind), ground_truth=truth.astype(kind), valid=valid
            )
            assert [getattr(scored, f"delta{k}") for k in (1, 2, 3)] == [
                float(k > power) for k in (1, 2, 3)
            ]
    scored = depth_metrics(prediction=less, ground_truth=lower, valid=valid)
    assert getattr(scored, f"delta{power}") == 1
