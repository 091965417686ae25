"""Reading, steps and both together are timed side by side, in images per second."""

from __future__ import annotations

from pathlib import Path

import pytest

from msfnet_runtime import MsfnetError
from msfnet_train.throughput import Rate, ThroughputReport, measure
from tests.train.datasets import nyu_recipe, write_nyu


def test_every_rate_is_measured_in_one_run(tmp_path: Path) -> None:
    """Loader, each mode and training; the rounds lie around the median."""
    data = write_nyu(tmp_path / "data set")

    report = measure(
        nyu_recipe(trainer_workers=1), data, modes=("fp32", "channels_last"), steps=2, rounds=3
    )

    assert [rate.name for rate in report.rates] == ["loader", "fp32", "channels_last", "training"]
    for rate in report.rates:
        assert 0 < rate.spread[0] <= rate.images_per_second <= rate.spread[1]
    assert report.rate("training").images_per_second < 1.5 * report.rate("loader").spread[1]
    assert f"{report.rate('fp32').images_per_second:.1f}" in report.text()


def test_the_report_says_how_reading_compares() -> None:
    """Ratios to the first mode; the share of training beyond the step's own time."""
    rates = (("loader", 400.0), ("fp32", 20.0), ("training", 18.0))
    report = ThroughputReport(
        "r", 8, 2, "CPU", tuple(Rate(name, rate, (rate, rate)) for name, rate in rates)
    )

    assert report.waiting == pytest.approx(0.1)
    assert "reading alone is 20.0 times as fast" in report.text()
    assert "has 90% of the speed of the step alone" in report.text()


def test_an_unknown_mode_is_one_line(tmp_path: Path) -> None:
    """Before anything is read."""
    with pytest.raises(MsfnetError, match=r"unknown mode \['fp8'\]; choose of fp32, tf32"):
        measure(nyu_recipe(), tmp_path, modes=("fp8",))
