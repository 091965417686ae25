"""Reading, steps and both together are timed side by side, in images per second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msfnet_benchmarks.timing.core import Samples
from msfnet_runtime import MsfnetError
from msfnet_train.throughput import ThroughputReport, measure
from tests.train.datasets import nyu_recipe, write_nyu


def test_every_rate_is_measured_in_one_run(tmp_path: Path) -> None:
    """Loader, each mode and training; the rounds lie around the median."""
    data = write_nyu(tmp_path / "data set")

    report = measure(
        nyu_recipe(trainer_workers=1), data, modes=("fp32", "channels_last"), steps=2, rounds=3
    )

    assert list(report.calls) == ["loader", "fp32", "channels_last", "training"]
    for summary in report.calls.values():
        assert summary.calls == 3
        assert 0 < min(summary.round_p50_ms) <= summary.p50_ms <= max(summary.round_p50_ms)
    fastest_loader = 1e3 * report.images / min(report.calls["loader"].round_p50_ms)
    assert report.images_per_s("training") < 1.5 * fastest_loader
    assert f"{report.images_per_s('fp32'):.1f}" in report.text()


def test_the_report_says_how_reading_compares() -> None:
    """Ratios to the first mode; the share of training beyond the step's own time."""
    rates = {"loader": 400.0, "fp32": 20.0, "training": 18.0}
    calls = {
        name: Samples(name, np.array([[1e3 * 16 / rate]])).summary() for name, rate in rates.items()
    }
    report = ThroughputReport("r", 8, 2, "CPU", 16, calls)

    assert report.images_per_s("loader") == pytest.approx(400)
    assert report.waiting == pytest.approx(0.1)
    assert "reading alone is 20.0 times as fast" in report.text()
    assert "has 90% of the speed of the step alone" in report.text()


def test_an_unknown_mode_is_one_line(tmp_path: Path) -> None:
    """Before anything is read."""
    with pytest.raises(MsfnetError, match=r"unknown mode \['fp8'\]; choose from fp32, tf32"):
        measure(nyu_recipe(), tmp_path, modes=("fp8",))
