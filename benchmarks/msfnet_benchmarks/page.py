"""The HTML page of a comparison: one file, all scripts inside, readable without a network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import cv2

from msfnet_runtime import MsfnetError

if TYPE_CHECKING:
    from msfnet_benchmarks.report import BenchmarkReport, Picture

_COLOURS = ("#1f5aa6", "#d9822b", "#3a8f5c", "#a63d57", "#6b5ca5", "#7a7a7a")

_CONFIG = {
    "displaylogo": False,
    "responsive": True,
    # On by default, the button uploads the chart's data to plotly's servers.
    "showSendToCloud": False,
}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2430; background: #fff;
       max-width: 68rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p, dl { color: #475063; } table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: right; padding: .4rem .55rem; border-bottom: 1px solid #e3e7ee; }
th:first-child, td:first-child { text-align: left; } th { color: #475063; font-weight: 600; }
td { font-variant-numeric: tabular-nums; } .scroll { overflow-x: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .92rem; }
dt { color: #737d8f; } dd { margin: 0; } .note { font-size: .92rem; }
.pictures { display: grid; gap: 1rem;
            grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); }
figure { margin: 0; } figure img { width: 100%; display: block; }
figcaption { color: #475063; font-size: .92rem; overflow-wrap: anywhere; }
"""


def render_page(report: BenchmarkReport, pictures: Sequence[Picture] = ()) -> str:
    """Return the page.

    Raises:
        MsfnetError: plotly is missing.
    """
    charts = [(title, note, _to_html(figure)) for title, note, figure in _figures(report)]
    body = "\n".join(
        f"<section><h2>{escape(title)}</h2><p>{escape(note)}</p>{html}</section>"
        for title, note, html in charts
    )
    from msfnet_benchmarks.report import WHAT_IS_TIMED

    facts = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in (*_run(report), *report.environment.items())
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style>"
        f"<script>{_plotly().offline.get_plotlyjs()}</script></head>\n<body>"
        f"<h1>{escape(report.title)}</h1><p>{escape(WHAT_IS_TIMED)}</p>"
        f'<div class="scroll">{_table(report)}</div><p class="note">{escape(report.legend())}</p>'
        f"\n{body}\n{_gallery(pictures)}<h2>Run</h2><dl>{facts}</dl></body></html>\n"
    )


def _plotly() -> Any:
    try:
        import plotly.graph_objects
        import plotly.offline
    except ImportError:
        raise MsfnetError(
            "plotly is not installed; run `pip install 'msfnet[report]'`, or leave out --report"
        ) from None
    return plotly


def _run(report: BenchmarkReport) -> list[tuple[str, str]]:
    height, width = report.frame_size
    return [
        ("created", report.created),
        ("frames", f"{report.frames} of {height}x{width}"),
        ("data", report.data or "generated streets"),
        ("protocol", report.protocol or "none"),
        *((f"engine of {row.name}", row.engine) for row in report.rows),
    ]


def _table(report: BenchmarkReport) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in report.header())
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        for cells in report.cells()
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _gallery(pictures: Sequence[Picture]) -> str:
    """Return the pictures as PNG inside the page, or nothing where there is none."""
    figures = "".join(
        f'<figure><img alt="{escape(picture.title)}" src="{_data_url(picture)}">'
        f"<figcaption>{escape(picture.title)}</figcaption></figure>"
        for picture in pictures
    )
    return f'<h2>Depth</h2><div class="pictures">{figures}</div>\n' if figures else ""


def _data_url(picture: Picture) -> str:
    _, png = cv2.imencode(".png", cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR))
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode("ascii")


def _to_html(figure: Any) -> str:
    figure.update_layout(
        template="plotly_white",
        height=380,
        margin={"l": 60, "r": 20, "t": 20, "b": 60},
        font={"family": "system-ui, sans-serif", "size": 14, "color": "#1d2430"},
        legend={"orientation": "h", "y": 1.08, "x": 0},
    )
    html: str = figure.to_html(full_html=False, include_plotlyjs=False, config=_CONFIG)
    return html


