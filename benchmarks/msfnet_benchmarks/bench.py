"""The conductor of a benchmark: times and scores candidates side by side, all by the same code.

Candidates are handed in ready to be opened, so that nothing here knows which library runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from msfnet_benchmarks.candidates import Candidate, Opened, open_candidates
from msfnet_benchmarks.machine import describe_environment
from msfnet_benchmarks.report.pictures import Picture, gallery
from msfnet_benchmarks.report.report import BenchmarkReport, BenchmarkRow
from msfnet_benchmarks.scoring.accuracy import AccuracyReport, evaluate, read_sample
from msfnet_benchmarks.scoring.facts import DataFacts, ModelFacts, data_facts
from msfnet_benchmarks.scoring.parity import compare
from msfnet_benchmarks.scoring.protocols import Protocol, find_protocol
from msfnet_benchmarks.timing.cold_start import measure_cold_start
from msfnet_benchmarks.timing.core import (
    END_TO_END,
    Samples,
    TimedCall,
    clocked,
    speedup,
    time_calls,
    time_stages,
)
from msfnet_benchmarks.timing.costs import Throughput
from msfnet_benchmarks.timing.energy import measure_energy
from msfnet_benchmarks.timing.flops import measure_flop_bound
from msfnet_benchmarks.timing.stages import INFER, frame_call, read_timed, stream_stages
from msfnet_datasets.layouts import open_dataset, open_frames
from msfnet_datasets.sample import Sample, spread
from msfnet_runtime import DepthEstimator, Frame, ModelSpec, MsfnetError
from msfnet_runtime.preprocess import frame_size
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sources import open_source

_BATCH_CALLS = 10
"""Timed calls at each batch size."""


@dataclass(frozen=True)
class BenchPlan:
    """Options of a benchmark: its frames, rounds and measurements."""

    data: Path | None = None
    """Frames; with a protocol, frames with its ground truth. Generated ones if None."""
    split: str | None = None
    """List of the data set, as :func:`~msfnet_datasets.open_dataset` takes it."""
    protocol: str | None = None
    """Score by it as well."""
    frames: int = 32
    """Number of frames, 0: all of the data."""
    rounds: int = 3
    batches: Sequence[int] = (1,)
    """Batch sizes of the throughput; graphs of a fixed batch answer only theirs."""
    threads: int = 0
    """CPU threads that the candidates were given; 0: the libraries' choice."""
    cold: bool = False
    """Measure starts in separate processes."""
    profile: bool = False
    """Time every layer of the candidates that can."""
    pictures: bool = False
    """Make pictures of each candidate's depth of one frame."""

    def check(self) -> None:
        """Refuse settings that do not go together.

        Raises:
            MsfnetError: a protocol without data, or a batch of nothing.
        """
        if self.protocol and self.data is None:
            raise MsfnetError("a protocol needs ground truth; name a data set", parameter="data")
        if not self.frames and self.data is None:
            raise MsfnetError("generated frames have no end; ask for a number", parameter="frames")
        if any(batch < 1 for batch in self.batches):
            raise MsfnetError(
                "a batch has at least one image; write for example 1,4,8", parameter="batches"
            )


@dataclass(frozen=True)
class _Material:
    """The input of every candidate."""

    frames: list[Frame]
    samples: list[Sample] = field(default_factory=list)
    """The frames with ground truth; empty without a protocol."""
    protocol: Protocol | None = None
    decode: Samples | None = None
    """Time of reading each frame; None for generated ones."""
    facts: DataFacts | None = None
    """What is scored on; None without a protocol."""
    skipped: int = 0
    """Images of the list that have no ground truth."""


Timed = dict[str, dict[str, Samples]]
"""Samples by candidate and stage."""


def bench(
    candidates: Sequence[Candidate],
    plan: BenchPlan,
    *,
    baseline: str | None = None,
    progress: Progress = silent,
) -> tuple[BenchmarkReport, list[Picture]]:
    """Time and score candidates on the same frames in one run.

    Args:
        candidates: in the order of the report.
        plan: what to measure, on which frames.
        baseline: name of the candidate that the others are compared with.
        progress: called after every timed call and every scored frame.

    Returns:
        The report, and the pictures if the plan asks for them.

    Raises:
        MsfnetError: as :meth:`BenchPlan.check`, nothing to time, a model that cannot be opened,
            or no such data.
    """
    plan.check()
    if not candidates:
        raise MsfnetError("nothing to time; name at least one model")
    on_cpu = any(not candidate.on_gpu for candidate in candidates)
    bound = measure_flop_bound(plan.threads) if on_cpu else None
    with ExitStack() as stack:
        opened = open_candidates(candidates, stack)
        material = _gather(plan, next(iter(opened.values())).engine.spec)
        timed = _time_all(opened, material.frames, plan.rounds, progress)
        rates = _throughputs(opened, timed, plan.batches, progress)
        reference = opened[baseline] if baseline else None
        rows = []
        for name, one in opened.items():
            row = _row(one, timed[name], rates[name], material)
            row = _compared(row, one, reference, timed, material, progress)
            rows.append(_with_costs(row, one, plan, material.frames))
        report = BenchmarkReport(
            title="Depth models compared",
            rows=tuple(rows),
            baseline=baseline,
            protocol=plan.protocol,
            data=str(plan.data) if plan.data else None,
            frames=len(material.frames),
            frame_size=_size(material.frames[0]),
            environment=describe_environment(threads=plan.threads),
            created=created_now(),
            flop_bound=bound,
        )
        return report, _pictures(opened, material, baseline) if plan.pictures else []


