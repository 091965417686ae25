"""The best constant depth: found in one pass, compared with every constant tried in turn."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from msfnet_benchmarks.scoring.constant import ConstantAccumulator
from msfnet_benchmarks.scoring.metrics import MetricsAccumulator, depth_metrics


def test_no_other_constant_has_a_smaller_rel() -> None:
    """Images of different sizes count alike; the metrics are those of scoring that constant."""
    rng = np.random.default_rng(4)
    images = [rng.lognormal(1, 0.6, (1, n)).astype(np.float32) for n in (50, 700, 9)]
    accumulator = ConstantAccumulator()
    for image in images:
        accumulator.add(image[0])

    best = accumulator.best()

    def scored(constant: float) -> MetricsAccumulator:
        metrics = MetricsAccumulator()
        for image in images:
            prediction, valid = np.full_like(image, constant), np.ones_like(image, np.bool_)
            metrics.add(depth_metrics(prediction=prediction, ground_truth=image, valid=valid))
        return metrics

    assert best is not None
    candidates = np.concatenate([image[0] for image in images])
    smallest = min(scored(float(constant)).summary().rel for constant in candidates)
    assert best.summary.rel == pytest.approx(smallest, rel=1e-4)
    assert asdict(best.summary) == pytest.approx(asdict(scored(best.depth_m).summary()), rel=2e-3)


def test_whole_millimetres_are_scored_exactly() -> None:
    """Depths 2, 2 and 4 m: the constant 2 m, which is within 1.25 of two thirds of the pixels."""
    accumulator = ConstantAccumulator()
    accumulator.add(np.array([2000, 2000, 4000], np.float32) / np.float32(1000))

    best = accumulator.best()

    assert best is not None
    assert best.depth_m == 2
    assert best.summary.rel == pytest.approx(0.5 / 3)
    assert best.summary.delta1 == pytest.approx(2 / 3)
    assert best.text() == "a constant depth of 2 m has REL 0.1667"


def test_without_ground_truth_there_is_no_constant() -> None:
    """Nothing was added."""
    assert ConstantAccumulator().best() is None
