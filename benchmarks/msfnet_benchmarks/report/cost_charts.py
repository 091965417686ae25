"""Charts of where a model's time and memory go: layers, operators, start, FLOP bound."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from msfnet_benchmarks.report.charts import (
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
from msfnet_benchmarks.report.tables import shorten

TOP_LAYERS = 25

_KINDS = 7
"""Operators or blocks that are told apart; what is left is one part more."""


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
    shares = [(label, report.bound_share(row)) for row, label in _labelled(report)]
    held = [(label, 100 * share) for label, share in shares if share is not None]
    if not held:
        return None
    percent = [share for _, share in held]
    figure = bars(
        [("share", [label for label, _ in held], percent, [f"{share:.0f} %" for share in percent])],
        "share of the FLOP bound, %",
    )
    figure.add_vline(x=100, line={"color": "#d55e00", "width": 2, "dash": "dash"})
    figure.update_xaxes(range=[0, 1.08 * max(100.0, *percent)])
    figure.update_layout(showlegend=False)
    bounds = [row.flop_bound or report.flop_bound for row in report.rows]
    rate = max(bound.gmacs_per_s for bound in bounds if bound)
    return Chart(
        "bound",
        "Share of the FLOP bound",
        "The dashed line is what a large float32 matrix product reached in the same run, "
        f"{rate:.0f} GMAC/s; the bar is the least time that the model's GMAC take at that "
        "rate over the engine's median. Arithmetic of less precision, or that skips some of it, "
        "can pass 100 %.",
        figure,
        bars_height(len(held)),
    )


def _labelled(report: BenchmarkReport) -> list[tuple[BenchmarkRow, str]]:
    return list(zip(report.rows, labels(report), strict=True))


def _layers(report: BenchmarkReport) -> Chart | None:
    profiled = [(row, label) for row, label in _labelled(report) if row.layers]
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
    for row, label in _labelled(report):
        if row.layers and any(getattr(layer, kind) for layer in row.layers):
            sums[label] = defaultdict(float)
            for layer in row.layers:
                sums[label][getattr(layer, kind) or "no block"] += layer.ms
    if not sums:
        return None
    totals: dict[str, float] = defaultdict(float)
    for taken in sums.values():
        for name, ms in taken.items():
            totals[name] += ms
    ranked = sorted(totals, key=lambda name: -totals[name])
    parts = []
    for name in ranked[:_KINDS]:
        times = [taken.get(name, 0.0) for taken in sums.values()]
        parts.append((name, list(sums), times, [few(time) for time in times]))
    if rest := ranked[_KINDS:]:
        times = [sum(taken.get(name, 0.0) for name in rest) for taken in sums.values()]
        parts.append((f"{len(rest)} others", list(sums), times, [few(time) for time in times]))
    return Chart(
        f"profile-{kind}",
        f"Time by {kind}",
        f"The layers' median times summed by {kind}; profiling slows small layers, so that the sum "
        "exceeds the latency.",
        bars(parts, "milliseconds", stacked=True),
        bars_height(len(sums)) + 70,
    )


def _start(report: BenchmarkReport) -> Chart | None:
    starts = [(label, row.cold_start) for row, label in _labelled(report) if row.cold_start]
    if not starts:
        return None
    names = [label for label, _ in starts]
    split = [
        ("runtime imported", [start.imported_s for _, start in starts]),
        ("engine loaded, model opened", [start.opened_s - start.imported_s for _, start in starts]),
        ("first depth", [start.first_depth_s - start.opened_s for _, start in starts]),
    ]
    parts = [(name, names, times, [few(time) for time in times]) for name, times in split]
    return Chart(
        "start",
        "Cold start",
        "From starting a process to its first depth map, and what that time went into.",
        bars(parts, "seconds", stacked=True),
        bars_height(len(starts)) + 30,
    )


def _memory(report: BenchmarkReport) -> Chart | None:
    rows = _labelled(report)
    host = [(label, row.cold_start.peak_bytes / 1e6) for row, label in rows if row.cold_start]
    device = [(label, row.device_bytes / 1e6) for row, label in rows if row.device_bytes]
    held = [(name, part) for name, part in (("host", host), ("GPU", device)) if part]
    if not held:
        return None
    parts = [
        (name, [label for label, _ in part], sizes, [f"{size:.0f}" for size in sizes])
        for name, part in held
        for sizes in [[size for _, size in part]]
    ]
    return Chart(
        "memory",
        "Memory",
        "Host: largest resident memory of a process that runs the model. GPU: taken by the open "
        "model.",
        bars(parts, "megabytes"),
        bars_height(len(report.rows), len(held)),
    )
