"""Charts of a sweep: cost against pixels, parameters and GMAC, and the machine's limit."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

from msfnet_benchmarks.report.charts import SYMBOLS, Chart, colour, new_figure, verbatim
from msfnet_benchmarks.report.report import BenchmarkReport, BenchmarkRow

_NOT_THE_NETWORKS = {"size", "batch", "threads"}
"""Axes that leave the parameters as they are."""


def scaling_charts(report: BenchmarkReport) -> list[Chart]:
    """Return the charts that a sweep has figures for; none for a comparison of models."""
    timed = [row for row in report.rows if row.settings and row.engine_latency]
    if not timed:
        return []
    held = [(axis, [row for row in timed if axis.has(row)]) for axis in _AXES]
    return [
        _chart(report, axis, rows)
        for axis, rows in held
        if len({axis.place(row) for row in rows}) > 1
    ]


class _Axis(NamedTuple):
    """What cost is drawn against."""

    key: str
    title: str
    unit: str
    has: Callable[[BenchmarkRow], bool]
    place: Callable[[BenchmarkRow], float]


_AXES = (
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


def _chart(report: BenchmarkReport, axis: _Axis, rows: list[BenchmarkRow]) -> Chart:
    figure = new_figure()
    for index, (name, held) in enumerate(_lines(rows, axis).items()):
        held.sort(key=axis.place)
        figure.add_scatter(
            name=verbatim(name),
            x=[axis.place(row) for row in held],
            y=[_ms_per_image(row) for row in held],
            text=[verbatim(row.name) for row in held],
            mode="lines+markers",
            marker={"color": colour(index), "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 9},
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
            value if name in ("encoder", "preset", "size") else f"{name} {value}"
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
