from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from msfnet_benchmarks.scoring.boundaries import THRESHOLDS, BoundaryCounts
from msfnet_benchmarks.scoring.deployment import DeploymentAccumulator, DeploymentReport
from msfnet_benchmarks.scoring.protocols import PROTOCOLS

KITTI, NYU = PROTOCOLS["kitti_raw_full"], PROTOCOLS["nyu_hu"]


def report(
    prediction: NDArray[np.float32], truth: NDArray[np.float32], protocol: str = "kitti_raw_full"
) -> DeploymentReport:
    """Score one image."""
    chosen = PROTOCOLS[protocol]
    accumulator = DeploymentAccumulator(chosen)
    pixels = chosen.pixels(prediction=prediction, ground_truth=truth)
    accumulator.add("drive/0", pixels, prediction=prediction, ground_truth=truth)
    return accumulator.report()


def row(*values: float) -> NDArray[np.float32]:
    """Return a map of one row."""
    return np.array([values], np.float32)


def test_bins_by_hand() -> None:
    """The lower edge belongs to the bin; far bins without pixels have no figures."""
    result = report(row(4, 8, 10, 30, 27), row(5, 8, 8, 10, 30))
    near, middle, far, farthest = result.bins

    assert [(b.low_m, b.high_m, b.pixels) for b in result.bins] == [
        *[(0, 10, 3), (10, 20, 1), (20, 40, 1), (40, 80, 0)]
    ]
    assert near.rel == pytest.approx((0.2 + 0 + 0.25) / 3)
    assert near.rmse == pytest.approx(np.sqrt((1 + 0 + 4) / 3))
    assert (near.over, near.under) == pytest.approx((1 / 3, 1 / 3))  # 10/8 and 5/4 are 1.25
    assert (middle.rel, middle.rmse, middle.over, middle.under) == (2, 20, 1, 0)
    assert (far.over, far.under) == (0, 0)
    assert farthest.rel is None
    assert (result.over, result.under) == pytest.approx((2 / 5, 1 / 5))