def _figures(report: BenchmarkReport) -> list[tuple[str, str, Any]]:
    """Return (title, note, figure) of every chart that the report has figures for."""
    timed = any(row.latency for row in report.rows)
    scored = any(row.accuracy for row in report.rows)
    protocol = report.protocol or "no named protocol"
    charts = [
        (
            timed,
            "Latency",
            "Percentiles over all timed calls; lower is better.",
            _latency,
        ),
        (
            scored,
            "Depth error",
            f"Mean REL over the images under {protocol}; lower is better.",
            _error,
        ),
        (
            timed and scored,
            "Latency against depth error",
            "Down and to the left is better; the area of a point is the size of the file.",
            _trade,
        ),
        (
            scored,
            "Depth error per image",
            f"REL under {protocol}: every point is an image, the dashed line their mean.",
            _errors,
        ),
        (
            timed,
            "Steadiness",
            "Median of every round; a slope that all share is the machine's.",
            _rounds,
        ),
    ]
    return [(title, note, draw(report)) for wanted, title, note, draw in charts if wanted]


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _label(name: str) -> str:
    """Return a name as plotly shows it verbatim: it reads tags and entities in text."""
    return escape(name, quote=False)


def _latency(report: BenchmarkReport) -> Any:
    figure = _plotly().graph_objects.Figure()
    timed = [(_label(row.name), row.latency) for row in report.rows if row.latency]
    for index, share in enumerate((50, 90, 99)):
        figure.add_bar(
            name=f"p{share}",
            x=[name for name, _ in timed],
            y=[getattr(latency, f"p{share}_ms") for _, latency in timed],
            marker_color=_colour(index),
        )
    figure.update_yaxes(title="ms per frame", rangemode="tozero")
    return figure


def _rounds(report: BenchmarkReport) -> Any:
    figure = _plotly().graph_objects.Figure()
    for index, row in enumerate(report.rows):
        if row.latency:
            values = row.latency.round_p50_ms
            figure.add_scatter(
                name=_label(row.name),
                x=list(range(1, len(values) + 1)),
                y=list(values),
                mode="lines+markers",
                marker_color=_colour(index),
            )
    figure.update_xaxes(title="round", dtick=1)
    figure.update_yaxes(title="median ms", rangemode="tozero")
    return figure


def _error(report: BenchmarkReport) -> Any:
    figure = _plotly().graph_objects.Figure()
    for index, row in enumerate(report.rows):
        if row.accuracy:
            rel = row.accuracy.summary.rel
            figure.add_bar(
                name=_label(row.name),
                x=[_label(row.name)],
                y=[rel],
                text=[f"{rel:.4f}"],
                marker_color=_colour(index),
            )
    figure.update_yaxes(title="REL", rangemode="tozero")
    figure.update_layout(showlegend=False)
    return figure


def _errors(report: BenchmarkReport) -> Any:
    figure = _plotly().graph_objects.Figure()
    for index, row in enumerate(report.rows):
        if row.accuracy:
            figure.add_box(
                name=_label(row.name),
                y=[score.metrics.rel for score in row.accuracy.scores],
                text=[_label(score.name) for score in row.accuracy.scores],
                boxpoints="all",
                boxmean=True,
                marker_color=_colour(index),
            )
    figure.update_yaxes(title="REL", rangemode="tozero")
    figure.update_layout(showlegend=False)
    return figure


def _trade(report: BenchmarkReport) -> Any:
    figure = _plotly().graph_objects.Figure()
    sizes = _marker_sizes([row.size_bytes for row in report.rows])
    for index, (row, size) in enumerate(zip(report.rows, sizes, strict=True)):
        if row.latency and row.accuracy:
            figure.add_scatter(
                name=_label(row.name),
                x=[row.latency.p50_ms],
                y=[row.accuracy.summary.rel],
                mode="markers",
                marker={"size": size, "color": _colour(index)},
            )
    figure.update_xaxes(title="median ms per frame", rangemode="tozero")
    figure.update_yaxes(title="REL", rangemode="tozero")
    return figure


def _marker_sizes(sizes: Sequence[int]) -> list[float]:
    """Return diameters in pixels whose areas are as the file sizes are, none too small to see."""
    largest = max(*sizes, 1)
    return [max(8.0, 30 * (size / largest) ** 0.5) for size in sizes]
