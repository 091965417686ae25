"""``msfnet bench --sweep``: combinations, counts, going on, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msfnet.__main__ import run
from msfnet.sweep import parse_axes, sweep_points
from msfnet_benchmarks.report.charts import Chart
from msfnet_benchmarks.report.time_charts import scaling_charts
from msfnet_benchmarks.sweep import SweepPlan, sweep
from msfnet_runtime import MsfnetError
from msfnet_train import MSFNet
from msfnet_train.network import PRESETS

AXES = ("--sweep", "preset=nano", "--sweep", "size=32x64,64x64", "--sweep", "batch=1,2")

Bench = Callable[..., tuple[int, str]]


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Bench:
    """Return a function that runs the command: (status, what it printed)."""

    def called(*arguments: str | Path) -> tuple[int, str]:
        status = run(["bench", *map(str, arguments)])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return called


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a report's JSON."""
    return list(json.loads(path.read_text(encoding="utf-8"))["rows"])


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the JSON of a sweep over two sizes and two batches."""
    path = tmp_path_factory.mktemp("sweep") / "sweep.json"
    assert run(["bench", *AXES, "--rounds", "1", "--json", str(path)]) == 0
    return path


def test_a_sweep_measures_every_combination_and_goes_on_where_it_was_stopped(
    swept: Path, bench: Bench, tmp_path: Path
) -> None:
    """Rows that the JSON holds keep their times to the digit; those that are gone are measured."""
    first = rows(swept)
    assert [row["settings"]["size"] for row in first] == ["32x64"] * 2 + ["64x64"] * 2
    assert [row["settings"]["batch"] for row in first] == ["1", "2"] * 2
    assert [(row["batch"], row["input_size"]) for row in first[1:3]] == [
        (2, [32, 64]),
        (1, [64, 64]),
    ]
    path, page = tmp_path / "sweep.json", tmp_path / "sweep.html"
    stopped = json.loads(swept.read_text(encoding="utf-8"))
    del stopped["rows"][3:]
    path.write_text(json.dumps(stopped), encoding="utf-8")

    status, said = bench(*AXES, "--rounds", "1", "--json", path, "--report", page)

    assert status == 0, said
    again = rows(path)
    assert again[:3] == first[:3]
    last = [row["engine_latency"]["samples_ms"] for row in (first[3], again[3])]
    assert last[0] != last[1]
    html = page.read_text(encoding="utf-8")
    assert "Cost against pixels" in html
    assert "Cost against arithmetic" in html


@pytest.mark.slow
def test_counts_are_those_of_the_network_and_nothing_is_timed(
    swept: Path, bench: Bench, tmp_path: Path
) -> None:
    """PyTorch's own parameters are an upper bound: training's heads go, and norms are folded."""
    path = tmp_path / "counts.json"
    counts = ("--sweep", "preset=nano", "--sweep", "size=64x64", "--counts")
    status, said = bench(*counts, "--json", path)
    assert status == 0, said
    (row,) = rows(path)
    assert row["engine_latency"] is None
    assert row["macs"] == rows(swept)[2]["macs"]
    network = MSFNet(replace(PRESETS["nano"], pretrained=False))
    whole = sum(parameter.numel() for parameter in network.parameters())
    assert 0.8 * whole < row["parameters"] <= whole

    held = json.loads(path.read_text(encoding="utf-8"))
    held["rows"][0]["macs"] //= 2
    path.write_text(json.dumps(held), encoding="utf-8")
    status, said = bench(*counts, "--compare", path)
    assert status == 1, said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sweep", "colour=1"], "unknown axis 'colour'"),
        (["--sweep", "size="], "write each axis once"),
        (["--sweep", "size=32x64"], "no network to sweep"),
        (["--sweep", "preset=big"], "unknown network.preset 'big'"),
        (["--sweep", "preset=nano", "--sweep", "size=32"], "size '32' is not HxW"),
        (["--sweep", "preset=nano", "--sweep", "batch=0"], "batch '0' is not a whole number"),
        (["--sweep", "preset=nano", "--provider", "cpu", "--provider", "cuda"], "one provider"),
        (["--counts", "model.onnx"], "--counts needs --sweep"),
        ([], "nothing to compare"),
    ],
)
def test_what_cannot_be_swept_is_one_line(bench: Bench, arguments: list[str], words: str) -> None:
    """Before anything is measured."""
    status, said = bench(*arguments)
    assert status == 1
    assert words in said


def test_a_file_that_is_no_sweep_is_kept(bench: Bench, tmp_path: Path) -> None:
    """It is not written over."""
    path = tmp_path / "notes.json"
    path.write_text('{"rows": []}', encoding="utf-8")
    status, said = bench("--sweep", "preset=nano", "--json", path)
    assert status == 1
    assert "is not a sweep that can be resumed" in said
    assert path.read_text(encoding="utf-8") == '{"rows": []}'


def test_an_axis_named_twice_is_refused() -> None:
    """Which of the two was meant is not guessed."""
    with pytest.raises(MsfnetError, match="each axis once"):
        parse_axes(["batch=1", "batch=2"])


def test_scaling_charts_compare_cost_with_the_machines_limit(swept: Path, tmp_path: Path) -> None:
    """Points are the rows' own figures; the limit is their arithmetic over the measured rate."""
    report = sweep(sweep_points(AXES[1::2], tmp_path), SweepPlan(rounds=1, json=swept))
    charts: dict[str, Chart] = {chart.key: chart for chart in scaling_charts(report)}

    assert set(charts) == {"scaling-pixels", "scaling-arithmetic"}  # parameters do not change
    single, double = charts["scaling-pixels"].figure.data
    assert list(single.x) == list(double.x) == [32 * 64, 64 * 64]
    times = [row["engine_latency"]["p50_ms"] for row in rows(swept)]
    assert list(single.y) == times[::2]
    assert list(double.y) == pytest.approx([ms / 2 for ms in times[1::2]])
    *_, limit = charts["scaling-arithmetic"].figure.data
    rate = max(row["flop_bound"]["gmacs_per_s"] for row in rows(swept))
    macs = [row["macs"] for row in rows(swept)[::2]]
    assert list(limit.y) == pytest.approx([count / rate / 1e6 for count in macs])
