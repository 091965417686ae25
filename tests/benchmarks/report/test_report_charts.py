from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from msfnet_benchmarks.report.accuracy_charts import pareto_front
from msfnet_benchmarks.report.page import render_page
from msfnet_benchmarks.report.pictures import Picture
from msfnet_benchmarks.report.report import BenchmarkReport, BenchmarkRow
from tests.benchmarks.report.full_report import MEDIANS_MS, NAMES, STAGES, full_report

Chart = tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]
"""Traces, layout and configuration, as the page hands them to plotly."""


def charts(page: str) -> dict[str, Chart]:
    """Return every chart of a page by its anchor."""
    decoder, found = json.JSONDecoder(), {}
    for match in re.finditer(r'Plotly\.newPlot\(\s*"chart-([^"]+)",\s*', page):
        place, parts = match.end(), []
        for _ in range(3):
            part, place = decoder.raw_decode(page, place)
            parts.append(part)
            place = re.compile(r"[\s,]*").match(page, place).end()  # type: ignore[union-attr]
        found[match[1]] = (parts[0], parts[1], parts[2])
    return found


@pytest.fixture(scope="module")
def report() -> BenchmarkReport:
    """Return a report in which everything is measured."""
    return full_report()


@pytest.fixture(scope="module")
def shown(report: BenchmarkReport) -> dict[str, Chart]:
    """Return the charts of its page."""
    return charts(render_page(report))


def values(data: Any) -> list[float]:
    """Return the numbers of an axis, which plotly packs when they are many."""
    if isinstance(data, dict):
        import base64

        return list(np.frombuffer(base64.b64decode(data["bdata"]), data["dtype"]).tolist())
    return list(data)


