from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msfnet_benchmarks.report.regressions import Change, compare_with
from msfnet_benchmarks.report.report import BenchmarkReport, BenchmarkRow
from msfnet_runtime import MsfnetError
from msfnet_runtime.typed import to_json
from tests.benchmarks.report.full_report import MEDIANS_MS, NAMES, full_report, latency

ONNX = NAMES[1]


@pytest.fixture
def report() -> BenchmarkReport:
    """Return four models and a peer."""
    return full_report()


@pytest.fixture
def old(report: BenchmarkReport, tmp_path: Path) -> Path:
    """Return the JSON of an earlier run of the same report."""
    path = tmp_path / "old.json"
    path.write_text(to_json(report))
    return path


def changed(
    report: BenchmarkReport, name: str, change: Callable[[BenchmarkRow], BenchmarkRow]
) -> BenchmarkReport:
    """Return the report with one row changed."""
    rows = tuple(change(row) if row.name == name else row for row in report.rows)
    return replace(report, rows=rows)


def slower(factor: float, seed: int = 1) -> Callable[[BenchmarkRow], BenchmarkRow]:
    """Return what makes a row's calls take longer, end to end."""
    return lambda row: replace(
        row, latency=latency(row.name, factor * MEDIANS_MS[NAMES.index(row.name)], seed)
    )


def test_the_same_run_passes(report: BenchmarkReport, old: Path) -> None:
    """Nothing changed, nothing missing, nothing differs."""
    found = compare_with(old, report, 0.0)

    assert found.passed
    assert {change.relative for change in found.changes} == {0.0}
    assert (found.missing, found.added, found.differences) == ((), (), ())
    assert "passed: 0 of" in found.text()


@pytest.mark.parametrize("figure", ["macs", "parameters", "size_bytes"])
def test_counts_and_sizes_fail_beyond_the_tolerance(
    report: BenchmarkReport, old: Path, figure: str
) -> None:
    """Three per cent more fails at two, passes at four; less is better."""

    def scaled(factor: float) -> BenchmarkReport:
        def grown(row: BenchmarkRow) -> BenchmarkRow:
            more: dict[str, Any] = {figure: int(getattr(row, figure) * factor)}
            return replace(row, **more)

        return changed(report, ONNX, grown)

    found = compare_with(old, scaled(1.03), 0.02)
    assert [(c.row, c.figure) for c in found.worse] == [(ONNX, figure)]
    assert found.worse[0].relative == pytest.approx(0.03, abs=1e-6)
    assert f"{figure}" in found.text()
    assert "failed: 1 of" in found.text()
    assert compare_with(old, scaled(1.03), 0.04).passed
    assert compare_with(old, scaled(0.5), 0.0).passed


def test_depth_error_is_compared_on_the_same_frames_only(
    report: BenchmarkReport, old: Path
) -> None:
    """REL of other data, frames or protocols says nothing, and that is said."""

    def worse(row: BenchmarkRow) -> BenchmarkRow:
        assert row.accuracy is not None
        summary = replace(row.accuracy.summary, rel=1.1 * row.accuracy.summary.rel)
        return replace(row, accuracy=replace(row.accuracy, summary=summary))

    now = changed(report, ONNX, worse)
    found = compare_with(old, now, 0.05)
    assert [(c.row, c.figure) for c in found.worse] == [(ONNX, "REL")]
    assert found.worse[0].relative == pytest.approx(0.1)

    elsewhere = compare_with(old, replace(now, data="data/other"), 0.05)
    assert elsewhere.passed
    assert f"REL of {ONNX}: data nyu_mini, now other" in elsewhere.notes
    assert "data: data/nyu_mini, now data/other" in elsewhere.differences
    moved = compare_with(old, replace(now, data="/elsewhere/nyu_mini"), 0.05)
    assert not moved.passed


def test_times_fail_only_where_intervals_part_and_the_tolerance_is_passed(
    report: BenchmarkReport, old: Path
) -> None:
    """Half as fast again fails; two per cent lie within the noise of sixty calls."""
    slow = compare_with(old, changed(report, ONNX, slower(1.5)), 0.1)
    noise = compare_with(old, changed(report, ONNX, slower(1.02, seed=77)), 0.0)

    assert [(c.row, c.figure) for c in slow.worse] == [(ONNX, "end to end / the baseline")]
    assert slow.worse[0].relative == pytest.approx(0.5, abs=1e-9)
    assert "worse (noisy)" in slow.text()
    assert noise.passed
    assert "same (noisy, intervals touch)" in noise.text()
    assert compare_with(old, changed(report, ONNX, slower(1.5)), 0.6).passed


