"""A sweep: generated candidates, measured one after the other, resumed from where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from msfnet_benchmarks.bench import created_now, row_of
from msfnet_benchmarks.candidates import Candidate, open_candidates
from msfnet_benchmarks.machine import describe_environment
from msfnet_benchmarks.report.regressions import read_report
from msfnet_benchmarks.report.report import BenchmarkReport, BenchmarkRow
from msfnet_benchmarks.timing.core import time_calls
from msfnet_benchmarks.timing.costs import Throughput
from msfnet_benchmarks.timing.flops import measure_flop_bound
from msfnet_runtime import MsfnetError
from msfnet_runtime.files import sha256
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.typed import write_json

WHAT_IS_TIMED = (
    "Timed from batch to answer, engine alone, one point after the other; the machine's arithmetic "
    "is measured beside each."
)

_CALLS_PER_ROUND = 8

_FACTS = {
    "data": "checkpoint",
    "frames": "number of rounds",
    "environment": "machine, libraries or environment variables",
}
"""What all rows of a file share: the fields of the report, and their names in messages."""


@dataclass(frozen=True)
class SweepPlan:
    """Options of the measurement of a sweep's points."""

    rounds: int = 3
    """Eight timed calls of a point each."""
    counts_only: bool = False
    """Count MACs, parameters and bytes, and time nothing."""
    model: Path | None = None
    """The checkpoint whose network is swept; None: networks of random weights."""
    json: Path | None = None
    """Brought up to date after every point. Rows that it holds are kept and not measured again.
    The caller keeps it locked meanwhile (:func:`~msfnet_runtime.files.locked`)."""

    @property
    def calls(self) -> int:
        """The number of timed calls at a point."""
        return 0 if self.counts_only else _CALLS_PER_ROUND * self.rounds


def sweep(
    points: Mapping[str, Callable[[], Candidate]], plan: SweepPlan, *, progress: Progress = silent
) -> BenchmarkReport:
    """Measure candidates one after the other; engine only, on random input.

    The machine's arithmetic is measured beside every point, so that points of a machine that
    drifts can be compared by their share of it.

    Args:
        points: makes a candidate by its name, which says all that was chosen for it; not called
            where the plan's JSON has its row.
        plan: how to measure.
        progress: called after every point.

    Returns:
        The rows that the plan's JSON held, also those of other points, then the new ones.

    Raises:
        MsfnetError: a network that cannot be built, exported or opened, or a JSON that cannot be
            written or holds something else.
    """
    begun = _begin(plan)
    rows = {row.name: row for row in begun.rows}
    report = begun
    for done, (name, make) in enumerate(points.items(), 1):
        if name not in rows:
            rows[name] = _measure(make(), plan.calls)
            report = replace(begun, rows=tuple(rows.values()))
            if plan.json:
                write_json(plan.json, report)
        progress(done, len(points), name)
    return report


def _begin(plan: SweepPlan) -> BenchmarkReport:
    """Return a report without rows, or with those of earlier sweeps of the same network.

    Raises:
        MsfnetError: the JSON holds something else.
    """
    report = BenchmarkReport(
        title="Sweep",
        rows=(),
        baseline=None,
        protocol=None,
        data=f"{plan.model}, sha256 {sha256(plan.model)}" if plan.model else None,
        frames=plan.calls,
        frame_size=(0, 0),
        environment=describe_environment(),
        created=created_now(),
        what_is_timed=WHAT_IS_TIMED,
    )
    path = plan.json
    if path is None or not path.is_file():
        return report
    try:
        stored = read_report(path)
    except MsfnetError as error:
        raise MsfnetError(f"{path} is not a sweep that can be resumed: {error}") from None
    if stored.title != report.title:
        raise MsfnetError(f"{path} is not a sweep that can be resumed; name another file")
    for fact, what in _FACTS.items():
        if getattr(stored, fact) != getattr(report, fact):
            raise MsfnetError(f"{path} was measured with another {what}; name another file")
    return replace(report, rows=stored.rows)


def _measure(candidate: Candidate, calls: int) -> BenchmarkRow:
    """Return the row of a point; for no calls nothing is timed."""
    macs, parameters = candidate.counts() or (None, None)
    if not calls:
        return replace(row_of(candidate), macs=macs, parameters=parameters)
    with ExitStack() as stack:
        (one,) = open_candidates([candidate], stack).values()
        timed = time_calls({candidate.name: one.engine.infer}, [one.batch()], rounds=calls)
        latency = timed[candidate.name].summary()
        row = replace(row_of(candidate), engine=one.description, device_bytes=one.device_bytes)
    rate = Throughput(candidate.batch, 1e3 * candidate.batch / latency.p50_ms, latency.p50_ms)
    return replace(
        row,
        engine_latency=latency,
        throughput=(rate,),
        macs=macs,
        parameters=parameters,
        flop_bound=measure_flop_bound(candidate.threads),
    )
