from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from msfnet_benchmarks.scoring.metrics import DepthMetrics, depth_metrics
from msfnet_calibration.budget import Budget
from msfnet_runtime import MsfnetError


@pytest.fixture
def metrics(rng: np.random.Generator) -> DepthMetrics:
    """Return the metrics of a noisy prediction."""
    truth = rng.uniform(1, 9, (20, 30)).astype(np.float32)
    noisy = truth * rng.uniform(0.7, 1.3, truth.shape).astype(np.float32)
    return depth_metrics(prediction=noisy, ground_truth=truth, valid=truth > 0)


@pytest.mark.parametrize(
    ("text", "metric", "amount", "relative"),
    [
        ("rel +1%", "rel", 0.01, True),
        (" rmse+0.02 ", "rmse", 0.02, False),
        ("delta1 -0.003", "delta1", 0.003, False),
        ("delta3 - .5 %", "delta3", 0.005, True),
        ("silog +0%", "silog", 0.0, True),
    ],
)
def test_a_budget_is_read_and_written(
    text: str, metric: str, amount: float, relative: bool
) -> None:
    """A metric, a sign, a number; what is written is read as the same budget."""
    budget = Budget.parse(text)

    assert (budget.metric, budget.relative) == (metric, relative)
    assert budget.amount == pytest.approx(amount)
    assert Budget.parse(str(budget)) == budget


def test_the_loss_is_what_the_metric_loses(metrics: DepthMetrics) -> None:
    """Errors lose by rising, shares by falling; relative to the reference for a per cent budget."""
    worse = replace(metrics, rel=metrics.rel * 1.02, delta1=metrics.delta1 - 0.01)

    assert Budget.parse("rel +1%").loss(worse, metrics) == pytest.approx(0.02)
    assert Budget.parse("rel +1").loss(worse, metrics) == pytest.approx(0.02 * metrics.rel)
    assert Budget.parse("delta1 -0.003").loss(worse, metrics) == pytest.approx(0.01)
    assert Budget.parse("delta1 -3%").loss(worse, metrics) == pytest.approx(0.01 / metrics.delta1)
    assert Budget.parse("rel +1%").loss(metrics, worse) < 0
    assert Budget.parse("rel +3%").allows(worse, metrics)
    assert not Budget.parse("rel +1%").allows(worse, metrics)
    assert Budget.parse("delta1 -0.003").write(0.01) == "delta1 -0.0100"
    assert Budget.parse("rel +1%").write(0.02) == "rel +2.00%"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("rel", "cannot be read"),
        ("rel +1% delta1 -0.1", "cannot be read"),
        ("rel +-1%", "cannot be read"),
        ("depth +1%", "unknown metric 'depth'; choose one of rel"),
        ("pixels +1", "unknown metric"),
        ("rel -1%", "better depth than the reference's"),
        ("delta1 +0.003", "better depth than the reference's"),
    ],
)
def test_a_wrong_budget_is_one_line(text: str, message: str) -> None:
    """The line shows how a budget is written."""
    with pytest.raises(MsfnetError, match=message):
        Budget.parse(text)
