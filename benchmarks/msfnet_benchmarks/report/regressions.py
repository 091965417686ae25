"""Compares a benchmark with an earlier one: what got worse, and what cannot be compared.

Counts, sizes and errors are the same on every machine, so they are compared directly. Times are
not: they are compared as ratios to something that was timed in the same run, and count as a change
only where the confidence intervals of the two runs do not touch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.report.report import SCHEMA, BenchmarkReport, BenchmarkRow
from msfnet_benchmarks.report.tables import Table
from msfnet_benchmarks.scoring.accuracy import AccuracyReport
from msfnet_benchmarks.timing.core import Ratio, Summary, ratio_of_medians
from msfnet_benchmarks.timing.costs import FlopBound
from msfnet_runtime import MsfnetError
from msfnet_runtime.typed import build, read_json
from msfnet_runtime.words import counted

COUNTS = ("macs", "parameters", "size_bytes")
"""Figures of a row that are the same on every machine."""

Part = Literal["latency", "engine_latency"]


@dataclass(frozen=True)
class Change:
    """One figure of one row in both runs; less is better."""

    row: str
    figure: str
    old: float
    new: float
    noisy: bool = False
    """A time: it counts only where the intervals are apart."""
    apart: bool = True
    """The intervals of the two do not touch; true where there is none."""

    @property
    def relative(self) -> float:
        """The share of the old value by which the new one is larger."""
        if self.old == 0:
            return 0.0 if self.new == 0 else math.inf
        return self.new / self.old - 1

    def verdict(self, tolerance: float) -> str:
        """Return ``worse``, ``better`` or ``same``."""
        if not self.apart or abs(self.relative) <= tolerance:
            return "same"
        return "worse" if self.relative > 0 else "better"


@dataclass(frozen=True)
class Regressions:
    """The comparison of two runs: changed figures, missing rows and new rows."""

    changes: tuple[Change, ...]
    tolerance: float
    missing: tuple[str, ...]
    """Rows that only the earlier run has."""
    added: tuple[str, ...]
    """Rows that only this run has."""
    differences: tuple[str, ...]
    """Facts of the environment and the run that differ, with both values."""
    notes: tuple[str, ...]
    """What was not compared, and why."""

    @property
    def worse(self) -> tuple[Change, ...]:
        """The changes for the worse beyond the tolerance."""
        return tuple(c for c in self.changes if c.verdict(self.tolerance) == "worse")

    @property
    def passed(self) -> bool:
        """Whether nothing got worse; rows that are missing or new are named, and do not fail."""
        return not self.worse

    def text(self) -> str:
        """Return a table of all that was compared, then what was not."""
        header = ("model", "figure", "before", "now", "change", "verdict")
        rows = [self._cells(change) for change in self.changes]
        worse = f"{len(self.worse)} of {counted(len(rows), 'figure')} worse"
        verdict = "passed" if self.passed else "failed"
        lines = [
            Table("", header, tuple(rows)).text() if rows else "no figure could be compared",
            *(f"only in the earlier run: {name}" for name in self.missing),
            *(f"new: {name}" for name in self.added),
            *(f"not compared: {note}" for note in self.notes),
            *(f"differs: {difference}" for difference in self.differences),
            f"{verdict}: {worse} by more than {100 * self.tolerance:g} %",
        ]
        return "\n".join(lines)

    def _cells(self, change: Change) -> tuple[str, ...]:
        verdict = change.verdict(self.tolerance)
        if change.noisy:
            verdict += " (noisy)" if change.apart else " (noisy, intervals touch)"
        values = (_figure(change.old), _figure(change.new), f"{100 * change.relative:+.2f} %")
        return (change.row, change.figure, *values, verdict)


def _figure(value: float) -> str:
    """Return a figure with at most six digits, counts from 100,000 on in millions."""
    return f"{value / 1e6:.3f} M" if value >= 1e5 else f"{value:.6g}"


def compare_with(old: Path, report: BenchmarkReport, tolerance: float) -> Regressions:
    """Compare a report with the JSON of an earlier run, row by row of the same name.

    Args:
        old: a report's JSON.
        report: of this run.
        tolerance: share of its old value by which a figure may get worse, for example 0.02.

    Raises:
        MsfnetError: no such file, no JSON of this schema, no row in common, or no tolerance.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise MsfnetError(f"{tolerance:g} is not a valid tolerance; pass a share such as 0.02")
    before = _Run(read_report(old))
    now = _Run(report)
    common = [name for name in now.rows if name in before.rows]
    if not common:
        raise MsfnetError(f"{old} has no model of this run; compare runs of the same files")
    changes: list[Change] = []
    notes: list[str] = []
    for name in common:
        changes += _counts(before.rows[name], now.rows[name], notes)
        changes += _errors(before, now, name, notes)
        changes += _times(before, now, name, notes)
    return Regressions(
        changes=tuple(changes),
        tolerance=tolerance,
        missing=tuple(name for name in before.rows if name not in now.rows),
        added=tuple(name for name in now.rows if name not in before.rows),
        differences=tuple(_differences(before.report, report)),
        notes=tuple(notes),
    )


