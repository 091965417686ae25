"""Charts of time: percentiles, every call, the rounds, the stages of a frame, rate by batch."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from msfnet_benchmarks.report.charts import (
    DASHES,
    SYMBOLS,
    Chart,
    bars,
    bars_height,
    colour,
    few,
    labels,
    new_figure,
    verbatim,
)
from msfnet_benchmarks.report.report import BenchmarkReport, BenchmarkRow
from msfnet_benchmarks.report.tables import stage_names
from msfnet_benchmarks.timing.core import Summary

Part = Literal["latency", "engine_latency"]
"""End to end, or from batch to answer: the fields of a row that hold them."""

_WHAT = {"latency": "end to end", "engine_latency": "engine alone"}

_ROUNDS = 20
"""So many have a mark each on their axis."""

_FAR_APART = 8
"""Beyond this factor between times an axis is logarithmic."""


def latency_charts(report: BenchmarkReport) -> list[Chart]:
    """Return the charts that the report has figures for."""
    found = [
        _percentiles(report, "latency"),
        _percentiles(report, "engine_latency"),
        _calls(report, "latency"),
        _calls(report, "engine_latency"),
        _stages(report),
        _throughput(report),
        _rounds(report),
    ]
    return [chart for chart in found if chart]


def _timed(report: BenchmarkReport, part: Part) -> list[tuple[int, str, Summary]]:
    """Return (index, label, latency) of the rows that were timed."""
    found = zip(report.rows, labels(report), strict=True)
    held = [(i, label, getattr(row, part)) for i, (row, label) in enumerate(found)]
    return [(index, label, latency) for index, label, latency in held if latency]


def _percentiles(report: BenchmarkReport, part: Part) -> Chart | None:
    timed = _timed(report, part)
    if not timed:
        return None
    names = [f"{label}{' (unstable)' if latency.unstable else ''}" for _, label, latency in timed]
    parts = []
    for share in (50, 90, 99):
        times = [getattr(latency, f"p{share}_ms") for _, _, latency in timed]
        parts.append((f"p{share}", names, times, [few(time) for time in times]))
    return Chart(
        f"percentiles-{part}",
        f"Latency, {_WHAT[part]}",
        "Half, 90 % and 99 % of all calls took no longer than this; shorter is better.",
        bars(parts, "milliseconds per frame"),
        bars_height(len(timed), 3),
    )


def _calls(report: BenchmarkReport, part: Part) -> Chart | None:
    timed = [
        (i, label, latency) for i, label, latency in _timed(report, part) if latency.samples_ms
    ]
    if not timed:
        return None
    figure, medians = new_figure(), []
    for index, label, latency in timed:
        times = np.sort(np.concatenate([np.asarray(r, float) for r in latency.samples_ms]))
        medians.append(float(np.median(times)))
        figure.add_scatter(
            name=label,
            x=times.tolist(),
            y=(100 * np.arange(1, times.size + 1) / times.size).tolist(),
            mode="lines",
            line={"shape": "hv", "color": colour(index), "dash": DASHES[index % len(DASHES)]},
            hovertemplate=f"{verbatim(latency.name)}<br>%{{y:.1f}} % within %{{x:.4g}} ms"
            "<extra></extra>",
        )
    _milliseconds(figure, medians)
    figure.update_yaxes(title="share of calls, %", range=[0, 101])
    return Chart(
        f"calls-{part}",
        f"Every call, {_WHAT[part]}",
        "The share of calls that took no longer than a time. A steep line is a steady model; a "
        "tail to the right is what a control loop must wait for.",
        figure,
    )


def _milliseconds(figure: Any, medians: list[float]) -> None:
    far = min(medians) > 0 and max(medians) / min(medians) > _FAR_APART
    scale = {"type": "log", "dtick": "D2"} if far else {"rangemode": "tozero"}
    figure.update_xaxes(title="milliseconds per frame", **scale)


def _rounds(report: BenchmarkReport) -> Chart | None:
    part: Part = "latency" if any(row.latency for row in report.rows) else "engine_latency"
    timed = _timed(report, part)
    if not timed:
        return None
    figure = new_figure()
    for index, label, latency in timed:
        values = latency.round_p50_ms
        figure.add_scatter(
            name=label,
            x=list(range(1, len(values) + 1)),
            y=list(values),
            mode="lines+markers",
            marker={"color": colour(index), "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 8},
            line={"dash": DASHES[index % len(DASHES)]},
        )
    longest = max(len(latency.round_p50_ms) for _, _, latency in timed)
    figure.update_xaxes(title="round", **({"dtick": 1} if longest <= _ROUNDS else {}))
    figure.update_yaxes(title="median milliseconds", rangemode="tozero")
    return Chart(
        "rounds",
        "Steadiness",
        f"Median of every round, {_WHAT[part]}; a slope that all share is the machine's.",
        figure,
    )


def _stages(report: BenchmarkReport) -> Chart | None:
    rows = [(row, label) for row, label in zip(report.rows, labels(report), strict=True)]
    staged: list[tuple[BenchmarkRow, str]] = [(row, label) for row, label in rows if row.stages]
    if not staged:
        return None
    parts = []
    for name in stage_names(report):
        held = [(label, row.stages[name].p50_ms) for row, label in staged if name in row.stages]
        times = [time for _, time in held]
        parts.append((name, [label for label, _ in held], times, [few(time) for time in times]))
    return Chart(
        "stages",
        "Time by stage",
        "Median of every stage of one frame, in the order of a stream. Streaming overlaps reading, "
        "inference and writing, so that its rate is set by the longest of them.",
        bars(parts, "milliseconds per frame", stacked=True),
        bars_height(len(staged), 1) + 30,
    )


def _throughput(report: BenchmarkReport) -> Chart | None:
    rows = [(row, label) for row, label in zip(report.rows, labels(report), strict=True)]
    measured = [(row, label) for row, label in rows if row.throughput]
    if not measured:
        return None
    batches = sorted({rate.batch for row, _ in measured for rate in row.throughput})
    title = "Throughput by batch"
    if len(batches) == 1:
        rates = [(label, row.throughput[0].images_per_s) for row, label in measured]
        names, values = [label for label, _ in rates], [rate for _, rate in rates]
        part = (f"batch {batches[0]}", names, values, [few(value) for value in values])
        figure = bars([part], "images per second")
        note = f"Engine alone, {batches[0]} images in one call."
        return Chart("throughput", title, note, figure, bars_height(len(rates)))
    figure = new_figure()
    for index, (row, label) in enumerate(rows):
        if row.throughput:
            points = sorted(row.throughput, key=lambda rate: rate.batch)
            figure.add_scatter(
                name=label,
                x=[rate.batch for rate in points],
                y=[rate.images_per_s for rate in points],
                customdata=[rate.p50_ms for rate in points],
                mode="lines+markers",
                marker={"color": colour(index), "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 9},
                hovertemplate="batch %{x}: %{y:.4g} images/s, %{customdata:.4g} ms a call",
            )
    figure.update_xaxes(title="images in one call", type="log", tickvals=batches)
    figure.update_yaxes(title="images per second", rangemode="tozero")
    note = "Engine alone, in batches; where the line is flat, a larger batch only adds delay."
    return Chart("throughput", title, note, figure)
