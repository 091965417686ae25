"""Times everything that takes part in a benchmark in the same interleaved rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from msfnet.contenders import Opened
from msfnet_benchmarks.timing.costs import Throughput
from msfnet_benchmarks.timing.device_latency import Stage
from msfnet_benchmarks.timing.latency import LatencyReport, Runner, measure_latency
from msfnet_benchmarks.timing.stages import StagedRunner, all_stages
from msfnet_runtime import Frame
from msfnet_runtime.progress import Progress, silent

_BATCH_CALLS = 10
"""Timed calls at each batch size."""


@dataclass(frozen=True)
class Timed:
    """What was timed of one contender."""

    latency: LatencyReport | None
    """From frame to depth; None for a peer."""
    engine: LatencyReport
    """From batch to answer, of the same calls."""
    stages: Mapping[str, Stage] = field(default_factory=dict)
    """All but decoding."""


def time_all(
    opened: Mapping[str, Opened],
    frames: Sequence[Frame],
    rounds: int,
    progress: Progress = silent,
) -> dict[str, Timed]:
    """Time every contender in turns; what its engine takes is a part of the same calls.

    Raises:
        MsfnetError: as :func:`~msfnet_benchmarks.timing.latency.measure_latency`.
    """
    estimators = {name: one.estimator for name, one in opened.items()}
    staged = {name: StagedRunner(e) for name, e in estimators.items() if e is not None}
    runners: dict[str, Runner] = {
        name: staged[name] if name in staged else _inferring(one) for name, one in opened.items()
    }
    timed = {}
    for report in measure_latency(runners, frames, rounds=rounds, progress=progress):
        name, estimator = report.name, estimators[report.name]
        if estimator is None:
            timed[name] = Timed(None, report)
            continue
        engine = staged[name].engine_latency(name, rounds, len(frames))
        stages = all_stages(staged[name], estimator, frames, report.calls)
        timed[name] = Timed(report, engine, stages)
    return timed


def throughputs(
    opened: Mapping[str, Opened],
    timed: Mapping[str, Timed],
    batches: Sequence[int],
    progress: Progress = silent,
) -> dict[str, tuple[Throughput, ...]]:
    """Return the rate at each batch size that a contender takes; all sizes in turns.

    A single call's size is what the rounds timed already.

    Args:
        opened: who takes part.
        timed: what the rounds said.
        batches: images in one call.
        progress: told after each timed call.
    """
    runners = {
        (name, count): _inferring(one, count)
        for name, one in opened.items()
        for count in sorted(set(batches) - {1})
        if one.images is None
    }
    frame = Frame(np.zeros((1, 1, 3), np.uint8))
    named = {f"{name}, batch {count}": runner for (name, count), runner in runners.items()}
    reports = (
        measure_latency(named, [frame], rounds=_BATCH_CALLS, progress=progress) if named else []
    )
    taken = {(name, one.images or 1): timed[name].engine.p50_ms for name, one in opened.items()}
    taken |= {key: report.p50_ms for key, report in zip(runners, reports, strict=True)}
    return {
        name: tuple(
            Throughput(count, 1e3 * count / ms, ms)
            for (who, count), ms in sorted(taken.items())
            if who == name and count in batches
        )
        for name in opened
    }


def _inferring(one: Opened, count: int = 1) -> Runner:
    """Return what runs a batch, whatever the frame."""
    batch = one.batch(count)
    return lambda frame: one.engine.infer(batch)
