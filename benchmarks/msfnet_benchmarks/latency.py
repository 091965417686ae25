"""Latency of several models on the same frames in one run, taken in turns.

Machines drift: clocks rise and fall, other work comes and goes. Timed one after the other, the
last model pays for it alone; taken in turns (A B C A B C …) all of them do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime import Frame, MsfnetError
from msfnet_runtime.progress import Progress, silent

Runner = Callable[[Frame], object]
"""Answers one frame and returns when the answer is in host memory."""


@dataclass(frozen=True)
class LatencyReport:
    """How long one model takes for one frame; milliseconds of wall-clock time."""

    name: str
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    throughput_fps: float
    """Frames per second, one after the other: 1000 / mean."""
    calls: int
    """Timed calls: rounds times frames."""
    round_p50_ms: tuple[float, ...]
    """Median of each round: a trend means that the machine drifted."""
    samples_ms: tuple[tuple[float, ...], ...] = ()
    """Every timed call, round by round, in the order of the frames."""
    unstable: str | None = None
    """Why the figures should not be trusted, in a few words; None where they may be."""


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one model is as another, with its 95 % confidence interval."""

    value: float
    """Median of the slower over median of the faster, frame by frame in the same rounds."""
    low: float
    high: float


_RESAMPLES = 2000


def compare_latency(candidate: LatencyReport, baseline: LatencyReport) -> Ratio:
    """Return how many times as fast a candidate is as a baseline timed in turns with it.

    The interval is a bootstrap's (Efron 1979, percentile method) over the calls, which are paired:
    what slowed the machine at one frame slowed both.

    Raises:
        MsfnetError: the two were not timed in one run.
    """
    ours = np.asarray(candidate.samples_ms).ravel()
    theirs = np.asarray(baseline.samples_ms).ravel()
    if not ours.size or ours.shape != theirs.shape:
        raise MsfnetError(
            f"{candidate.name} and {baseline.name} were not timed in turns; time them in one run"
        )
    chosen = np.random.default_rng(0).integers(0, ours.size, (_RESAMPLES, ours.size))
    ratios = np.median(theirs[chosen], axis=1) / np.median(ours[chosen], axis=1)
    low, high = (float(value) for value in np.percentile(ratios, (2.5, 97.5)))
    return Ratio(float(np.median(theirs) / np.median(ours)), low, high)


def measure_latency(
    runners: Mapping[str, Runner],
    frames: Sequence[Frame],
    *,
    rounds: int = 3,
    warmup: int = 3,
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
) -> list[LatencyReport]:
    """Time runners on the same frames, in turns, after a warm-up that is not counted.

    Args:
        runners: by name, in the order of the reports.
        frames: each is given to every runner once a round.
        rounds: how often the frames are gone through.
        warmup: untimed calls of each runner before the first round.
        progress: told after each timed call.
        clock: seconds; replaced in tests.

    Raises:
        MsfnetError: no runner, no frame, or no round.
    """
    if not runners or not frames or rounds < 1 or warmup < 0:
        raise MsfnetError("nothing to time; give at least one model, one frame and one round")
    for call in range(warmup):
        for runner in runners.values():
            runner(frames[call % len(frames)])
    seconds = {name: np.empty((rounds, len(frames))) for name in runners}
    total = rounds * len(frames) * len(runners)
    done = 0
    for round_index in range(rounds):
        for frame_index, frame in enumerate(frames):
            for name, runner in runners.items():
                start = clock()
                runner(frame)
                seconds[name][round_index, frame_index] = clock() - start
                done += 1
                progress(done, total, name)
    return [_summarise(name, 1e3 * taken) for name, taken in seconds.items()]


def _summarise(name: str, milliseconds: NDArray[np.float64]) -> LatencyReport:
    """Return the report of (rounds, frames) milliseconds."""
    p50, p90, p99 = (float(value) for value in np.percentile(milliseconds, (50, 90, 99)))
    mean = float(milliseconds.mean())
    return LatencyReport(
        name=name,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        mean_ms=mean,
        throughput_fps=1e3 / mean if mean > 0 else float("inf"),
        calls=milliseconds.size,
        round_p50_ms=tuple(float(value) for value in np.median(milliseconds, axis=1)),
        samples_ms=tuple(tuple(float(value) for value in row) for row in milliseconds),
    )
