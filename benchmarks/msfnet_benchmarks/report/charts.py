"""Common parts of a report's charts: colours, labels, layout, and bars that lie on their side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from msfnet_benchmarks.report.report import BenchmarkReport, BenchmarkRow
from msfnet_benchmarks.report.tables import shorten
from msfnet_runtime.libraries import require

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#4d4d4d", "#b8a900")
"""Told apart by colour-blind readers (Okabe and Ito 2008), the yellow darkened for white paper."""

DASHES = ("solid", "dash", "dot", "dashdot")
"""Told apart without any colour."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")

_LABEL = 26
"""Characters of a name on an axis: narrow screens have room for no more."""

_CONFIG = {
    "displaylogo": False,
    "responsive": True,
    # On by default, the button uploads the chart's data to plotly's servers.
    "showSendToCloud": False,
}


@dataclass(frozen=True)
class Chart:
    """One section of the page."""

    key: str
    """The chart's anchor on the page."""
    title: str
    note: str
    """How to read it, in a sentence or two."""
    figure: Any
    height: int = 400
    """Pixels."""

    def html(self) -> str:
        """Return the chart as a part of a page that holds plotly's script."""
        self.figure.update_layout(
            template="plotly_white",
            height=self.height,
            margin={"l": 10, "r": 16, "t": 30, "b": 10},
            font={"family": "system-ui, sans-serif", "size": 13, "color": "#1d2430"},
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            hoverlabel={"namelength": -1},
            modebar={"orientation": "v", "bgcolor": "rgba(0,0,0,0)"},
        )
        self.figure.update_xaxes(automargin=True)
        self.figure.update_yaxes(automargin=True)
        text: str = self.figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            config=_CONFIG,
            div_id=f"chart-{self.key}",
            default_width="100%",
        )
        return text


def plotly() -> Any:
    """Return plotly, imported when a page is made.

    Raises:
        MsfnetError: it is missing, or does not load.
    """
    require("plotly")
    import plotly.graph_objects
    import plotly.offline

    return plotly


def new_figure() -> Any:
    """Return an empty figure."""
    return plotly().graph_objects.Figure()


def colour(index: int) -> str:
    """Return the colour of the model or part of this index."""
    return COLOURS[index % len(COLOURS)]


def verbatim(name: str) -> str:
    """Return a name as plotly shows it unchanged: it reads tags and entities in text."""
    return escape(name, quote=False)


def labelled(report: BenchmarkReport) -> list[tuple[str, BenchmarkRow]]:
    """Return the rows with their names as axes have room for them, no two alike."""
    names = shorten([row.name for row in report.rows], _LABEL)
    return [(verbatim(name), row) for name, row in zip(names, report.rows, strict=True)]


def marker(index: int, size: int = 9) -> dict[str, Any]:
    """Return the mark of the model of this index."""
    return {"color": colour(index), "symbol": SYMBOLS[index % len(SYMBOLS)], "size": size}


def few(value: float) -> str:
    """Return three digits of a figure, for the text on a bar."""
    return f"{value:.3g}" if abs(value) < 1e3 else f"{value:.0f}"


def bar_chart(
    key: str,
    title: str,
    note: str,
    parts: Mapping[str, Mapping[str, float]],
    unit: str,
    *,
    stacked: bool = False,
    text: Callable[[float], str] = few,
) -> Chart | None:
    """Return bars that lie on their side, the first label on top; None where there is no figure.

    Args:
        key: the chart's anchor.
        title: its heading.
        note: how to read it.
        parts: lengths of the bars by label, for each part.
        unit: the axis's title.
        stacked: the parts of a label stand one behind the other, not below one another.
        text: returns the text that stands on a bar.
    """
    parts = {name: lengths for name, lengths in parts.items() if lengths}
    if not parts:
        return None
    figure = new_figure()
    for index, (name, lengths) in enumerate(parts.items()):
        figure.add_bar(
            name=verbatim(name),
            orientation="h",
            x=list(lengths.values()),
            y=list(lengths),
            text=[text(length) for length in lengths.values()],
            textposition="inside" if stacked else "auto",
            textangle=0,
            constraintext="both" if stacked else "none",
            cliponaxis=False,
            marker_color=colour(index),
            hovertemplate=f"%{{y}}<br>{verbatim(name)}: %{{x:.4g}}<extra></extra>",
        )
    figure.update_layout(barmode="stack" if stacked else "group", bargap=0.25)
    figure.update_layout(legend_traceorder="normal", uniformtext={"minsize": 9, "mode": "hide"})
    figure.update_layout(showlegend=len(parts) > 1)
    figure.update_xaxes(title=unit, rangemode="tozero")
    figure.update_yaxes(autorange="reversed", type="category", ticklabelstandoff=4)
    labels = len({label for lengths in parts.values() for label in lengths})
    each = 34 if stacked else max(34, 22 * len(parts) + 12)
    legend = 10 * len(parts) if stacked else 0
    return Chart(key, title, note, figure, 130 + labels * each + legend)
