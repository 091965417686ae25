"""Charts of time: percentiles, every call, rounds, stages, rate by batch; and those of a sweep."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from msfnet_benchmarks.report.charts import (
    DASHES,
    Chart,
    bar_chart,
    colour,
    labelled,
    marker,
    new_figure,
    verbatim,
)
from msfnet_benchmarks.report.report import BenchmarkReport, BenchmarkRow
from msfnet_benchmarks.report.tables import stage_names
from msfnet_benchmarks.timing.core import Summary
from msfnet_runtime.words import counted

Part = Literal["latency", "engine_latency"]
"""End to end, or from batch to answer: the fields of a row that hold them."""

_WHAT = {"latency": "end to end", "engine_latency": "engine alone"}

_ROUNDS = 20
"""Up to this number, each round has a mark on its axis."""

_FAR_APART = 8
"""Beyond this factor between times an axis is logarithmic."""

_NOT_THE_NETWORKS = {"size", "batch", "threads", "provider"}
"""Axes that leave the parameters as they are."""


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
    found = [(label, getattr(row, part)) for label, row in labelled(report)]
    return [(index, label, latency) for index, (label, latency) in enumerate(found) if latency]


def _percentiles(report: BenchmarkReport, part: Part) -> Chart | None:
    timed = {
        f"{label}{' (unstable)' if latency.unstable else ''}": latency
        for _, label, latency in _timed(report, part)
    }
    return bar_chart(
        f"percentiles-{part}",
        f"Latency, {_WHAT[part]}",
        "Half, 90 % and 99 % of all calls took no longer than this; shorter is better.",
        {
            name: {label: getattr(latency, f"{name}_ms") for label, latency in timed.items()}
            for name in ("p50", "p90", "p99")
        },
        "milliseconds per frame",
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
            marker=marker(index, 8),
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
    rows = labelled(report)
    return bar_chart(
        "stages",
        "Time by stage",
        "Median of every stage of one frame, in the order of a stream. Streaming overlaps reading, "
        "inference and writing, so that its rate is set by the longest of them.",
        {
            name: {label: row.stages[name].p50_ms for label, row in rows if name in row.stages}
            for name in stage_names(report)
        },
        "milliseconds per frame",
        stacked=True,
    )


def _throughput(report: BenchmarkReport) -> Chart | None:
    batches = sorted({rate.batch for row in report.rows for rate in row.throughput})
    key, title = "throughput", "Throughput by batch"
    if len(batches) < 2:
        rates = {
            label: rate.images_per_s for label, row in labelled(report) for rate in row.throughput
        }
        batch = batches[0] if batches else 1
        note = f"Engine alone, {counted(batch, 'image')} in one call."
        return bar_chart(key, title, note, {f"batch {batch}": rates}, "images per second")
    figure = new_figure()
    for index, (label, row) in enumerate(labelled(report)):
        points = sorted(row.throughput, key=lambda rate: rate.batch)
        if points:
            figure.add_scatter(
                name=label,
                x=[rate.batch for rate in points],
                y=[rate.images_per_s for rate in points],
                customdata=[rate.p50_ms for rate in points],
                mode="lines+markers",
                marker=marker(index),
                hovertemplate="batch %{x}: %{y:.4g} images/s, %{customdata:.4g} ms a call",
            )
    figure.update_xaxes(title="images in one call", type="log", tickvals=batches)
    figure.update_yaxes(title="images per second", rangemode="tozero")
    note = "Engine alone, in batches; where the line is flat, a larger batch only adds delay."
    return Chart(key, title, note, figure)


def scaling_charts(report: BenchmarkReport) -> list[Chart]:
    """Return the charts that a sweep has figures for; none for a comparison of models."""
    timed = [row for row in report.rows if row.settings and row.engine_latency]
    if not timed:
        return []
    axes = [(axis, [row for row in timed if axis.has(row)]) for axis in _SWEPT]
    return [
        _scaling(report, axis, rows)
        for axis, rows in axes
        if len({axis.place(row) for row in rows}) > 1
    ]


class _Axis(NamedTuple):
    """The horizontal axis of a chart of cost."""

    key: str
    title: str
    unit: str
    has: Callable[[BenchmarkRow], bool]
    place: Callable[[BenchmarkRow], float]


_SWEPT = (
    _Axis(
        "pixels",
        "Cost against pixels",
        "pixels of one image",
        lambda row: row.input_size is not None,
        lambda row: float(math.prod(row.input_size or ())),
    ),
    _Axis(
        "parameters",
        "Cost against parameters",
        "10⁶ parameters",
        lambda row: bool(row.parameters),
        lambda row: (row.parameters or 0) / 1e6,
    ),
    _Axis(
        "arithmetic",
        "Cost against arithmetic",
        "GMAC for one image",
        lambda row: bool(row.macs),
        lambda row: (row.macs or 0) / 1e9,
    ),
)


def _scaling(report: BenchmarkReport, axis: _Axis, rows: list[BenchmarkRow]) -> Chart:
    figure = new_figure()
    for index, (name, points) in enumerate(_lines(rows, axis).items()):
        points.sort(key=axis.place)
        figure.add_scatter(
            name=verbatim(name),
            x=[axis.place(row) for row in points],
            y=[_ms_per_image(row) for row in points],
            text=[verbatim(row.name) for row in points],
            mode="lines+markers",
            marker=marker(index),
            hovertemplate="%{text}<br>%{x:.4g}: %{y:.4g} ms<extra></extra>",
        )
    note = "Median of one call over its images, engine alone; both axes are logarithmic."
    if axis.key == "arithmetic":
        note += _limit(report, figure, rows)
    figure.update_xaxes(title=axis.unit, type="log")
    figure.update_yaxes(title="ms per image", type="log")
    return Chart(f"scaling-{axis.key}", axis.title, note, figure, 460)


def _lines(rows: list[BenchmarkRow], axis: _Axis) -> dict[str, list[BenchmarkRow]]:
    """Return the rows that differ only along the axis, by what they share."""
    lines: dict[str, list[BenchmarkRow]] = defaultdict(list)
    settings = {name for row in rows for name in row.settings}
    along = settings - _NOT_THE_NETWORKS if axis.key == "parameters" else {"size"}
    for row in rows:
        shared = [
            value if name in ("encoder", "preset", "size", "provider") else f"{name} {value}"
            for name, value in row.settings.items()
            if name not in along
        ]
        lines[", ".join(shared) or "all"].append(row)
    return dict(lines)


def _ms_per_image(row: BenchmarkRow) -> float:
    assert row.engine_latency is not None
    return row.engine_latency.p50_ms / row.batch


def _limit(report: BenchmarkReport, figure: Any, rows: list[BenchmarkRow]) -> str:
    """Draw the least time that the measured matrix product allows; return the words for it."""
    bounds = [bound for row in rows if (bound := row.flop_bound or report.flop_bound)]
    if not bounds:
        return ""
    best = max(bounds, key=lambda bound: bound.gmacs_per_s)
    ends = [min(row.macs or 0 for row in rows), max(row.macs or 0 for row in rows)]
    figure.add_scatter(
        name="limit",
        x=[macs / 1e9 for macs in ends],
        y=[best.least_ms(macs) for macs in ends],
        mode="lines",
        line={"color": "#d55e00", "dash": "dash"},
    )
    return (
        f" The dashed line is the least time at the {best.gmacs_per_s:.0f} GMAC/s that a large "
        "matrix product reached in the same run."
    )