def read_report(path: Path) -> BenchmarkReport:
    """Return the report of an earlier run from its JSON.

    Raises:
        MsfnetError: no such file, no JSON, another schema, or a field that does not fit.
    """
    values = read_json(path, Any)
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != SCHEMA:
        raise MsfnetError(
            f"{path} has the schema {schema!r}, not {SCHEMA!r}; write it again with msfnet bench"
        )
    return build(BenchmarkReport, values, str(path))


class _Run:
    """A report and its rows by name."""

    def __init__(self, report: BenchmarkReport) -> None:
        self.report = report
        self.rows = {row.name: row for row in report.rows}

    def bound(self, name: str) -> FlopBound | None:
        """Return the bound that counts for a row."""
        return self.rows[name].flop_bound or self.report.flop_bound

    def to_baseline(self, name: str, part: Part) -> Ratio | None:
        """Return a row's median over the baseline's, from calls that were timed in turns."""
        baseline = self.report.baseline
        if baseline is None or baseline == name or baseline not in self.rows:
            return None
        ours, theirs = (_calls(_latency(self.rows[row], part)) for row in (name, baseline))
        return ratio_of_medians(ours, theirs) if ours.size and ours.shape == theirs.shape else None

    def to_bound(self, name: str, part: Part) -> Ratio | None:
        """Return the GMAC that the machine could have done in a row's median call."""
        bound, calls = self.bound(name), _calls(_latency(self.rows[name], part))
        if bound is None or not calls.size:
            return None
        return ratio_of_medians(calls, np.full(calls.shape, 1e3 / bound.gmacs_per_s))


def _differences(before: BenchmarkReport, now: BenchmarkReport) -> Iterator[str]:
    """Yield the facts that differ, those that one run lacks included."""
    for fact in ("data", "protocol", "frames", "frame_size", "baseline"):
        if getattr(before, fact) != getattr(now, fact):
            yield f"{fact}: {getattr(before, fact) or 'none'}, now {getattr(now, fact) or 'none'}"
    old, new = before.environment, now.environment
    for fact in dict.fromkeys([*old, *new]):
        if old.get(fact) != new.get(fact):
            yield f"{fact}: {old.get(fact, 'none')}, now {new.get(fact, 'none')}"


def _counts(old: BenchmarkRow, new: BenchmarkRow, notes: list[str]) -> Iterator[Change]:
    for figure in COUNTS:
        before, now = getattr(old, figure), getattr(new, figure)
        if before is not None and now is not None:
            yield Change(new.name, figure, float(before), float(now))
        elif before is not None:
            notes.append(f"{figure} of {new.name}: this run does not have it")


def _errors(before: _Run, now: _Run, name: str, notes: list[str]) -> Iterator[Change]:
    """Yield REL where both runs scored the same frames by the same protocol."""
    old, new = before.rows[name].accuracy, now.rows[name].accuracy
    if old is None:
        return
    if new is None:
        notes.append(f"REL of {name}: this run did not score it")
    elif reason := _scored_otherwise(before.report, now.report, old, new):
        notes.append(f"REL of {name}: {reason}")
    elif math.isfinite(old.summary.rel) and math.isfinite(new.summary.rel):
        yield Change(name, "REL", old.summary.rel, new.summary.rel)
    else:
        notes.append(f"REL of {name}: it is not a number in one run")


def _scored_otherwise(
    before: BenchmarkReport, now: BenchmarkReport, old: AccuracyReport, new: AccuracyReport
) -> str | None:
    """Return the reason why two errors cannot be compared; None where they can."""
    if old.protocol != new.protocol:
        return f"protocol {old.protocol}, now {new.protocol}"
    folders = [Path(str(run.data)).name for run in (before, now)]
    if folders[0] != folders[1]:
        return f"data {folders[0]}, now {folders[1]}"
    if before.frame_size != now.frame_size:
        return "frames of another size"
    names = [[score.name for score in accuracy.scores] for accuracy in (old, new)]
    return None if names[0] == names[1] else "other frames"


def _times(before: _Run, now: _Run, name: str, notes: list[str]) -> Iterator[Change]:
    """Yield times of a row, as multiples of what was timed beside it."""
    parts: tuple[tuple[Part, str], ...] = (
        ("latency", "end to end"),
        ("engine_latency", "engine"),
    )
    same_baseline = before.report.baseline == now.report.baseline
    bounds = [run.bound(name) for run in (before, now)]
    same_product = len({(b.threads, b.side) if b else None for b in bounds}) == 1
    for part, what in parts:
        if any(_latency(run.rows[name], part) is None for run in (before, now)):
            continue
        ratios = (
            ("the baseline", same_baseline, [r.to_baseline(name, part) for r in (before, now)]),
            ("the bound", same_product, [r.to_bound(name, part) for r in (before, now)]),
        )
        for unit, same, (old, new) in ratios:
            if old and new and same:
                apart = new.low > old.high or new.high < old.low
                figure = f"{what} / {unit}"
                yield Change(name, figure, old.value, new.value, noisy=True, apart=apart)
                break
        else:
            if name not in (before.report.baseline, now.report.baseline):
                notes.append(f"{what} of {name}: the runs have no common measure of speed")


def _latency(row: BenchmarkRow, part: Part) -> Summary | None:
    return row.latency if part == "latency" else row.engine_latency


def _calls(latency: Summary | None) -> NDArray[np.float64]:
    return np.asarray(latency.samples_ms if latency else (), np.float64)
