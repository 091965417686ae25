from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msfnet_benchmarks.accuracy import AccuracyReport, ImageScore
from msfnet_benchmarks.latency import LatencyReport
from msfnet_benchmarks.metrics import MetricsAccumulator, depth_metrics
from msfnet_benchmarks.parity import ParityReport
from msfnet_benchmarks.report import BenchmarkReport, BenchmarkRow, describe_environment
from msfnet_runtime import MsfnetError


def accuracy(scale: float) -> AccuracyReport:
    """Return the scores of two images that a model sees larger by ``scale``."""
    accumulator, scores = MetricsAccumulator(), []
    for index in range(2):
        truth = np.random.default_rng(index).uniform(2, 50, (8, 9))
        metrics = depth_metrics(
            prediction=truth * scale, ground_truth=truth, valid=np.ones((8, 9), np.bool_)
        )
        accumulator.add(metrics)
        scores.append(ImageScore(f"image{index}", metrics))
    return AccuracyReport("kitti_raw", accumulator.summary(), tuple(scores))


def row(name: str, p50: float, scale: float, baseline: bool) -> BenchmarkRow:
    """Return one model's row, held against a baseline of 20 ms."""
    latency = LatencyReport(name, p50, p50 * 1.2, p50 * 1.5, p50, 1e3 / p50, 12, (p50, p50 * 1.1))
    parity = ParityReport(1e-5, 2e-4, 3e-4, 4e-4, 1.0, 2, 144)
    return BenchmarkRow(
        name,
        "an <engine>",
        "fp32",
        7_900_000,
        latency,
        20 / p50,
        accuracy(scale),
        None if baseline else parity,
    )


@pytest.fixture
def report() -> BenchmarkReport:
    """Return two models compared."""
    return BenchmarkReport(
        title="A & B",
        rows=(row("PyTorch", 20.0, 1.1, True), row("fp16 <b>.onnx", 5.0, 1.2, False)),
        baseline="PyTorch",
        protocol="kitti_raw",
        data="drives",
        frames=2,
        frame_size=(375, 1242),
        environment={"cores": "2"},
        created="2026-11-23T12:00:00+00:00",
    )


def test_the_table_has_the_figures_and_names_protocol_and_frames(report: BenchmarkReport) -> None:
    """The ratio to the baseline is on every row."""
    head, names, _, first, second = report.table().splitlines()

    assert head == "2 frames of 375x1242, scored by kitti_raw"
    assert names.split()[:4] == ["model", "precision", "MB", "p50"]
    scores = [f"{value:.4f}" for value in (0.1, accuracy(1.1).summary.rmse, 1.0)]
    times = ["20.0", "24.0", "30.0", "50.0"]
    assert first.split() == ["PyTorch", "fp32", "7.9", *times, "1.00x", *scores, "-"]
    assert "4.00x" in second
    assert second.endswith("2.0e-04")


def test_columns_without_figures_are_left_out(report: BenchmarkReport) -> None:
    """No protocol, no REL; no baseline, no speed-up."""
    rows = tuple(replace(r, accuracy=None, speedup=None, parity=None) for r in report.rows)
    bare = replace(report, rows=rows, baseline=None, protocol=None)

    assert bare.header()[-1] == "frames/s"
    assert "REL" not in bare.table()
    assert all(len(cells) == len(bare.header()) for cells in bare.cells())


def test_the_page_opens_offline_and_shows_every_figure(
    report: BenchmarkReport, tmp_path: Path
) -> None:
    """Scripts inside, nothing fetched; text escaped; four charts whose data are the figures."""
    report.write(tmp_path / "report.html")

    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    shown = page[page.index("<body>") :]
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="http', page)
    assert "A &amp; B" in page
    assert "fp16 &lt;b&gt;.onnx" in shown
    assert "an &lt;engine&gt;" in shown
    assert shown.count("Plotly.newPlot(") == 4
    for cells in report.cells():
        for cell in cells:
            assert f"<td>{html.escape(cell)}</td>" in shown


def test_the_json_beside_it_holds_image_by_image_what_was_measured(
    report: BenchmarkReport, tmp_path: Path
) -> None:
    """What the page shows can be computed from it again."""
    report.write(tmp_path / "report.html")

    stored = json.loads((tmp_path / "report.json").read_text())
    (first, second) = stored["rows"]
    assert [s["metrics"]["rel"] for s in second["accuracy"]["scores"]] == pytest.approx([0.2, 0.2])
    assert second["latency"]["p50_ms"] == 5.0
    assert first["parity"] is None
    assert "preprocessing included" in stored["what_is_timed"]


def test_a_folder_that_cannot_be_written_is_one_line(
    report: BenchmarkReport, tmp_path: Path
) -> None:
    """And no half of the pair is left."""
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(MsfnetError, match="cannot write"):
        report.write(tmp_path / "file/report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_environment_says_what_it_was_measured_on() -> None:
    """Versions of what is installed, and nothing of what is not."""
    facts = describe_environment()

    assert facts["numpy"] == np.__version__
    assert int(facts["cores"]) >= 1
    assert "tensorflow" not in facts
