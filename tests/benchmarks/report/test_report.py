from __future__ import annotations

import base64
import html
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_benchmarks.report import tables
from msfnet_benchmarks.report.pictures import Picture
from msfnet_benchmarks.report.report import BenchmarkReport, BenchmarkRow
from msfnet_benchmarks.report.tables import TABLE_WIDTH, Table
from msfnet_benchmarks.report.writer import write_page
from msfnet_benchmarks.scoring.accuracy import AccuracyReport, ImageScore
from msfnet_benchmarks.scoring.metrics import MetricsAccumulator, depth_metrics
from msfnet_benchmarks.scoring.parity import ParityReport
from msfnet_benchmarks.timing.core import Ratio, Summary
from msfnet_benchmarks.timing.costs import FlopBound
from msfnet_runtime import MsfnetError
from msfnet_runtime.typed import to_json
from tests.benchmarks.report.full_report import full_report


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
    tail = (p50 * 1.2, p50 * 1.3, p50 * 1.5)
    latency = Summary(name, p50, *tail, p50, 12, 1e3 / p50, (p50, p50 * 1.1))
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
    """The ratio to the baseline is on every row, with its interval."""
    lines = tables.text(report).splitlines()
    head, names, _, first, second, empty, title, columns, _, baseline, candidate = lines[:11]

    assert head == "2 frames of 375x1242, scored by kitti_raw"
    assert names.split() == ["model", "type", "MB", "p50", "p99", "speed-up", "REL", "d1"]
    scores = ["0.1000", "1.0000"]
    figures = ["20.0", "30.0", "1.00x", "(0.95-1.05)", *scores]
    assert first.split() == ["PyTorch", "fp32", "7.9", *figures]
    assert "4.00x (3.80-4.20)" in second
    assert (empty, title) == ("", "Depth")
    assert columns.split()[1:5] == ["RMSE", "m", "pooled", "d2"]
    assert columns.endswith("p50 diff  p99 diff  p99.9 diff  d<1.01")
    rmse, pooled = (getattr(accuracy(1.1).summary, name) for name in ("rmse", "rmse_pooled"))
    assert baseline.split() == ["PyTorch", f"{rmse:.4f}", f"{pooled:.4f}", "1.0000", *"----"]
    parity = report.rows[1].parity
    assert parity is not None
    assert candidate.split()[-4:] == [
        *(f"{share:.1e}" for share in (parity.p50, parity.p99, parity.p999)),
        f"{parity.agreement:.4f}",
    ]
    legend = " ".join(lines[-3:])
    assert "ms per frame" in legend
    assert legend.endswith("against PyTorch")


def test_a_full_report_fits_a_terminal() -> None:
    """Every column that there is, in 100 characters; what is missing is a dash."""
    report = full_report()
    table = tables.text(report)

    assert max(map(len, table.splitlines())) <= TABLE_WIDTH
    (first, *_) = tables.tables(report)
    peer = dict(zip(first.header, first.rows[-1], strict=True))
    assert peer["p50"] == peer["p99"] == peer["speed-up"] == peer["bound"] == "-"
    assert peer["engine"] != "-"
    titles = [made.title for made in tables.tables(report)]
    assert titles == ["Comparison", "Depth", "Latency", "Cost", "Time by stage, median ms"]
    assert "start s" in table
    assert "decode  prepare  copy  infer  finish  write" in table


def test_unstable_rows_are_shown_with_their_reason() -> None:
    """A mark at the figure, and a line that says why."""
    table = tables.text(full_report())

    assert re.search(r"^slow_and_wrong.onnx +fp32 +[\d.]+ +[\d.]+! ", table, re.MULTILINE)
    assert "unstable: slow_and_wrong.onnx, end to end: rounds differ by 14 %" in table


def test_the_share_of_the_bound_is_least_time_over_the_engines() -> None:
    """1.5 GMAC at 90 GMAC a second take 16.67 ms; the row's own bound goes first."""
    report = full_report()
    row = report.rows[1]
    assert row.engine_latency is not None
    median = np.median(np.asarray(row.engine_latency.samples_ms))

    assert report.bound_share(row) == pytest.approx(1e3 * 1.5 / 90 / median)
    own = replace(row, flop_bound=FlopBound(45.0, 1, 2048))
    assert report.bound_share(own) == pytest.approx(1e3 * 1.5 / 45 / median)
    four = replace(row, batch=4)
    assert report.bound_share(four) == pytest.approx(4 * 1e3 * 1.5 / 90 / median)
    assert report.bound_share(replace(row, macs=None)) is None


def test_the_table_fits_a_terminal(report: BenchmarkReport) -> None:
    """Long names lose their middle; those that would be alike are numbered."""
    first, second = report.rows
    long = (replace(first, name="a" * 90 + "_fp32.onnx"), replace(second, name="b" * 90 + ".onnx"))
    alike = (replace(first, name=f"{'a' * 60}b{'a' * 60}"), replace(second, name="a" * 121))

    shown = tables.text(replace(report, rows=long, baseline=None))

    mistakable = tables.text(replace(report, rows=alike, baseline=None))

    assert max(map(len, shown.splitlines())) == TABLE_WIDTH
    assert max(map(len, mistakable.splitlines())) == TABLE_WIDTH
    assert re.search("^a+…a+ #1 .*\n^a+…a+ #2 ", mistakable, re.MULTILINE)
    assert re.search("^a+…[^ ]*fp32.onnx ", shown, re.MULTILINE)


