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
    """Why the figures should not be trusted, in a few words; None where they may be
    (:func:`summarise_calls` has the rule)."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of two medians of calls made side by side, with its 95 % confidence interval."""

    value: float
    low: float
    high: float


_RESAMPLES = 2000

_SETTLED = 0.05
"""Medians of two successive windows of a warm-up that differ by less are stable."""

_WARMUP_CALLS = 30
_WARMUP_S = 5.0
"""Of one runner, after which a warm-up ends, stable or not."""

_FEW_CALLS = 6
_DRIFT = 0.1
_SPREAD = 0.25


def compare_latency(candidate: LatencyReport, baseline: LatencyReport) -> Ratio:
    """Return how many times as fast a candidate is as a baseline timed in turns with it.

    Raises:
        MsfnetError: the two were not timed in one run.
    """
    ours = np.asarray(candidate.samples_ms).ravel()
    theirs = np.asarray(baseline.samples_ms).ravel()
    if not ours.size or ours.shape != theirs.shape:
        raise MsfnetError(
            f"{candidate.name} and {baseline.name} were not timed in turns; time them in one run"
        )
    return ratio_of_medians(theirs, ours)


def ratio_of_medians(upper: NDArray[np.float64], lower: NDArray[np.float64]) -> Ratio:
    """Return the ratio of the medians of two rows of calls, and its 95 % confidence interval.

    The interval is a circular block bootstrap's (Politis and Romano 1992, percentile method) over
    the calls in their order, which are paired: what slowed the machine at one call slowed both.
    Blocks of n^(1/2) calls keep together what a slow second slows together; single calls, drawn
    alone, would make the interval too narrow.

    Args:
        upper: (calls,) milliseconds, at least one.
        lower: (calls,) milliseconds of the calls beside them.
    """
    chosen = _blocks(upper.size)
    ratios = np.median(upper[chosen], axis=1) / np.median(lower[chosen], axis=1)
    low, high = (float(value) for value in np.percentile(ratios, (2.5, 97.5)))
    return Ratio(float(np.median(upper) / np.median(lower)), low, high)


def _blocks(calls: int) -> NDArray[np.int64]:
    """Return (resamples, calls) indices of calls: runs of neighbours that begin anywhere."""
    length = round(calls**0.5)
    starts = np.random.default_rng(0).integers(0, calls, (_RESAMPLES, -(-calls // length), 1))
    return ((starts + np.arange(length)) % calls).reshape(_RESAMPLES, -1)[:, :calls]


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
        warmup: calls of one window of the warm-up, which lasts for each runner until the medians
            of two successive windows differ by less than 5 %, at most 30 calls or 5 s, at least
            one window; 0: none.
        progress: told after each timed call.
        clock: seconds; replaced in tests.

    Raises:
        MsfnetError: no runner, no frame, or no round.
    """
    if not runners or not frames or rounds < 1 or warmup < 0:
        raise MsfnetError("nothing to time; give at least one model, one frame and one round")
    _warm_up(runners, frames, warmup, clock)
    seconds = {name: np.empty((rounds, len(frames))) for name in runners}
    total = rounds * len(frames) * len(runners)
    done = 0
    for round_index in range(rounds):
        for frame_index, frame in enumerate(frames):
            for name, runner in runners.items():
                seconds[name][round_index, frame_index] = _timed(runner, frame, clock)
                done += 1
                progress(done, total, name)
    return [summarise_calls(name, 1e3 * taken) for name, taken in seconds.items()]


def _timed(runner: Runner, frame: Frame, clock: Callable[[], float]) -> float:
    start = clock()
    runner(frame)
    return clock() - start


def _warm_up(
    runners: Mapping[str, Runner], frames: Sequence[Frame], window: int, clock: Callable[[], float]
) -> None:
    """Call every runner, in turns, until it takes as long as before."""
    taken: dict[str, list[float]] = {name: [] for name in runners}
    cold = list(runners) if window else []
    while cold:
        for name in cold:
            frame = frames[len(taken[name]) % len(frames)]
            taken[name].append(_timed(runners[name], frame, clock))
        cold = [name for name in cold if not _is_warm(taken[name], window)]


def _is_warm(seconds: Sequence[float], window: int) -> bool:
    if len(seconds) < window:
        return False
    if len(seconds) >= max(_WARMUP_CALLS, window) or sum(seconds) >= _WARMUP_S:
        return True
    if len(seconds) < 2 * window:
        return False
    before, now = np.median(seconds[-2 * window : -window]), np.median(seconds[-window:])
    return bool(abs(now - before) <= _SETTLED * before)


def summarise_calls(name: str, milliseconds: NDArray[np.float64]) -> LatencyReport:
    """Summarise (rounds, frames) milliseconds of calls, in the order they were made.

    They are called unstable where there are fewer than six; where the medians of the first, the
    middle and the last third differ by more than 10 % (the machine drifted); or where the middle
    half of the calls spreads over more than 25 % of the median. From three rounds on each call is
    held against the median of its own frame: large frames may take longer.
    """
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
        unstable=_instability(milliseconds),
    )


def _instability(milliseconds: NDArray[np.float64]) -> str | None:
    if milliseconds.size < _FEW_CALLS:
        return f"{milliseconds.size} calls only"
    usual = np.median(milliseconds, axis=0 if milliseconds.shape[0] >= 3 else None)
    relative = (milliseconds / np.maximum(usual, np.finfo(np.float64).tiny)).ravel()
    thirds = [float(np.median(part)) for part in np.array_split(relative, 3)]
    drift = max(thirds) / max(min(thirds), np.finfo(np.float64).tiny) - 1
    if drift > _DRIFT:
        return f"drifted by {100 * drift:.0f} %"
    low, high = np.percentile(relative, (25, 75))
    if high - low > _SPREAD:
        return f"half the calls spread over {100 * (high - low):.0f} %"
    return None
