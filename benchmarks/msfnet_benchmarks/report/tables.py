"""The tables of a comparison, as plain text for terminals and as Markdown for a pull request."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msfnet_benchmarks.report.report import BenchmarkReport, BenchmarkRow
from msfnet_benchmarks.scoring.parity import AGREEMENT
from msfnet_benchmarks.tables import format_table
from msfnet_benchmarks.timing.core import Ratio, Summary
from msfnet_runtime.words import counted

TABLE_WIDTH = 100
"""Columns of a terminal that the tables fit into, by shortening names where they must."""

_LEAST_NAME = 24
"""Characters that a name keeps at least, where it has as many."""

_NONE = "-"


@dataclass(frozen=True)
class Table:
    """A heading, column names, and a line for every model that begins with its name."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        """Return it aligned: names are shortened until it fits a terminal, columns that have no
        room beside them follow in a further table."""
        columns = list(zip(self.header, *self.rows, strict=True))
        widths = [max(map(len, column)) + 2 for column in columns]
        room = max(TABLE_WIDTH - sum(widths[1:]), _LEAST_NAME)
        names = (self.header[0], *shorten(columns[0][1:], room))
        parts, used = [[names]], TABLE_WIDTH
        for column, width in zip(columns[1:], widths[1:], strict=True):
            if used + width > TABLE_WIDTH:
                parts, used = [*parts, [names]], max(map(len, names))
            parts[-1].append(column)
            used += width
        lines = [list(zip(*part, strict=True)) for part in parts[1:] or parts]
        return "\n\n".join(format_table(header, rows) for header, *rows in lines)

    def markdown(self) -> str:
        """Return it as GitHub's Markdown, figures to the right."""
        rule = ("---", *["---:"] * (len(self.header) - 1))
        lines = (self.header, rule, *self.rows)
        return "\n".join(f"| {' | '.join(map(_verbatim, line))} |" for line in lines)


Column = tuple[str, Callable[[BenchmarkRow], str]]
"""A heading, and the cell of a row under it."""


def tables(report: BenchmarkReport) -> list[Table]:
    """Return every table that has a figure, the comparison itself first."""
    found = [
        _table(report, "Comparison", _comparison(report)),
        _table(report, "Depth", _depth(report)),
        _table(report, "Latency", _latency(report)),
        _table(report, "Cost", _cost(report)),
        _table(report, "Time by stage, median ms", _stages(report)),
    ]
    return [table for index, table in enumerate(found) if not index or len(table.header) > 1]


def warnings(report: BenchmarkReport) -> list[str]:
    """Return a line for every figure that should not be trusted, with the reason."""
    scored = [(row.name, row.accuracy.warnings) for row in report.rows if row.accuracy]
    shared = set(scored[0][1]).intersection(*(found for _, found in scored)) if scored else set()
    return [
        *(f"warning: {line}" for line in (scored[0][1] if scored else ()) if line in shared),
        *(f"warning: {n}: {line}" for n, found in scored for line in found if line not in shared),
        *_unstable(report),
    ]


def _unstable(report: BenchmarkReport) -> list[str]:
    return [
        f"unstable: {row.name}, {what}: {latency.unstable}"
        for row in report.rows
        for what, latency in (("end to end", row.latency), ("engine", row.engine_latency))
        if latency and latency.unstable
    ]


def text(report: BenchmarkReport) -> str:
    """Return the comparison as plain text that names protocol and frames."""
    first, *others = tables(report)
    parts = [first.text(), *(f"{table.title}\n{table.text()}" for table in others)]
    notes = [*warnings(report), *([legend(report)] if legend(report) else [])]
    wrapped = [line for note in notes for line in textwrap.wrap(note, TABLE_WIDTH)]
    return "\n".join([*heading(report), "\n\n".join(parts), *wrapped])


