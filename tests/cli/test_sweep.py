"""``msfnet bench --sweep``: combinations, counts, going on, refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from msfnet.__main__ import run
from msfnet.sweep import parse_axes, sweep_points
from msfnet_benchmarks.candidates import Candidate
from msfnet_benchmarks.report.charts import Chart
from msfnet_benchmarks.report.time_charts import scaling_charts
from msfnet_benchmarks.sweep import SweepPlan, sweep
from msfnet_runtime import Engine, MsfnetError
from msfnet_runtime.files import locked
from msfnet_train import MSFNet
from msfnet_train.network import PRESETS

AXES = ("--sweep", "preset=nano", "--sweep", "size=32x64,64x64", "--sweep", "batch=1,2")

Bench = Callable[..., tuple[int, str]]


def candidate(name: str) -> Candidate:
    """Return a point that is counted and never opened."""

    def never() -> Engine:
        raise AssertionError(name)

    return Candidate(name, "fp32", never, on_gpu=False, size_bytes=1, settings={"point": name})


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


def test_rows_of_other_points_are_kept(tmp_path: Path) -> None:
    """A later sweep of the same network adds its own; what both have is not measured again."""
    plan = SweepPlan(counts_only=True, json=tmp_path / "sweep.json")

    sweep({name: partial(candidate, name) for name in ("nano 32x64", "nano 64x64")}, plan)
    made: list[str] = []

    def make(name: str) -> Candidate:
        made.append(name)
        return candidate(name)

    report = sweep({name: partial(make, name) for name in ("nano 96x64", "nano 32x64")}, plan)

    names = ["nano 32x64", "nano 64x64", "nano 96x64"]
    assert [row["name"] for row in rows(tmp_path / "sweep.json")] == names
    assert [row.name for row in report.rows] == names
    assert made == ["nano 96x64"]


def test_a_point_run_by_something_else_is_another_point(tmp_path: Path) -> None:
    """So that a sweep that is resumed does not take the one's rows for the other's."""
    axes = ("preset=nano", "size=32x64", "threads=1,2")

    names = [list(sweep_points(axes, tmp_path, provider=name)) for name in ("cpu", "openvino")]

    assert names[0] == ["nano 32x64 threads=1", "nano 32x64 threads=2"]
    assert names[1] == [f"{name} openvino" for name in names[0]]


def test_another_checkpoint_of_the_same_name_is_another_sweep(tmp_path: Path) -> None:
    """A network that was trained on has other weights."""
    checkpoint = tmp_path / "best.ckpt"
    checkpoint.write_bytes(b"first")
    plan = SweepPlan(counts_only=True, model=checkpoint, json=tmp_path / "sweep.json")
    sweep({"32x64": partial(candidate, "32x64")}, plan)
    checkpoint.write_bytes(b"second")

    with pytest.raises(MsfnetError, match="another checkpoint"):
        sweep({"64x64": partial(candidate, "64x64")}, plan)


def test_two_sweeps_do_not_share_a_file(bench: Bench, tmp_path: Path) -> None:
    """The second one is told so at once, and the file stays as it is."""
    path = tmp_path / "sweep.json"
    with locked(path):
        status, said = bench("--sweep", "preset=nano", "--counts", "--json", path)

    assert status == 1
    assert "another process is writing" in said
    assert not path.exists()


def test_the_exports_of_a_killed_sweep_are_removed(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next one; those of a process that lives stay."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("msfnet.sweep.sweep_points", lambda *a, **k: {"p": partial(candidate, "p")})
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    dead, alive = (
        tmp_path / f".msfnet-sweep.{process}-0123abcd.partial"
        for process in (child.pid, os.getpid())
    )
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "network.onnx").write_bytes(b"weights")

    status, said = bench("--sweep", "preset=nano", "--counts")

    assert status == 0, said
    assert not dead.exists()
    assert (alive / "network.onnx").exists()
    assert [path.name for path in tmp_path.iterdir()] == [alive.name]


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
        (["--sweep", "preset=nano", "--protocol", "nyu_hu"], "--protocol is for comparisons"),
        (["--sweep", "preset=nano", "--against", "pytorch"], "--against is for comparisons"),
        (["--sweep", "preset=nano", "--batch", "4"], "write --sweep batch=1,4"),
        (["--sweep", "preset=nano", "--threads", "2"], "write --sweep threads=1,4"),
        (["--sweep", "preset=nano", "--cold"], "--cold is for comparisons"),
        (["--sweep", "preset=nano", "--profile"], "--profile is for comparisons"),
        (["--sweep", "preset=nano", "--frames", "3"], "--frames is for comparisons"),
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