def test_the_front_is_what_no_point_dominates() -> None:
    """Worked out by hand: ties stay together, a point behind one in one coordinate goes."""
    points = [(1.0, 9.0), (2.0, 5.0), (2.0, 6.0), (3.0, 5.0), (4.0, 1.0), (4.0, 1.0), (9.0, 2.0)]

    assert pareto_front(points) == [0, 1, 4, 5]
    assert pareto_front([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_that_of_the_definition(seed: int) -> None:
    """Held against every pair of forty points on a grid, so that there are ties."""
    grid = np.random.default_rng(seed).integers(0, 12, (40, 2)).astype(float)
    points = [(float(x), float(y)) for x, y in grid]

    def dominated(point: tuple[float, float]) -> bool:
        return any(o[0] <= point[0] and o[1] <= point[1] and o != point for o in points)

    front = pareto_front(points)
    assert sorted(front) == [i for i, point in enumerate(points) if not dominated(point)]
    assert [points[i] for i in front] == sorted(points[i] for i in front)


def test_dominated_models_are_shown_as_such(
    shown: dict[str, Chart], report: BenchmarkReport
) -> None:
    """PyTorch is as right as its ONNX file and slower; the last model is both slower and wrong."""
    traces, layout, _ = shown["pareto-latency"]
    marks = {trace["name"]: trace["marker"]["symbol"] for trace in traces[1:]}

    assert marks == {
        "PyTorch senet154.ckpt (dominated)": "circle-open",
        "model_fp32.onnx": "square",
        "model_int8.onnx": "diamond",
        "slow_and_wrong.onnx (dominated)": "triangle-up-open",
    }
    kept = [report.rows[index] for index in (2, 1)]
    times = [row.latency.p50_ms for row in kept if row.latency]
    rels = [row.accuracy.summary.rel for row in kept if row.accuracy]
    assert traces[0]["x"][1:-1] == pytest.approx(times)
    assert traces[0]["y"][1:-1] == pytest.approx(rels)
    assert layout["xaxis"]["title"]["text"] == "median milliseconds per frame, end to end"
    assert "peer &lt;engine only&gt;" in [t["name"] for t in shown["pareto-engine_latency"][0]]


def test_percentiles_are_those_of_the_calls(
    shown: dict[str, Chart], report: BenchmarkReport
) -> None:
    """They equal NumPy's; an unstable model is marked at its bars."""
    timed = [row.latency for row in report.rows if row.latency]
    for trace, share in zip(shown["percentiles-latency"][0], (50, 90, 99), strict=True):
        expected = [np.percentile(np.asarray(latency.samples_ms), share) for latency in timed]
        assert trace["name"] == f"p{share}"
        assert values(trace["x"]) == pytest.approx(expected)
        assert trace["y"][3] == "slow_and_wrong.onnx (unstable)"


def test_every_call_is_on_its_curve(shown: dict[str, Chart], report: BenchmarkReport) -> None:
    """The share at a time is that of the calls that took no longer."""
    for trace, row in zip(shown["calls-latency"][0], report.rows, strict=False):
        assert row.latency is not None
        calls = np.asarray(row.latency.samples_ms).ravel()
        for time, share in zip(values(trace["x"]), values(trace["y"]), strict=True):
            assert share == pytest.approx(100 * np.mean(calls <= time))


def test_stages_add_up_in_the_order_of_a_stream(shown: dict[str, Chart]) -> None:
    """One part of every bar for each."""
    traces, layout, _ = shown["stages"]

    assert [trace["name"] for trace in traces] == list(STAGES)
    assert layout["barmode"] == "stack"
    assert values(traces[3]["x"]) == pytest.approx([0.8 * ms for ms in MEDIANS_MS])


def test_the_layers_of_one_model_are_shown_and_the_others_can_be_chosen(
    shown: dict[str, Chart], report: BenchmarkReport
) -> None:
    """The slowest on top, 25 of them; a menu names every profiled model."""
    traces, layout, _ = shown["layers"]

    assert [trace["visible"] for trace in traces] == [True, False, False]
    assert [b["label"] for b in layout["updatemenus"][0]["buttons"]] == list(NAMES[1:])
    slowest = sorted((layer.ms for layer in report.rows[1].layers), reverse=True)[:25]
    assert values(traces[0]["x"]) == pytest.approx(slowest)
    assert len(set(traces[0]["y"])) == 25


@pytest.mark.parametrize("kind", ["operator", "block"])
def test_sums_by_operator_and_block_are_those_of_the_layers(
    shown: dict[str, Chart], report: BenchmarkReport, kind: str
) -> None:
    """Nothing is lost: the parts of a bar add up to all layers."""
    traces, _, _ = shown[f"profile-{kind}"]
    for place, row in enumerate(report.rows[1:4]):
        sums = {trace["name"]: values(trace["x"])[place] for trace in traces}
        assert sum(sums.values()) == pytest.approx(sum(layer.ms for layer in row.layers))
        for name, ms in sums.items():
            expected = sum(layer.ms for layer in row.layers if getattr(layer, kind) == name)
            assert ms == pytest.approx(expected)


def test_starts_are_split_and_the_bound_is_a_line(shown: dict[str, Chart]) -> None:
    """Import, opening and first depth add up to the start; the line stands at 100 %."""
    parts = [values(trace["x"]) for trace in shown["start"][0]]

    assert np.sum(parts, axis=0) == pytest.approx([0.9, 1.9, 2.9, 3.9])
    assert parts[1] == pytest.approx([0.2, 0.7, 1.2, 1.7])
    (line,) = shown["bound"][1]["shapes"]
    assert (line["x0"], line["x1"]) == (100, 100)


def test_the_charts_keep_data_to_themselves_and_names_verbatim(shown: dict[str, Chart]) -> None:
    """No button that uploads; a name with a tag in it stays a name."""
    for traces, _, config in shown.values():
        assert config["showSendToCloud"] is False
        assert config["displaylogo"] is False
        assert not [trace for trace in traces if "<engine" in str(trace.get("name"))]


def test_a_single_batch_is_drawn_as_bars_not_as_lone_points(report: BenchmarkReport) -> None:
    """One bar a model, as long as its rate; with a second batch it is lines again."""
    single = [replace(r, throughput=r.throughput[:1]) for r in report.rows]
    traces, _, _ = charts(render_page(replace(report, rows=tuple(single))))["throughput"]
    rates = [r.throughput[0].images_per_s for r in single if r.throughput]

    assert [trace["type"] for trace in traces] == ["bar"]
    assert traces[0]["x"] == pytest.approx(rates)
    traces, _, _ = charts(render_page(report))["throughput"]
    assert {trace["type"] for trace in traces} == {"scatter"}


def test_charts_without_figures_are_left_out(report: BenchmarkReport) -> None:
    """Latency alone, accuracy alone, nothing at all; links lead to what is there."""
    bare = [
        replace(r, stages={}, throughput=(), cold_start=None, device_bytes=None, layers=())
        for r in report.rows
    ]
    timed = [replace(r, accuracy=None, engine_latency=None) for r in bare]
    scored = [replace(r, latency=None, engine_latency=None) for r in bare]
    expected: tuple[tuple[list[BenchmarkRow], set[str]], ...] = (
        (timed, {"percentiles-latency", "calls-latency", "rounds"}),
        (scored, {"error", "images"}),
        ([], set()),
    )
    for rows, keys in expected:
        page = render_page(replace(report, rows=tuple(rows)))
        assert set(charts(page)) == keys
        links = set(re.findall(r'<a href="#([^"]+)"', page))
        assert links == keys | {"tables", "run"}
        assert all(f'<section id="{link}">' in page for link in links)


def test_pictures_stand_in_groups(report: BenchmarkReport) -> None:
    """A section and a link for each."""
    image = np.zeros((4, 5, 3), np.uint8)
    page = render_page(report, [Picture("a", image, "First"), Picture("b", image, "<Second>")])

    sections = re.findall(r'<section id="pictures-\d"><h2>([^<]+)</h2>', page)
    assert sections == ["First", "&lt;Second&gt;"]