def created_now() -> str:
    """Return the time for a report, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def row_of(candidate: Candidate) -> BenchmarkRow:
    """Return what is known of a candidate before it is measured."""
    return BenchmarkRow(
        name=candidate.name,
        engine="",
        precision=candidate.precision,
        size_bytes=candidate.size_bytes,
        batch=candidate.batch,
        input_size=candidate.input_size,
        settings=candidate.settings,
    )


def unanswered(report: BenchmarkReport, batches: Sequence[int]) -> str | None:
    """Return a line on the models that take no batch of a requested size; None if all do."""
    asked = set(batches)
    fixed = [row.name for row in report.rows if not asked <= {r.batch for r in row.throughput}]
    return f"not every batch size is open to {', '.join(fixed)}: fixed batch" if fixed else None


def _time_all(
    opened: Mapping[str, Opened], frames: Sequence[Frame], rounds: int, progress: Progress = silent
) -> Timed:
    """Time every candidate in turns; the engine's share is a part of the same calls."""
    calls: dict[str, TimedCall[Frame]] = {
        name: frame_call(one.estimator) if one.estimator else clocked(_inferring(one))
        for name, one in opened.items()
    }
    return time_stages(calls, frames, rounds=rounds, progress=progress)


def _throughputs(
    opened: Mapping[str, Opened], timed: Timed, batches: Sequence[int], progress: Progress
) -> dict[str, tuple[Throughput, ...]]:
    """Return the rate at each batch size that a candidate takes; all sizes in turns.

    The rate of a single image is that of the rounds.
    """
    runs = {
        (name, count): _inferring(one, count)
        for name, one in opened.items()
        for count in sorted(set(batches) - {1})
        if one.images is None
    }
    medians = {(name, one.images or 1): _engine_ms(timed[name]) for name, one in opened.items()}
    if runs:
        named = {f"{name}, batch {count}": run for (name, count), run in runs.items()}
        timings = time_calls(named, [None], rounds=_BATCH_CALLS, progress=progress)
        medians |= {
            key: samples.summary().p50_ms
            for key, samples in zip(runs, timings.values(), strict=True)
        }
    return {
        name: tuple(
            Throughput(count, 1e3 * count / ms, ms)
            for (who, count), ms in sorted(medians.items())
            if who == name and count in batches
        )
        for name in opened
    }


def _inferring(one: Opened, count: int | None = None) -> Callable[[object], object]:
    """Return the call that runs a batch, whatever the item."""
    batch = one.batch(count)
    return lambda _: one.engine.infer(batch)


def _engine_ms(timed: Mapping[str, Samples]) -> float:
    return timed.get(INFER, timed[END_TO_END]).summary().p50_ms


def _row(
    one: Opened,
    timed: Mapping[str, Samples],
    throughput: tuple[Throughput, ...],
    material: _Material,
) -> BenchmarkRow:
    """Return a candidate's latency, stages and rate."""
    estimator = one.estimator
    row = replace(
        row_of(one.candidate),
        engine=one.description,
        engine_latency=timed.get(INFER, timed[END_TO_END]).summary(),
        throughput=throughput,
        device_bytes=one.device_bytes,
        batch=one.images or 1,
    )
    if estimator is None:
        return row
    stages = stream_stages(timed, estimator, one.device, material.frames)
    if material.decode:
        stages = {"decode": material.decode, **stages}
    return replace(
        row,
        latency=timed[END_TO_END].summary(),
        stages={name: samples.summary() for name, samples in stages.items()},
    )


