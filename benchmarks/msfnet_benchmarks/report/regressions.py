"""Holds a benchmark against the JSON of an earlier one: what got worse, and what cannot be told.

Counts, sizes and errors are the same on every machine, so they decide. Times are not: they are
compared as ratios to something that was timed in the same run, and decide only where the
confidence intervals of the two runs do not touch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.report.report import SCHEMA, BenchmarkReport
from msfnet_benchmarks.tables import format_table
from msfnet_benchmarks.timing.latency import Ratio, ratio_of_medians
from msfnet_runtime import MsfnetError

COUNTS = ("macs", "parameters", "size_bytes")
"""Figures of a row that are the same on every machine."""

_Json = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One figure of one row in both runs; less is better."""

    row: str
    figure: str
    old: float
    new: float
    noisy: bool = False
    """A time: it decides only with the intervals."""
    apart: bool = True
    """The intervals of the two do not touch; true where there is none."""

    @property
    def relative(self) -> float:
        """By which share of the old value the new one is larger."""
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
    """What two runs have in common, and what they have not."""

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
        counted = f"{len(self.worse)} of {len(rows)} figures worse"
        verdict = "passed" if self.passed else "failed"
        lines = [
            format_table(header, rows) if rows else "no figure could be compared",
            *(f"only in the earlier run: {name}" for name in self.missing),
            *(f"new: {name}" for name in self.added),
            *(f"not compared: {note}" for note in self.notes),
            *(f"differs: {difference}" for difference in self.differences),
            f"{verdict}: {counted} by more than {100 * self.tolerance:g} %",
        ]
        return "\n".join(lines)

    def _cells(self, change: Change) -> tuple[str, ...]:
        verdict = change.verdict(self.tolerance)
        if change.noisy:
            verdict += " (noisy)" if change.apart else " (noisy, intervals touch)"
        values = (f"{change.old:.6g}", f"{change.new:.6g}", f"{100 * change.relative:+.2f} %")
        return (change.row, change.figure, *values, verdict)


def compare_with(old: Path, report: BenchmarkReport, tolerance: float) -> Regressions:
    """Compare a report with the JSON of an earlier run, row by row of the same name.

    Args:
        old: the JSON that :meth:`BenchmarkReport.write` or ``to_json`` made.
        report: of this run.
        tolerance: share of its old value by which a figure may get worse, e.g. 0.02.

    Raises:
        MsfnetError: no such file, no JSON of this schema, no row in common, or no tolerance.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise MsfnetError(f"a tolerance of {tolerance:g} is none; give a share such as 0.02")
    before, now = read_report(old), json.loads(report.to_json())
    try:
        return _compare(before, now, tolerance, old)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MsfnetError(
            f"{old} is damaged ({type(error).__name__}: {error}); write it anew with msfnet bench"
        ) from None


def read_report(path: Path) -> dict[str, Any]:
    """Return the JSON of an earlier run.

    Raises:
        MsfnetError: no such file, no JSON, or another schema.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MsfnetError(f"cannot read {path}: {error.strerror}; name a report's JSON") from None
    except ValueError:
        raise MsfnetError(f"{path} is no JSON; name the one beside a report's page") from None
    schema = stored.get("schema") if isinstance(stored, dict) else None
    if schema != SCHEMA:
        raise MsfnetError(
            f"{path} is of schema {schema!r}, not {SCHEMA!r}; write it anew with msfnet bench"
        )
    return dict(stored)


def _compare(before: _Json, now: _Json, tolerance: float, path: Path) -> Regressions:
    old_rows = {row["name"]: row for row in before["rows"]}
    new_rows = {row["name"]: row for row in now["rows"]}
    common = [name for name in new_rows if name in old_rows]
    if not common:
        raise MsfnetError(f"{path} has no model of this run; compare runs of the same files")
    changes: list[Change] = []
    notes: list[str] = []
    for name in common:
        pair = (old_rows[name], new_rows[name])
        changes += [*_counts(*pair, notes), *_errors(before, now, *pair, notes)]
        changes += _times((before, old_rows), (now, new_rows), name, notes)
    return Regressions(
        changes=tuple(changes),
        tolerance=tolerance,
        missing=tuple(name for name in old_rows if name not in new_rows),
        added=tuple(name for name in new_rows if name not in old_rows),
        differences=tuple(_differences(before, now)),
        notes=tuple(notes),
    )