def markdown(report: BenchmarkReport) -> str:
    """Return the comparison for a pull request: tables, notes, the environment folded away."""
    first, *others = tables(report)
    facts = Table("", ("fact", "value"), (*run_facts(report), *report.environment.items()))
    parts = [
        f"### {_verbatim(report.title)}",
        f"{_verbatim('. '.join(heading(report)))}.",
        first.markdown(),
        *(f"**{table.title}**\n\n{table.markdown()}" for table in others),
        "\n".join(f"- {_verbatim(note)}" for note in (*warnings(report), legend(report)) if note),
        report.what_is_timed,
        f"<details><summary>Environment</summary>\n\n{facts.markdown()}\n\n</details>",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def heading(report: BenchmarkReport) -> list[str]:
    """Return a line of frames, protocol and the measured bound, then one of what was scored."""
    scored = f", scored by {report.protocol}" if report.protocol else ""
    bound = report.flop_bound
    rate = f", bound {bound.gmacs_per_s:.0f} GMAC/s" if bound else ""
    data = scored_data(report)
    return [f"{_frames(report)}{scored}{rate}", *([f"Data: {data}"] if data else [])]


def run_facts(report: BenchmarkReport) -> list[tuple[str, str]]:
    """Return the facts of the run: when, on what frames, by which engines."""
    return [
        ("created", report.created),
        ("frames", _frames(report)),
        ("data", scored_data(report) or report.data or "generated"),
        ("protocol", report.protocol or "none"),
        *(
            (f"file of {row.name}", row.accuracy.model.text())
            for row in report.rows
            if row.accuracy and row.accuracy.model
        ),
        *((f"engine of {row.name}", row.engine) for row in report.rows if row.engine),
    ]


def scored_data(report: BenchmarkReport) -> str:
    """Return the data set and its list as text; empty where nothing was scored."""
    found = [row.accuracy.data for row in report.rows if row.accuracy and row.accuracy.data]
    return found[0].text() if found else ""


def constant_rel(report: BenchmarkReport) -> str:
    """Return the REL of the best constant depth as text; empty where nothing was scored."""
    found = [row.accuracy.constant for row in report.rows if row.accuracy and row.accuracy.constant]
    return found[0].text() if found else ""


def stage_names(report: BenchmarkReport) -> list[str]:
    """Return the stages that any row was timed by, in the order of a stream."""
    return list(dict.fromkeys(name for row in report.rows for name in row.stages))


def latency_text(report: BenchmarkReport) -> str:
    """Return the view of ``msfnet latency``: each tool's stages, then both side by side."""
    parts = [f"{_settings(row)}\n{_percentiles(row)}" for row in report.rows]
    if all(row.device_run is None for row in report.rows):
        parts.append(
            "Stages on the device (H2D, GPU compute, D2H) are timed for TensorRT engines only."
        )
    if len(report.rows) > 1:
        parts.append(_side_by_side(*report.rows))
    return "\n\n".join(parts)


def legend(report: BenchmarkReport) -> str:
    """Return the meaning of the headings, with their units, in one line."""
    shown = {name for table in tables(report) for name in table.header}
    meanings = {
        "p50": "p50 to p99: ms per frame, end to end",
        "engine": "engine: median ms from batch to answer",
        "bound": "bound: share of the measured FLOP bound that the engine reaches",
        "start s": "start: process start to first depth",
        "host MB": "host MB: largest resident memory",
        "RMSE m": "RMSE: mean over images, m; pooled: root of the mean of their squares",
    }
    found = [meaning for name, meaning in meanings.items() if name in shown]
    if constant := constant_rel(report):
        found.append(f"REL for comparison: {constant}")
    if report.baseline and shown & {"speed-up", "p99 diff"}:
        found.append(
            f"speed-up (95 % interval) and relative differences: against {report.baseline}"
        )
    return "; ".join(found)


def shorten(names: Sequence[str], width: int) -> list[str]:
    """Cut the middle out of names that are too long; those that would be alike are numbered."""

    def cut(name: str, room: int) -> str:
        head, tail = (room - 1) // 2, room // 2
        return name if len(name) <= room else f"{name[:head]}…{name[len(name) - tail :]}"

    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        alike.setdefault(cut(name, width), []).append(name)
    found = []
    for name in names:
        same = alike[cut(name, width)]
        number = f" #{same.index(name) + 1}" if len(same) > 1 else ""
        found.append(f"{cut(name, width - len(number))}{number}")
    return found


def milliseconds(value: float) -> str:
    """Return a time with three or four digits."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1e3 else f"{value:.0f}"


def _frames(report: BenchmarkReport) -> str:
    """Return the input of the models, as text."""
    if not report.swept:
        return f"{counted(report.frames, 'frame')} of {report.frame_size[0]}x{report.frame_size[1]}"
    calls = f"{counted(report.frames, 'call')} a point, random input"
    return calls if report.frames else "counts only"


def _settings(row: BenchmarkRow) -> str:
    """Return how a row's stages were timed; figures of other settings cannot be compared."""
    run, (rate,) = row.device_run, row.throughput
    calls = next(iter(row.stages.values())).calls
    how = "from batch to answer"
    if run is not None:
        graph, copies = ("with" if on else "without" for on in (run.cuda_graph, run.transfers))
        how = f"{graph} CUDA graph, {copies} transfers"
    overlapped = "overlapped" if run and run.overlapped else "one by one"
    runs_per_s = rate.images_per_s / rate.batch
    images = f" of {rate.batch} images" if rate.batch > 1 else ""
    per_s = f", {rate.images_per_s:.1f} images/s" if rate.batch > 1 else ""
    return (
        f"{row.engine}: {how}, {counted(calls, 'run')}{images}, {runs_per_s:.1f} runs/s "
        f"{overlapped}{per_s}"
    )


def _percentiles(row: BenchmarkRow) -> str:
    """Return a table of milliseconds, a line for each stage."""
    fields = ("mean", "p50", "p90", "p95", "p99")
    lines = [
        [name, *(f"{getattr(stage, f'{field}_ms'):.3f}" for field in fields)]
        for name, stage in row.stages.items()
    ]
    return format_table(["ms", *fields], lines)


def _side_by_side(ours: BenchmarkRow, theirs: BenchmarkRow) -> str:
    """Return both settings, and the stages that both tools timed, with ours over theirs."""
    rows = []
    for name, mine in ours.stages.items():
        if other := theirs.stages.get(name):
            pairs = ((mine.p50_ms, other.p50_ms), (mine.p99_ms, other.p99_ms))
            rows.append([name, *(cell for pair in pairs for cell in _compared(*pair))])
    header = ["ms", "p50", "theirs", "ratio", "p99", "theirs", "ratio"]
    lines = [_settings(ours), _settings(theirs), format_table(header, rows)]
    one, other_run = ours.device_run, theirs.device_run
    if not (one and other_run) or (one.cuda_graph, one.transfers) != (
        other_run.cuda_graph,
        other_run.transfers,
    ):
        lines.append("The two were not measured with the same settings: do not compare them.")
    return "\n".join(lines)


def _compared(mine: float, other: float) -> tuple[str, str, str]:
    return f"{mine:.3f}", f"{other:.3f}", f"{mine / other:.2f}" if other > 0 else "-"


def _table(report: BenchmarkReport, title: str, columns: Sequence[Column]) -> Table:
    """Return a table of the columns in which some row has a figure."""
    filled = [(n, cell) for n, cell in columns if any(cell(row) != _NONE for row in report.rows)]
    return Table(
        title,
        ("model", *(name for name, _ in filled)),
        tuple((row.name, *(cell(row) for _, cell in filled)) for row in report.rows),
    )


def _comparison(report: BenchmarkReport) -> list[Column]:
    return [
        ("type", lambda row: row.precision),
        ("MB", lambda row: f"{row.size_bytes / 1e6:.1f}"),
        ("p50", lambda row: _time(row.latency, "p50_ms")),
        ("p99", lambda row: _time(row.latency, "p99_ms")),
        ("engine", lambda row: _time(row.engine_latency, "p50_ms")),
        ("speed-up", lambda row: _ratio(row.speedup) if report.baseline else _NONE),
        ("bound", lambda row: _share(report.bound_share(row))),
        ("REL", lambda row: f"{row.accuracy.summary.rel:.4f}" if row.accuracy else _NONE),
        ("d1", lambda row: f"{row.accuracy.summary.delta1:.4f}" if row.accuracy else _NONE),
    ]


def _depth(report: BenchmarkReport) -> list[Column]:
    """Return errors against ground truth beside differences from the baseline."""

    def error(name: str) -> Callable[[BenchmarkRow], str]:
        return lambda row: f"{getattr(row.accuracy.summary, name):.4f}" if row.accuracy else _NONE

    def difference(name: str) -> Callable[[BenchmarkRow], str]:
        return lambda row: f"{getattr(row.parity, name):.1e}" if row.parity else _NONE

    return [
        *(("RMSE m", error("rmse")), ("pooled", error("rmse_pooled"))),
        ("d2", error("delta2")),
        *(("p50 diff", difference("p50")), ("p99 diff", difference("p99"))),
        ("p99.9 diff", difference("p999")),
        (f"d<{AGREEMENT}", lambda row: f"{row.parity.agreement:.4f}" if row.parity else _NONE),
    ]


def _latency(report: BenchmarkReport) -> list[Column]:
    return [
        ("p90", lambda row: _time(row.latency, "p90_ms")),
        ("mean", lambda row: _time(row.latency, "mean_ms")),
        ("fps", lambda row: _time(row.latency, "calls_per_s")),
        ("engine p90", lambda row: _time(row.engine_latency, "p90_ms")),
        ("engine p99", lambda row: _time(row.engine_latency, "p99_ms")),
        *(
            (f"img/s x{batch}", _rate(batch))
            for batch in sorted({t.batch for row in report.rows for t in row.throughput})[:5]
        ),
    ]


def _cost(report: BenchmarkReport) -> list[Column]:
    def start(name: str, unit: float, digits: int) -> Callable[[BenchmarkRow], str]:
        return lambda row: _number(row.cold_start, name, unit, digits)

    return [
        ("GMAC", lambda row: _number(row, "macs", 1e9, 2)),
        ("Mparam", lambda row: _number(row, "parameters", 1e6, 2)),
        ("start s", start("first_depth_s", 1.0, 2)),
        ("host MB", start("peak_bytes", 1e6, 0)),
        ("GPU MB", lambda row: _number(row, "device_bytes", 1e6, 0)),
        ("J/frame", lambda row: _number(row.energy, "joules_per_frame", 1.0, 3)),
        ("W", lambda row: _number(row.energy, "watts", 1.0, 0)),
    ]


def _stages(report: BenchmarkReport) -> list[Column]:
    def median(name: str) -> Callable[[BenchmarkRow], str]:
        return lambda row: milliseconds(row.stages[name].p50_ms) if name in row.stages else _NONE

    return [(name, median(name)) for name in stage_names(report)]


def _rate(batch: int) -> Callable[[BenchmarkRow], str]:
    def cell(row: BenchmarkRow) -> str:
        rates = [rate.images_per_s for rate in row.throughput if rate.batch == batch]
        return f"{rates[0]:.1f}" if rates else _NONE

    return cell


def _number(holder: object, name: str, unit: float, digits: int) -> str:
    """Return a figure in its unit; a dash where the holder or the figure is None."""
    value = getattr(holder, name, None)
    return _NONE if value is None else f"{value / unit:.{digits}f}"


def _time(latency: Summary | None, name: str) -> str:
    if latency is None:
        return _NONE
    flag = "!" if name == "p50_ms" and latency.unstable else ""
    return f"{milliseconds(getattr(latency, name))}{flag}"


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return _NONE
    interval = f" ({ratio.low:.2f}-{ratio.high:.2f})" if ratio.low != ratio.high else ""
    return f"{ratio.value:.2f}x{interval}"


def _share(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.0f} %"


def _verbatim(cell: str) -> str:
    """Escape text so that Markdown shows it unchanged: no tags, emphasis or further columns."""
    escaped = cell.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in ("\\", "|", "*", "_", "`", "[", "]"):
        escaped = escaped.replace(mark, f"\\{mark}")
    return " ".join(escaped.split())