def _compared(
    row: BenchmarkRow,
    one: Opened,
    reference: Opened | None,
    timed: Timed,
    material: _Material,
    progress: Progress,
) -> BenchmarkRow:
    """Add the depth error, and speed-up and difference from the baseline."""
    estimator = one.estimator
    if estimator is None:
        return row
    if material.protocol:
        row = replace(row, accuracy=_scored(one, estimator, material, material.protocol, progress))
    if reference is None:
        return row
    base = timed[reference.candidate.name][END_TO_END].summary()
    if row.latency:
        row = replace(row, speedup=speedup(row.latency, base))
    if reference is one or reference.estimator is None:
        return row
    parity = compare(estimator, reference.estimator, material.frames, progress=progress)
    return replace(row, parity=parity)


def _scored(
    one: Opened,
    estimator: DepthEstimator,
    material: _Material,
    protocol: Protocol,
    progress: Progress,
) -> AccuracyReport:
    """Return the depth error of a candidate, with what was scored."""
    report = evaluate(
        *(estimator, material.samples, protocol), skipped=material.skipped, progress=progress
    )
    file = one.candidate.file
    if file is None or material.facts is None:
        return report
    model = ModelFacts.of(file, one.candidate.precision)
    return report.described(model, material.facts, protocol, estimator.spec)


def _with_costs(
    row: BenchmarkRow, one: Opened, plan: BenchPlan, frames: Sequence[Frame]
) -> BenchmarkRow:
    """Add the other costs of a candidate whose answer is depth."""
    candidate, estimator = one.candidate, one.estimator
    if estimator is None:
        return row
    if counts := candidate.counts():
        row = replace(row, macs=counts[0], parameters=counts[1])
    if candidate.on_gpu:
        row = replace(row, energy=measure_energy(estimator, frames, gpu=candidate.gpu))
    if plan.cold and candidate.start:
        row = replace(row, cold_start=measure_cold_start(candidate.start, name=candidate.name))
    if plan.profile and candidate.profile:
        row = replace(row, layers=candidate.profile(one.batch()))
    return row


def _pictures(
    opened: Mapping[str, Opened], material: _Material, baseline: str | None
) -> list[Picture]:
    """Return the middle frame, every model's depth in the first one's colours, and the errors.

    Candidates of the same file show the same picture, so that only the first has one.
    """
    files: dict[Path | str, tuple[str, DepthEstimator]] = {}
    for name, one in opened.items():
        if estimator := one.estimator:
            files.setdefault(one.candidate.file or name, (name, estimator))
    if not files:
        return []
    place = len(material.frames) // 2
    frame, truth, scored = material.frames[place], None, None
    depths = {name: estimator(frame) for name, estimator in files.values()}
    if protocol := material.protocol:
        _, truth = read_sample(material.samples[place], protocol)
        scored = protocol.valid(truth)
        depths = {n: replace(d, values=protocol.clip(d.values)) for n, d in depths.items()}
        if truth.shape != _size(frame):
            scored = protocol.prepare_depth(scored.astype(np.float32)) > 0
            truth = protocol.prepare_depth(truth)
    return gallery(
        depths,
        frame,
        range_m=next(estimator for _, estimator in files.values()).spec.depth_range_m,
        ground_truth=truth,
        scored=scored,
        baseline=baseline,
    )


def _size(frame: Frame) -> tuple[int, int]:
    return frame.image.shape[0], frame.image.shape[1]


def _gather(plan: BenchPlan, spec: ModelSpec) -> _Material:
    """Load the frames; those of a protocol are prepared as it says."""
    if plan.data is None:
        height, width = frame_size(spec) if spec.graph == "deploy" else spec.size
        with open_source(f"synthetic:street?frames={plan.frames}&size={height}x{width}") as source:
            return _Material(list(source))
    if plan.protocol is None:
        with open_frames(str(plan.data), plan.split) as source:
            count = plan.frames or source.length
            if count is None:
                raise MsfnetError(
                    f"{plan.data} has no known number of frames; ask for one", parameter="frames"
                )
            frames, decode = read_timed(iter(source), count)
        return _Material(frames, decode=decode)
    chosen = find_protocol(plan.protocol)
    found = open_dataset(plan.data, split=plan.split, ground_truth=chosen.ground_truth)
    samples = spread(found, plan.frames or None)
    whole, decode = read_timed((sample.frame() for sample in samples), len(samples))
    frames = [_prepared(*each, chosen) for each in zip(whole, samples, strict=True)]
    facts = data_facts(plan.data, plan.split, chosen, len(found), samples)
    return _Material(frames, samples, chosen, decode, facts, len(found.without_ground_truth))


def _prepared(frame: Frame, sample: Sample, protocol: Protocol) -> Frame:
    """Return the frame that a model gets under the protocol."""
    image, _ = protocol.prepare(frame.image, sample.ground_truth(_size(frame)))
    return Frame(image, frame.index, name=frame.name)