def test_a_slower_machine_is_no_regression(report: BenchmarkReport, old: Path) -> None:
    """All models take twice as long, the baseline and the matrix product too."""
    rows = []
    for place, row in enumerate(report.rows):
        inner = row.engine_latency
        assert inner is not None
        twice = tuple(tuple(2 * ms for ms in taken) for taken in inner.samples_ms)
        rows.append(replace(row, engine_latency=replace(inner, samples_ms=twice)))
        if place < len(MEDIANS_MS):
            rows[-1] = slower(2.0, seed=place)(rows[-1])
    assert report.flop_bound is not None
    bound = replace(report.flop_bound, gmacs_per_s=45.0)

    found = compare_with(old, replace(report, rows=tuple(rows), flop_bound=bound), 0.001)

    assert found.passed
    assert len([change for change in found.changes if change.noisy]) >= 7


def test_without_a_baseline_engines_are_held_against_the_bound(
    report: BenchmarkReport, tmp_path: Path
) -> None:
    """Without either, the runs have no common measure, and that is said."""
    alone = replace(report, baseline=None)
    path = tmp_path / "alone.json"
    path.write_text(to_json(alone))
    figures = {change.figure for change in compare_with(path, alone, 0.1).changes if change.noisy}
    unbound = compare_with(path, replace(alone, flop_bound=None), 0.1)

    assert figures == {"end to end / the bound", "engine / the bound"}
    assert not [change for change in unbound.changes if change.noisy]
    assert f"engine of {ONNX}: the runs have no common measure of speed" in unbound.notes


def test_rows_that_are_missing_or_new_are_named(report: BenchmarkReport, old: Path) -> None:
    """Neither passes in silence."""
    first, second, *others = report.rows
    renamed = replace(report, rows=(first, replace(second, name="new.onnx"), *others))
    found = compare_with(old, renamed, 0.1)

    assert (found.missing, found.added) == ((ONNX,), ("new.onnx",))
    assert f"only in the earlier run: {ONNX}" in found.text()
    assert "new: new.onnx" in found.text()


def test_facts_of_the_environment_that_differ_are_named(report: BenchmarkReport, old: Path) -> None:
    """A changed value, a fact that is gone, and a new one."""
    now = replace(report, environment={"processor": "another", "cores": "2", "GPU": "H200"})
    lines = compare_with(old, now, 0.1).text().splitlines()

    assert "differs: processor: a processor, now another" in lines
    assert "differs: numpy: 2.0, now none" in lines
    assert "differs: GPU: none, now H200" in lines
    assert not [line for line in lines if line.startswith("differs: cores")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot read"),
        ("<html>", "is not JSON"),
        ("[]", "schema None"),
        ('{"schema": "msfnet-bench/1"}', "schema 'msfnet-bench/1', not 'msfnet-bench/3'"),
        ('{"schema": "msfnet-bench/3"}', "title is missing"),
        ('{"schema": "msfnet-bench/3", "rows": [3]}', r"rows\[0\] in .* must be a table, not 3"),
    ],
)
def test_what_is_no_report_of_ours_is_one_line(
    report: BenchmarkReport, tmp_path: Path, content: str | None, reason: str
) -> None:
    """No such file, no JSON, another schema, or a part of it missing."""
    path = tmp_path / "old.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(MsfnetError, match=reason) as caught:
        compare_with(path, report, 0.1)
    assert "\n" not in str(caught.value)


def test_a_report_without_a_row_of_this_run_is_one_line(
    report: BenchmarkReport, tmp_path: Path
) -> None:
    """It has no row at all, or only rows of other models."""
    path = tmp_path / "old.json"
    path.write_text(to_json(replace(report, rows=())))

    with pytest.raises(MsfnetError, match="no model of this run") as caught:
        compare_with(path, report, 0.1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
def test_a_tolerance_is_a_share(report: BenchmarkReport, old: Path, tolerance: float) -> None:
    """Nothing below 0, and no end of it."""
    with pytest.raises(MsfnetError, match="tolerance"):
        compare_with(old, report, tolerance)


def test_what_was_nothing_and_is_something_is_infinitely_worse() -> None:
    """A share of 0 cannot be computed; growing from 0 is worse by any tolerance."""
    assert Change("m", "macs", 0, 1).verdict(10.0) == "worse"
    assert Change("m", "macs", 0, 0).verdict(0.0) == "same"


def test_the_earlier_run_is_left_as_it_was(report: BenchmarkReport, old: Path) -> None:
    """Comparing writes nothing."""
    before = old.read_text()
    compare_with(old, report, 0.1)

    assert old.read_text() == before
    assert json.loads(before)["schema"] == "msfnet-bench/3"
