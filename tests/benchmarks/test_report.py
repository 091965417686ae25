from __future__ import annotations

import base64
import html
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_benchmarks.accuracy import AccuracyReport, ImageScore
from msfnet_benchmarks.latency import LatencyReport, Ratio
from msfnet_benchmarks.metrics import MetricsAccumulator, depth_metrics
from msfnet_benchmarks.parity import ParityReport
from msfnet_benchmarks.report import (
    TABLE_WIDTH,
    BenchmarkReport,
    BenchmarkRow,
    Picture,
    describe_environment,
)
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
        Ratio(20 / p50, 19 / p50, 21 / p50),
        accuracy(scale),
        None if baseline else parity,
    )


def charts(page: str) -> list[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Return the traces and the configuration of every chart of a page."""
    decoder, found = json.JSONDecoder(), []
    for match in re.finditer(r'Plotly\.newPlot\(\s*"[^"]+",\s*', page):
        place, parts = match.end(), []
        for _ in range(3):  # traces, layout, configuration
            part, place = decoder.raw_decode(page, place)
            parts.append(part)
            place = re.compile(r"[\s,]*").match(page, place).end()  # type: ignore[union-attr]
        found.append((parts[0], parts[2]))
    return found


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
    lines = report.table().splitlines()
    head, names, _, first, second, empty, columns, _, baseline, candidate, legend = lines

    assert head == "2 frames of 375x1242, scored by kitti_raw"
    assert names.split()[:4] == ["model", "type", "MB", "p50"]
    scores = ["0.1000", f"{accuracy(1.1).summary.rmse:.3f}", "1.0000"]
    times = ["20.0", "24.0", "30.0", "50.0"]
    assert first.split() == ["PyTorch", "fp32", "7.9", *times, "1.00x", *scores, "-"]
    assert "4.00x" in second
    assert second.endswith("2.0e-04")
    assert empty == ""
    assert columns.split()[1:6] == ["REL", "RMSE", "m", "pooled", "d1"]
    assert columns.endswith("p50 diff  p99 diff  p99.9 diff  d<1.01")
    pooled = f"{accuracy(1.1).summary.rmse_pooled:.4f}"
    errors = ["0.1000", f"{accuracy(1.1).summary.rmse:.4f}", pooled, "1.0000"]
    assert baseline.split() == ["PyTorch", *errors, *"----"]
    parity = report.rows[1].parity
    assert parity is not None
    assert candidate.split()[-4:] == [
        *(f"{share:.1e}" for share in (parity.p50, parity.p99, parity.p999)),
        f"{parity.agreement:.4f}",
    ]
    assert "ms per frame" in legend
    assert legend.endswith("against PyTorch")


def test_the_table_fits_a_terminal(report: BenchmarkReport) -> None:
    """Long names lose their middle, unless they could then be mistaken for one another."""
    first, second = report.rows
    long = (replace(first, name="a" * 60 + "_fp32.onnx"), replace(second, name="b" * 60 + ".onnx"))
    alike = (replace(first, name="a" * 70), replace(second, name="a" * 71))

    table = replace(report, rows=long).table()

    assert max(map(len, table.splitlines())) == TABLE_WIDTH
    assert re.search("^a+…[^ ]*fp32.onnx ", table, re.MULTILINE)
    assert "a" * 71 in replace(report, rows=alike).table()


def test_rows_without_a_figure_show_a_dash(report: BenchmarkReport) -> None:
    """One model that was not timed or scored does not take the others' columns."""
    first, second = report.rows
    bare = replace(second, latency=None, accuracy=None, speedup=None, parity=None)
    partial = replace(report, rows=(first, replace(second, name="other"), bare))

    assert partial.cells()[2] == ("fp16 <b>.onnx", "fp32", "7.9", *["-"] * 9)
    assert len(partial.header()) == len(partial.cells()[2])


def test_columns_without_figures_are_left_out(report: BenchmarkReport) -> None:
    """No protocol, no REL; no baseline, no speed-up."""
    rows = tuple(replace(r, accuracy=None, speedup=None, parity=None) for r in report.rows)
    bare = replace(report, rows=rows, baseline=None, protocol=None)
    untimed = replace(report, rows=tuple(replace(r, latency=None) for r in report.rows))

    assert bare.header() == ("model", "type", "MB", "p50", "p90", "p99", "fps")
    assert untimed.header() == ("model", "type", "MB", "REL", "RMSE", "d1", "p99 diff")
    for shown in (bare, untimed):
        assert all(len(cells) == len(shown.header()) for cells in shown.cells())


def test_the_page_opens_offline_and_shows_every_figure(
    report: BenchmarkReport, tmp_path: Path
) -> None:
    """Scripts inside, nothing fetched or sent; text escaped; the table has every figure."""
    report.write(tmp_path / "report.html")

    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    shown = page[page.index("<body>") :]
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="http', page)
    assert "A &amp; B" in page
    assert "fp16 &lt;b&gt;.onnx" in shown
    assert "an &lt;engine&gt;" in shown
    for _, config in charts(shown):
        assert config["showSendToCloud"] is False
        assert config["displaylogo"] is False
    for cells in report.cells():
        for cell in cells:
            assert f"<td>{html.escape(cell)}</td>" in shown


def test_the_charts_show_the_figures(report: BenchmarkReport, tmp_path: Path) -> None:
    """Percentiles, REL, one against the other, REL per image, and the rounds' medians."""
    report.write(tmp_path / "report.html")

    latency, error, trade, images, rounds = (
        traces for traces, _ in charts((tmp_path / "report.html").read_text(encoding="utf-8"))
    )
    assert [bar["y"] for bar in latency] == [[20, 5], [24, 6], [30, 7.5]]
    assert [bar["y"] for bar in error] == [pytest.approx([0.1]), pytest.approx([0.2])]
    assert [(p["x"], p["y"]) for p in trade] == [
        ([20], pytest.approx([0.1])),
        ([5], pytest.approx([0.2])),
    ]
    assert [box["y"] for box in images] == [pytest.approx([0.1] * 2), pytest.approx([0.2] * 2)]
    assert images[0]["text"] == ["image0", "image1"]
    assert [line["y"] for line in rounds] == [pytest.approx([20, 22]), pytest.approx([5, 5.5])]
    assert rounds[1]["name"] == "fp16 &lt;b&gt;.onnx"  # plotly would read the tag


def test_charts_without_figures_are_left_out(report: BenchmarkReport, tmp_path: Path) -> None:
    """Latency alone, or accuracy alone."""
    for changes, count in (({"accuracy": None}, 2), ({"latency": None}, 2)):
        rows = tuple(replace(row, **changes) for row in report.rows)  # type: ignore[arg-type]
        replace(report, rows=rows).write(tmp_path / "report.html")
        assert len(charts((tmp_path / "report.html").read_text(encoding="utf-8"))) == count


def test_pictures_are_inside_the_page_pixel_for_pixel(
    report: BenchmarkReport, photo: NDArray[np.uint8], tmp_path: Path
) -> None:
    """PNG keeps every pixel, red stays red, and titles are escaped."""
    report.write(tmp_path / "report.html", [Picture("frame <1>", photo)])

    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    (encoded,) = re.findall(r'<img alt="frame &lt;1&gt;" src="data:image/png;base64,([^"]+)"', page)
    content = np.frombuffer(base64.b64decode(encoded), np.uint8)
    shown = cv2.imdecode(content, cv2.IMREAD_COLOR)
    assert shown is not None
    np.testing.assert_array_equal(shown[..., ::-1], photo)


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
    assert stored["frame_size"] == [375, 1242]


def test_a_read_only_environment_is_stored_too(report: BenchmarkReport) -> None:
    """Any mapping will do."""
    frozen = replace(report, environment=MappingProxyType({"cores": "2"}))

    assert json.loads(frozen.to_json())["environment"] == {"cores": "2"}


def test_a_page_named_as_its_json_is_refused(report: BenchmarkReport, tmp_path: Path) -> None:
    """One would overwrite the other."""
    with pytest.raises(MsfnetError, match=r"report\.html"):
        report.write(tmp_path / "report.json")
    assert not list(tmp_path.iterdir())


def test_a_missing_plotly_is_one_line_with_the_command(
    report: BenchmarkReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is written."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)

    with pytest.raises(MsfnetError, match=r"pip install 'msfnet\[report\]'"):
        report.write(tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


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
    assert facts["python"] == sys.version.split()[0]
    assert "tensorflow" not in facts


def test_the_environment_is_described_without_importing_torch() -> None:
    """Versions come from the packages' metadata."""
    code = (
        "import sys; from msfnet_benchmarks.report import describe_environment as d; d(); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'onnxruntime', 'tensorrt', 'plotly')))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
