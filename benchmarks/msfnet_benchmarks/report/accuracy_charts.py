"""Charts of depth error, and of what it costs in time: the Pareto front of the models."""

from __future__ import annotations

from collections.abc import Sequence

from msfnet_benchmarks.report.charts import (
    SYMBOLS,
    Chart,
    bar_chart,
    colour,
    labelled,
    new_figure,
    verbatim,
)
from msfnet_benchmarks.report.report import BenchmarkReport
from msfnet_benchmarks.report.tables import constant_rel
from msfnet_benchmarks.report.time_charts import Part


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points that no other dominates, by rising first coordinate.

    A point dominates another when it is not larger in either coordinate and smaller in one; equal
    points do not dominate each other.
    """
    front: list[int] = []
    best = float("inf")
    for index in sorted(range(len(points)), key=lambda i: points[i]):
        if points[index][1] < best or (front and points[index] == points[front[-1]]):
            front.append(index)
            best = points[index][1]
    return front


def trade_charts(report: BenchmarkReport) -> list[Chart]:
    """Return depth error against latency; against the engine's too where some have no other."""
    engine_only = any(r.accuracy and r.engine_latency and not r.latency for r in report.rows)
    found = [
        _trade(report, "latency"),
        _trade(report, "engine_latency") if engine_only else None,
    ]
    return [chart for chart in found if chart]


def error_charts(report: BenchmarkReport) -> list[Chart]:
    """Return the charts of depth error that the report has figures for."""
    return [chart for chart in (_error(report), _images(report)) if chart]


def _trade(report: BenchmarkReport, part: Part) -> Chart | None:
    points = {
        index: (getattr(row, part).p50_ms, row.accuracy.summary.rel)
        for index, row in enumerate(report.rows)
        if row.accuracy and getattr(row, part)
    }
    if not points:
        return None
    names, places = [label for label, _ in labelled(report)], list(points)
    times, rels = zip(*points.values(), strict=True)
    front = [places[i] for i in pareto_front(list(points.values()))]
    figure = new_figure()
    # A staircase: everything above and to the right of it is dominated.
    figure.add_scatter(
        name="frontier",
        x=[points[front[0]][0], *(points[index][0] for index in front), max(times)],
        y=[max(rels), *(points[index][1] for index in front), points[front[-1]][1]],
        mode="lines",
        line={"shape": "hv", "color": "#7a8496", "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
    )
    sizes = _marker_sizes([row.size_bytes for row in report.rows])
    for index, (time, rel) in points.items():
        row, beaten = report.rows[index], index not in front
        symbol = SYMBOLS[index % len(SYMBOLS)]
        figure.add_scatter(
            name=f"{names[index]}{' (dominated)' if beaten else ''}",
            x=[time],
            y=[rel],
            mode="markers",
            marker={
                "size": sizes[index],
                "color": colour(index),
                "symbol": f"{symbol}-open" if beaten else symbol,
                "line": {"width": 2 if beaten else 0, "color": colour(index)},
            },
            hovertemplate=f"{verbatim(row.name)}<br>%{{x:.4g}} ms, REL %{{y:.4f}}"
            f"<br>{row.size_bytes / 1e6:.1f} MB<extra></extra>",
        )
    what = "end to end" if part == "latency" else "engine alone"
    figure.update_xaxes(title=f"median milliseconds per frame, {what}", rangemode="tozero")
    _relative_axis(figure, rels)
    return Chart(
        f"pareto-{part}",
        f"Latency against depth error, {what}",
        "Down and to the left is better. Filled points are the frontier; an open one is dominated: "
        "another is at least as fast and as accurate. The area of a point is the size of the file."
        f"{_constant(report)}",
        figure,
        470,
    )


def _constant(report: BenchmarkReport) -> str:
    """Return the sentence to compare a REL with."""
    text = constant_rel(report)
    return f" For comparison: {text}." if text else ""


def _relative_axis(figure: object, values: Sequence[float]) -> None:
    """Show errors with room around them: far above 0 they would all lie on one line."""
    low, high = min(values), max(values)
    room = max(0.25 * (high - low), 0.02 * high, 1e-6)
    figure.update_yaxes(  # type: ignore[attr-defined]
        title="REL (mean |y-g|/g)", range=[max(0.0, low - room), high + room]
    )


def _marker_sizes(sizes: Sequence[int]) -> list[float]:
    """Return diameters in pixels whose areas are as the file sizes are, none too small to see."""
    largest = max(*sizes, 1)
    return [max(9.0, 28 * (size / largest) ** 0.5) for size in sizes]


def _error(report: BenchmarkReport) -> Chart | None:
    rels = {label: r.accuracy.summary.rel for label, r in labelled(report) if r.accuracy}
    protocol = report.protocol or "no named protocol"
    return bar_chart(
        "error",
        "Depth error",
        f"Mean REL over the images under {protocol}; shorter is better.{_constant(report)}",
        {"REL": rels},
        "REL (mean |y-g|/g)",
        text=lambda rel: f"{rel:.4f}",
    )


def _images(report: BenchmarkReport) -> Chart | None:
    rows = enumerate(labelled(report))
    scored = [(i, label, row, row.accuracy) for i, (label, row) in rows if row.accuracy]
    if not scored:
        return None
    figure = new_figure()
    for index, label, row, accuracy in scored:
        figure.add_box(
            name=label,
            orientation="h",
            x=[score.metrics.rel for score in accuracy.scores],
            text=[verbatim(score.name) for score in accuracy.scores],
            boxpoints="all",
            boxmean=True,
            marker_color=colour(index),
            hovertemplate=f"%{{text}}<br>{verbatim(row.name)}: REL %{{x:.4f}}<extra></extra>",
        )
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title="REL (mean |y-g|/g)", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", type="category")
    protocol = report.protocol or "no named protocol"
    return Chart(
        "images",
        "Depth error per image",
        f"REL under {protocol}: every point is an image, the dashed line their mean."
        f"{_constant(report)}",
        figure,
        130 + 80 * len(scored),
    )