def test_columns_that_have_no_room_follow_in_a_further_table() -> None:
    """Names keep 24 characters; no column is lost, and nothing is wider than a terminal."""
    header = ("model", *(f"column {n:02}" for n in range(15)))
    table = Table("", header, (("m" * 200, *15 * ("0.12345",)), ("n" * 10, *15 * ("-",))))

    lines = table.text().splitlines()

    assert max(map(len, lines)) <= TABLE_WIDTH
    heads = [line for line in lines if line.startswith("model")]
    assert [name for head in heads for name in re.findall(r"column \d+", head)] == list(header[1:])
    assert len([line for line in lines if line.startswith("m" * 11 + "…")]) == len(heads)


def test_columns_without_figures_are_left_out(report: BenchmarkReport) -> None:
    """No protocol, no REL; no baseline, no speed-up."""
    rows = tuple(replace(r, accuracy=None, speedup=None, parity=None) for r in report.rows)
    bare = replace(report, rows=rows, baseline=None, protocol=None)
    untimed = replace(
        report, rows=tuple(replace(r, latency=None, speedup=None) for r in report.rows)
    )

    assert tables.tables(bare)[0].header == ("model", "type", "MB", "p50", "p99")
    assert tables.tables(untimed)[0].header == ("model", "type", "MB", "REL", "d1")


def test_markdown_for_a_pull_request_holds_every_table() -> None:
    """Whole tables of GitHub's, nothing that its reader would take for markup."""
    report = full_report()
    text = tables.markdown(report)

    for table in tables.tables(report):
        start = text.index(f"| {' | '.join(table.header)} |".replace("<", "&lt;"))
        head, rule, *lines = text[start:].split("\n\n")[0].splitlines()
        assert rule.count("|") == head.count("|") == len(table.header) + 1
        assert len(lines) == len(table.rows)
        shown = [[html.unescape(c).replace("\\", "") for c in r.split(" | ")] for r in lines]
        assert [row[1:-1] for row in shown] == [list(row[1:-1]) for row in table.rows]
    assert "peer &lt;engine only&gt;" in text
    assert "slow\\_and\\_wrong.onnx, end to end: rounds differ by 14 %" in text
    assert text.index("<details>") < text.index("| processor | a processor |")


def test_the_page_opens_offline_and_shows_every_figure(
    report: BenchmarkReport, tmp_path: Path
) -> None:
    """Scripts inside, nothing fetched or sent; text escaped; the table has every figure."""
    write_page(report, tmp_path / "report.html")

    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    shown = page[page.index("<body>") :]
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="http', page)
    assert "A &amp; B" in page
    assert "fp16 &lt;b&gt;.onnx" in shown
    assert "an &lt;engine&gt;" in shown
    for cell in (cell for table in tables.tables(report) for cells in table.rows for cell in cells):
        assert f"<td>{html.escape(cell)}</td>" in shown


def test_pictures_are_inside_the_page_pixel_for_pixel(
    report: BenchmarkReport, photo: NDArray[np.uint8], tmp_path: Path
) -> None:
    """PNG keeps every pixel, red stays red, and titles are escaped."""
    write_page(report, tmp_path / "report.html", [Picture("frame <1>", photo)])

    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    (encoded,) = re.findall(r'<img alt="frame &lt;1&gt;" src="data:image/png;base64,([^"]+)"', page)
    content = np.frombuffer(base64.b64decode(encoded), np.uint8)
    shown = cv2.imdecode(content, cv2.IMREAD_COLOR)
    assert shown is not None
    np.testing.assert_array_equal(shown[..., ::-1], photo)


def test_the_json_beside_it_holds_image_by_image_what_was_measured(
    report: BenchmarkReport, tmp_path: Path
) -> None:
    """The page's figures can be computed from it again."""
    write_page(report, tmp_path / "report.html")

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

    assert json.loads(to_json(frozen))["environment"] == {"cores": "2"}


def test_a_page_named_as_its_json_is_refused(report: BenchmarkReport, tmp_path: Path) -> None:
    """One would overwrite the other."""
    with pytest.raises(MsfnetError, match=r"report\.html"):
        write_page(report, tmp_path / "report.json")
    assert not list(tmp_path.iterdir())


def test_a_missing_plotly_is_one_line_with_the_command(
    report: BenchmarkReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is written."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)

    with pytest.raises(MsfnetError, match=r"pip install 'msfnet\[report\]'"):
        write_page(report, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(
    report: BenchmarkReport, tmp_path: Path
) -> None:
    """And no half of the pair is left."""
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(MsfnetError, match="cannot write"):
        write_page(report, tmp_path / "file/report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_no_number_is_null_in_the_json(report: BenchmarkReport) -> None:
    """JSON has neither NaN nor infinity; other programs refuse them."""
    first, second = report.rows
    assert first.latency is not None
    odd = replace(first.latency, calls_per_s=float("inf"), mean_ms=float("nan"))
    text = to_json(replace(report, rows=(replace(first, latency=odd), second)))

    stored = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))
    assert stored["rows"][0]["latency"]["calls_per_s"] is None
    assert stored["rows"][0]["latency"]["mean_ms"] is None
    assert stored["rows"][0]["latency"]["p50_ms"] == 20.0
