"""Charts of where a model's time and memory go: layers, operators, start, FLOP bound."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from msfnet_benchmarks.report.charts import (
    Chart,
    bar_chart,
    colour,
    labelled,
    new_figure,
    verbatim,
)
from msfnet_benchmarks.report.report import BenchmarkReport
from msfnet_benchmarks.report.tables import shorten

TOP_LAYERS = 25

_KINDS = 7
"""Operators or blocks that have a part each; the rest is one part more."""


def cost_charts(report: BenchmarkReport) -> list[Chart]:
    """Return the charts that the report has figures for."""
    found = [
        _bound(report),
        _layers(report),
        _profile(report, "operator"),
        _profile(report, "block"),
        _start(report),
        _memory(report),
    ]
    return [chart for chart in found if chart]


def _bound(report: BenchmarkReport) -> Chart | None:
    shares = {
        label: 100 * share
        for label, row in labelled(report)
        if (share := report.bound_share(row)) is not None
    }
    bounds = [bound for row in report.rows if (bound := row.flop_bound or report.flop_bound)]
    rate = max((bound.gmacs_per_s for bound in bounds), default=0.0)
    chart = bar_chart(
        "bound",
        "Share of the FLOP bound",
        "The dashed line is the rate of a large float32 matrix product in the same run, "
        f"{rate:.0f} GMAC/s; the bar is the least time that the model's GMAC take at that rate "
        "over the engine's median. Arithmetic of less precision, or that skips some of it, can "
        "pass 100 %.",
        {"share": shares},
        "share of the FLOP bound, %",
        text=lambda share: f"{share:.0f} %",
    )
    if chart:
        chart.figure.add_vline(x=100, line={"color": "#d55e00", "width": 2, "dash": "dash"})
        chart.figure.update_xaxes(range=[0, 1.08 * max(100.0, *shares.values())])
    return chart


def _layers(report: BenchmarkReport) -> Chart | None:
    profiled = [(row, label) for label, row in labelled(report) if row.layers]
    if not profiled:
        return None
    figure = new_figure()
    for index, (row, label) in enumerate(profiled):
        top = row.layers[:TOP_LAYERS]
        short = shorten([layer.name for layer in top], 24)
        figure.add_bar(
            name=label,
            visible=index == 0,
            orientation="h",
            x=[layer.ms for layer in top],
            # Zero-width spaces: two layers of one name are two bars.
            y=[verbatim(name) + place * "\u200b" for place, name in enumerate(short)],
            customdata=[
                [verbatim(layer.name), verbatim(layer.operator), verbatim(layer.block), layer.share]
                for layer in top
            ],
            text=[verbatim(layer.operator) for layer in top],
            textposition="auto",
            marker_color=colour(0),
            hovertemplate="%{customdata[0]}<br>%{customdata[1]} %{customdata[2]}<br>"
            "%{x:.4g} ms, %{customdata[3]:.1%} of all layers<extra></extra>",
        )
    if len(profiled) > 1:
        figure.update_layout(updatemenus=[_choice([label for _, label in profiled])])
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title="median milliseconds", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", type="category", tickfont={"size": 11})
    longest = max(min(len(row.layers), TOP_LAYERS) for row, _ in profiled)
    return Chart(
        "layers",
        "Layers",
        f"The {TOP_LAYERS} layers that take longest, as the engine ran them; choose the model "
        "above the bars. Profiling itself slows small layers.",
        figure,
        150 + 22 * longest,
    )


def _choice(names: list[str]) -> dict[str, Any]:
    """Return a menu that shows one trace of a figure."""
    buttons = [
        {
            "label": name,
            "method": "restyle",
            "args": [{"visible": [place == chosen for place in range(len(names))]}],
        }
        for chosen, name in enumerate(names)
    ]
    place = {"x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    return {"buttons": buttons, "direction": "down", "showactive": True, **place}


def _profile(report: BenchmarkReport, kind: str) -> Chart | None:
    """Return the layers' time summed by ``operator`` or ``block``, a bar for every model."""
    sums: dict[str, dict[str, float]] = {}
    totals: dict[str, float] = defaultdict(float)
    for label, row in labelled(report):
        if any(getattr(layer, kind) for layer in row.layers):
            sums[label] = defaultdict(float)
            for layer in row.layers:
                name = getattr(layer, kind) or "no block"
                sums[label][name] += layer.ms
                totals[name] += layer.ms
    ranked = sorted(totals, key=lambda name: -totals[name])
    groups = {name: [name] for name in ranked[:_KINDS]}
    if rest := ranked[_KINDS:]:
        groups[f"{len(rest)} others"] = rest
    return bar_chart(
        f"profile-{kind}",
        f"Time by {kind}",
        f"The layers' median times summed by {kind}; profiling slows small layers, so that the sum "
        "exceeds the latency.",
        {
            group: {
                label: sum(times.get(name, 0.0) for name in names) for label, times in sums.items()
            }
            for group, names in groups.items()
        },
        "milliseconds",
        stacked=True,
    )


def _start(report: BenchmarkReport) -> Chart | None:
    starts = {label: row.cold_start for label, row in labelled(report) if row.cold_start}
    return bar_chart(
        "start",
        "Cold start",
        "From starting a process to its first depth map, by what the process was doing.",
        {
            "runtime imported": {label: s.imported_s for label, s in starts.items()},
            "engine loaded, model opened": {
                label: s.opened_s - s.imported_s for label, s in starts.items()
            },
            "first depth": {label: s.first_depth_s - s.opened_s for label, s in starts.items()},
        },
        "seconds",
        stacked=True,
    )


def _memory(report: BenchmarkReport) -> Chart | None:
    rows = labelled(report)
    return bar_chart(
        "memory",
        "Memory",
        "Host: largest resident memory of a process that runs the model. GPU: memory that the open "
        "model uses.",
        {
            "host": {name: r.cold_start.peak_bytes / 1e6 for name, r in rows if r.cold_start},
            "GPU": {name: r.device_bytes / 1e6 for name, r in rows if r.device_bytes},
        },
        "megabytes",
        text=lambda size: f"{size:.0f}",
    )
