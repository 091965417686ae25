"""The HTML page of a comparison: one file, all scripts inside, readable without a network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.report.accuracy_charts import error_charts, trade_charts
from msfnet_benchmarks.report.charts import Chart, plotly
from msfnet_benchmarks.report.cost_charts import cost_charts
from msfnet_benchmarks.report.pictures import ColourScale, Picture
from msfnet_benchmarks.report.report import BenchmarkReport
from msfnet_benchmarks.report.tables import Table, heading, legend, run_facts, tables, warnings
from msfnet_benchmarks.report.time_charts import latency_charts, scaling_charts

_STYLE = """
*, *::before { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2430; background: #fff;
       max-width: 68rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin-bottom: .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .3rem; } h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p, dl { color: #475063; margin: .3rem 0 .7rem; } .note { font-size: .92rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem .45rem; margin: 1rem 0 1.6rem; }
nav a { color: #17527f; text-decoration: none; font-size: .88rem; padding: .12rem .6rem;
        border: 1px solid #d5dbe5; border-radius: 1rem; }
nav a:hover, nav a:focus-visible { background: #eef3f9; }
.warning { border-left: 4px solid #e69f00; background: #fff8e8; padding: .5rem .8rem; }
.warning p { margin: .1rem 0; color: #1d2430; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; white-space: nowrap; }
th, td { text-align: right; padding: .35rem .5rem; border-bottom: 1px solid #e3e7ee; }
th:first-child, td:first-child { text-align: left; } th { color: #475063; font-weight: 600; }
td { font-variant-numeric: tabular-nums; } .scroll { overflow-x: auto; }
tbody tr:hover { background: #f6f8fb; }
dl { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: .15rem 1rem;
     font-size: .92rem; }
dt { color: #667085; overflow-wrap: anywhere; } dd { margin: 0; overflow-wrap: anywhere; }
.pictures { display: grid; gap: 1rem;
            grid-template-columns: repeat(auto-fill, minmax(min(16rem, 100%), 1fr)); }
figure { margin: 0; } figure img { width: 100%; display: block; border-radius: 3px; }
figcaption { color: #475063; font-size: .88rem; overflow-wrap: anywhere; }
.scale { max-width: 24rem; margin: .2rem 0 1rem; font-size: .82rem; color: #475063; }
.scale img { width: 100%; height: .8rem; display: block; border-radius: 3px; }
.marks { position: relative; height: 1.3rem; }
.marks span { position: absolute; white-space: nowrap; }
@media (max-width: 40rem) { body { margin: 1rem auto; padding: 0 .8rem; } }
@media print { nav, .modebar { display: none !important; } body { max-width: none; margin: 0; }
  section, figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""


def render_page(report: BenchmarkReport, pictures: Sequence[Picture] = ()) -> str:
    """Return the page.

    Raises:
        MsfnetError: plotly is missing.
    """
    title = escape(report.title)
    parts = [
        f"<h1>{title}</h1>",
        f"<p>{escape('. '.join((*heading(report), report.what_is_timed)))}</p>",
        *_sections(report, pictures),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{title}</title><style>{_STYLE}</style>'
        f"<script>{plotly().offline.get_plotlyjs()}</script></head>\n<body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def _sections(report: BenchmarkReport, pictures: Sequence[Picture]) -> list[str]:
    """Return the links to all sections, then the sections."""
    charts = [
        *scaling_charts(report),
        *trade_charts(report),
        *latency_charts(report),
        *cost_charts(report),
        *error_charts(report),
    ]
    links = [("tables", "Tables"), *((chart.key, chart.title) for chart in charts)]
    groups = [(name, list(group)) for name, group in groupby(pictures, lambda p: p.group)]
    links += [(f"pictures-{index}", name) for index, (name, _) in enumerate(groups)]
    links.append(("run", "Run"))
    return [
        "<nav>" + "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name in links) + "</nav>",
        _tables(report),
        *(_chart(chart) for chart in charts),
        *(_gallery(f"pictures-{index}", *group) for index, group in enumerate(groups)),
        f'<section id="run"><h2>Run</h2>{_facts(report)}</section>',
    ]


def _tables(report: BenchmarkReport) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in warnings(report))
    first, *others = tables(report)
    more = "".join(f"<h3>{escape(table.title)}</h3>{_table(table)}" for table in others)
    return (
        '<section id="tables">'
        + (f'<div class="warning">{lines}</div>' if lines else "")
        + f'{_table(first)}<p class="note">{escape(legend(report))}</p>{more}</section>'
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        for cells in table.rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        "</div>"
    )


def _chart(chart: Chart) -> str:
    return (
        f'<section id="{chart.key}"><h2>{escape(chart.title)}</h2>'
        f"<p>{escape(chart.note)}</p>{chart.html()}</section>"
    )


def _facts(report: BenchmarkReport) -> str:
    facts: Iterable[tuple[str, str]] = (*run_facts(report), *report.environment.items())
    return "<dl>" + "".join(f"<dt>{escape(n)}</dt><dd>{escape(v)}</dd>" for n, v in facts) + "</dl>"


def _gallery(key: str, name: str, pictures: Sequence[Picture]) -> str:
    """Return the pictures of one group as PNG inside the page, over the scale they share."""
    figures = "".join(
        f'<figure><img alt="{escape(picture.title)}" src="{_data_url(picture.image)}">'
        f"<figcaption>{escape(picture.title)}</figcaption></figure>"
        for picture in pictures
    )
    scale = next((picture.scale for picture in pictures if picture.scale), None)
    return (
        f'<section id="{key}"><h2>{escape(name)}</h2>{_scale(scale) if scale else ""}'
        f'<div class="pictures">{figures}</div></section>'
    )


def _scale(scale: ColourScale) -> str:
    """Return the colours with their figures below."""
    strip = np.ascontiguousarray(np.tile(scale.colours[None], (4, 1, 1)))
    marks = "".join(
        f'<span style="left:{100 * place:.1f}%; transform:translateX(-{_shift(place)}%)">'
        f"{escape(text)}</span>"
        for place, text in scale.marks
    )
    return (
        f'<div class="scale"><span>{escape(scale.unit)}</span>'
        f'<img alt="colour scale, {escape(scale.unit)}" src="{_data_url(strip)}">'
        f'<div class="marks">{marks}</div></div>'
    )


def _shift(place: float) -> int:
    """Return how far a figure is moved left, % of its width: those at the ends stay inside."""
    return 0 if place < 0.05 else 100 if place > 0.95 else 50


def _data_url(image: NDArray[np.uint8]) -> str:
    _, png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode("ascii")