@given(st.integers(0, 2**32 - 1))
def test_bins_are_numpys_and_rates_complete_delta1(seed: int) -> None:
    """Against masks over the whole image; over, under and delta1 add up to 1."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 79, (30, 40)).astype(np.float32)
    prediction = (truth * rng.lognormal(0, 0.3, truth.shape)).clip(0.01, 79).astype(np.float32)

    result = report(prediction, truth)

    y, g = prediction.astype(float), truth.astype(float)
    for found in result.bins:
        assert found.high_m is not None
        inside = (g >= found.low_m) & (g < found.high_m)
        assert found.pixels == inside.sum()
        assert found.rel == pytest.approx(np.mean(np.abs(y - g)[inside] / g[inside]))
        ratio = (y / g)[inside] / 1.25  # what float32 rounds to the factor counts as equal to it
        assert found.over is not None
        assert np.mean(ratio >= 1 + 4e-7) <= found.over + 1e-9
        assert found.over - 1e-9 <= np.mean(ratio >= 1 - 4e-7)
    delta1 = KITTI.score(prediction=prediction, ground_truth=truth).delta1
    assert result.over + result.under + delta1 == pytest.approx(1)


def test_what_lies_beyond_the_last_edge_has_a_row_of_its_own() -> None:
    """A protocol without an upper limit scores it, so it is shown."""
    truth = np.full((240, 320), 3, np.float32)
    truth[:120] = 12

    result = report(truth, truth, "nyu_hu")

    assert [(b.low_m, b.high_m) for b in result.bins][-1] == (10, None)
    assert result.bins[-1].pixels == 120 * 320
    assert "over 10 m" in result.text()


def brute_force_f1(
    y: NDArray[np.float64], g: NDArray[np.float64], valid: NDArray[np.bool_]
) -> float:
    """Return the F1 from its definition: every directed neighbour pair, every threshold."""
    scores = []
    for threshold in THRESHOLDS:
        both = predicted = true = 0
        for i, j in np.ndindex(g.shape):
            for k, m in ((i, j + 1), (i + 1, j), (i, j - 1), (i - 1, j)):
                if not (0 <= k < g.shape[0] and 0 <= m < g.shape[1]):
                    continue
                if not (valid[i, j] and valid[k, m]):
                    continue
                in_y, in_g = y[k, m] / y[i, j] > threshold, g[k, m] / g[i, j] > threshold
                both, predicted, true = both + (in_y & in_g), predicted + in_y, true + in_g
        precision, recall = both / max(predicted, 1), both / max(true, 1)
        scores.append(2 * precision * recall / max(precision + recall, 1e-12))
    return float(np.average(scores, weights=THRESHOLDS))


@pytest.mark.parametrize("seed", range(4))
def test_boundaries_are_those_of_the_definition(seed: int) -> None:
    """Steps of all heights in all directions, holes, and more rows than are worked on at once."""
    rng = np.random.default_rng(seed)
    g = rng.choice([1.0, 1.04, 1.12, 1.3, 2.0], (70, 6))
    y = np.where(rng.random(g.shape) < 0.7, g, rng.choice([1.0, 1.1, 1.2], g.shape))
    valid = rng.random(g.shape) < 0.9

    counts = BoundaryCounts()
    counts.add(prediction=y, ground_truth=g, valid=valid)

    assert counts.f1() == pytest.approx(brute_force_f1(y, g, valid))


def test_a_step_of_exactly_a_threshold_is_no_contour() -> None:
    """Whole millimetres whose ratio is 1.05 or 1.25, as float32 metres."""
    near = 20 * np.arange(30, 400)

    def f1(numerator: int, denominator: int) -> float | None:
        pair = np.stack([near, near * numerator // denominator])
        depth = pair.astype(np.float32) / np.float32(1000)
        counts = BoundaryCounts()
        counts.add(prediction=depth, ground_truth=depth, valid=np.ones(depth.shape, np.bool_))
        return counts.f1()

    assert f1(21, 20) is None
    assert f1(5, 4) == pytest.approx(1 - THRESHOLDS[-1] / THRESHOLDS.sum())


def test_over_under_and_delta1_add_up_where_ratios_are_exactly_the_factor() -> None:
    """Every pixel is 1.25 times too deep or too near: none of them is within the factor."""
    truth = (np.arange(1, 201, dtype=np.uint16) * 20)[None]
    low, high = (
        (truth * n // d / np.float32(1000)).astype(np.float32) for n, d in ((4, 4), (5, 4))
    )

    assert report(high, low).over == 1
    assert report(low, high).under == 1
    assert KITTI.score(prediction=high, ground_truth=low).delta1 == 0


def test_a_shifted_edge_scores_nothing_and_the_scale_does_not_matter() -> None:
    """Contours must lie on the same pixels; depth times 3 has the same contours."""
    g = np.ones((20, 20))
    g[:, 10:] = 2
    everywhere = np.ones(g.shape, np.bool_)

    def f1(prediction: NDArray[np.float64]) -> float | None:
        counts = BoundaryCounts()
        counts.add(prediction=prediction, ground_truth=g, valid=everywhere)
        return counts.f1()

    assert f1(3 * g) == pytest.approx(1)
    assert f1(np.roll(g, 1, axis=1)) == pytest.approx(0)
    assert f1(g[:, ::-1]) == pytest.approx(0)  # the same place, the other side is near
    assert f1(np.ones_like(g)) == 0


def test_sparse_ground_truth_has_no_boundaries() -> None:
    """Said so, rather than scored by chance; neither has a flat wall any."""
    lines = np.zeros((20, 30), np.float32)
    lines[::4, ::3] = 7
    flat = np.full((240, 320), 2, np.float32)

    assert report(np.full_like(lines, 8), lines).boundary_f1 is None
    assert "boundary F1 n/a" in report(np.full_like(lines, 8), lines).text()
    assert report(flat, flat, "nyu_hu").boundary_f1 is None


def test_drift_is_told_drive_by_drive() -> None:
    """Scales 1, 1.1, 1.1 and 0.9 of one drive, of another drive one frame."""
    accumulator = DeploymentAccumulator(KITTI)
    truth = np.random.default_rng(5).uniform(5, 40, (9, 9)).astype(np.float32)
    scales = (1.0, 1.1, 1.1, 0.9)
    for index, scale in enumerate(scales):
        prediction = (truth * scale).astype(np.float32)
        pixels = KITTI.pixels(prediction=prediction, ground_truth=truth)
        accumulator.add(f"a/{index}", pixels, prediction=prediction, ground_truth=truth)
    accumulator.add("b/0", pixels, prediction=prediction, ground_truth=truth)

    (drive,) = accumulator.report().drift

    assert (drive.name, drive.steps) == ("a", 3)
    assert drive.drift == pytest.approx(np.std(np.diff(np.log(scales))), rel=1e-5)
    assert "scale drift of a" in accumulator.report().text()


def test_rooms_have_no_drift() -> None:
    """Their frames are in no order."""
    assert NYU.ordered is False
    flat = np.full((240, 320), 2, np.float32)
    assert report(flat, flat, "nyu_hu").drift == ()