def _differences(before: _Json, now: _Json) -> Iterator[str]:
    """Yield the facts that differ; a fact that one run lacks is one."""
    for fact in ("data", "protocol", "frames", "frame_size", "baseline"):
        if before[fact] != now[fact]:
            yield f"{fact}: {before[fact]}, now {now[fact]}"
    old, new = before["environment"], now["environment"]
    for fact in dict.fromkeys([*old, *new]):
        if old.get(fact) != new.get(fact):
            yield f"{fact}: {old.get(fact, 'none')}, now {new.get(fact, 'none')}"


def _counts(old: _Json, new: _Json, notes: list[str]) -> Iterator[Change]:
    for figure in COUNTS:
        if old[figure] is not None and new[figure] is not None:
            yield Change(new["name"], figure, float(old[figure]), float(new[figure]))
        elif old[figure] is not None:
            notes.append(f"{figure} of {new['name']}: this run does not tell it")


def _errors(
    before: _Json, now: _Json, old: _Json, new: _Json, notes: list[str]
) -> Iterator[Change]:
    """Yield REL where both runs scored the same frames by the same protocol."""
    if old["accuracy"] is None:
        return
    reason = _scored_otherwise(before, now, old["accuracy"], new["accuracy"])
    if reason:
        notes.append(f"REL of {new['name']}: {reason}")
        return
    rels = [accuracy["summary"]["rel"] for accuracy in (old["accuracy"], new["accuracy"])]
    if None in rels:
        notes.append(f"REL of {new['name']}: it is no number in one run")
    else:
        yield Change(new["name"], "REL", float(rels[0]), float(rels[1]))


def _scored_otherwise(before: _Json, now: _Json, old: _Json, new: _Json | None) -> str | None:
    """Return what keeps two errors from being compared."""
    if new is None:
        return "this run did not score it"
    if old["protocol"] != new["protocol"]:
        return f"protocol {old['protocol']}, now {new['protocol']}"
    folders = [Path(str(run["data"])).name for run in (before, now)]
    if folders[0] != folders[1]:
        return f"data {folders[0]}, now {folders[1]}"
    if before["frame_size"] != now["frame_size"]:
        return "frames of another size"
    names = [[score["name"] for score in accuracy["scores"]] for accuracy in (old, new)]
    return None if names[0] == names[1] else "other frames"


def _times(
    before: tuple[_Json, _Json], now: tuple[_Json, _Json], name: str, notes: list[str]
) -> Iterator[Change]:
    """Yield times of a row, as multiples of what was timed beside it."""
    for part, what in (("latency", "end to end"), ("engine_latency", "engine")):
        if before[1][name][part] is None or now[1][name][part] is None:
            continue
        for unit, relative in (("the baseline", _to_baseline), ("the bound", _to_bound)):
            old, new = relative(*before, name, part), relative(*now, name, part)
            if old and new and _same_unit(before, now, name, unit):
                apart = new.low > old.high or new.high < old.low
                figure = f"{what} / {unit}"
                yield Change(name, figure, old.value, new.value, noisy=True, apart=apart)
                break
        else:
            if name not in (before[0]["baseline"], now[0]["baseline"]):
                notes.append(f"{what} of {name}: the runs have no common measure of speed")


def _same_unit(before: tuple[_Json, _Json], now: tuple[_Json, _Json], name: str, unit: str) -> bool:
    """Return whether both runs measured in one unit: the same baseline, or equal products."""
    if unit == "the baseline":
        return bool(before[0]["baseline"] == now[0]["baseline"])
    old, new = (_bound(run, rows[name]) for run, rows in (before, now))
    return all(old[fact] == new[fact] for fact in ("threads", "side"))


def _bound(run: _Json, row: _Json) -> dict[str, Any]:
    return dict(row["flop_bound"] or run["flop_bound"] or {})


def _to_baseline(run: _Json, rows: _Json, name: str, part: str) -> Ratio | None:
    """Return a row's median over the baseline's, from calls that were timed in turns."""
    baseline = run["baseline"]
    if baseline not in rows or baseline == name or rows[baseline][part] is None:
        return None
    ours, theirs = (_calls(rows[row][part]) for row in (name, baseline))
    if not ours.size or ours.shape != theirs.shape:
        return None
    return ratio_of_medians(ours, theirs)


def _to_bound(run: _Json, rows: _Json, name: str, part: str) -> Ratio | None:
    """Return the G multiply-adds that the machine could have done in a row's median call."""
    bound = _bound(run, rows[name])
    if not bound:
        return None
    calls = _calls(rows[name][part])
    if not calls.size:
        return None
    return ratio_of_medians(calls, np.full(calls.shape, 1e3 / bound["gmacs_per_s"]))


def _calls(latency: _Json) -> NDArray[np.float64]:
    return np.asarray([ms for taken in latency["samples_ms"] for ms in taken], np.float64)
