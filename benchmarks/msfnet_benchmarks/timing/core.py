"""The one timing loop: calls made in turns, how long each took, and what the figures mean.

Machines drift: clocks rise and fall, other work comes and goes. If models were timed one after the
other, the last one alone would pay for it. Made in turns (A B C A B C …), all calls pay alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime import MsfnetError
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.words import counted

T = TypeVar("T")

END_TO_END = "end to end"
"""The stage that every timed call reports: the whole of it."""

Clock = Callable[[], float]
"""Returns seconds; replaced in tests."""

Times = Mapping[str, float]
"""Milliseconds of one call by stage, :data:`END_TO_END` among them."""

TimedCall = Callable[[T], Times]
"""Processes one item, returns when the answer is in host memory, and reports its times."""

_RESAMPLES = 2000

_SETTLED = 0.05
"""Medians of two successive warm-up windows that differ by less than this share are stable."""

_WARMUP_CALLS = 30
_WARMUP_MS = 5000.0
"""Limits of one call's warm-up, which then ends whether stable or not."""

_FEW_CALLS = 6
_DRIFT = 0.1
_SPREAD = 0.25
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class Samples:
    """The times of the calls of one name, or of one stage of them."""

    name: str
    ms: NDArray[np.float64]
    """(rounds, items) milliseconds, in the order of the calls."""

    def summary(self) -> Summary:
        """Return the percentiles and the mean, and whether they can be trusted.

        Samples are unstable where there are fewer than six; where the medians of the first, the
        middle and the last third differ by more than 10 % (the machine drifted); or where the
        middle half of the calls spreads over more than 25 % of the median. With three rounds or
        more, each call is compared with the median of its own item: large frames may take longer.
        """
        p50, p90, p95, p99 = (float(value) for value in np.percentile(self.ms, (50, 90, 95, 99)))
        mean = float(self.ms.mean())
        return Summary(
            name=self.name,
            p50_ms=p50,
            p90_ms=p90,
            p95_ms=p95,
            p99_ms=p99,
            mean_ms=mean,
            calls=self.ms.size,
            calls_per_s=1e3 / mean if mean > 0 else float("inf"),
            round_p50_ms=tuple(float(value) for value in np.median(self.ms, axis=1)),
            samples_ms=tuple(tuple(float(value) for value in row) for row in self.ms),
            unstable=_instability(self.ms),
        )


@dataclass(frozen=True)
class Summary:
    """The summary of one name's samples; milliseconds, percentiles interpolated linearly."""

    name: str
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    calls: int
    """Number of timed calls: rounds times items."""
    calls_per_s: float
    """Calls per second, one after the other: 1000 / mean."""
    round_p50_ms: tuple[float, ...]
    """Median of each round: a trend means that the machine drifted."""
    samples_ms: tuple[tuple[float, ...], ...] = ()
    """Every timed call, round by round, in the order of the items."""
    unstable: str | None = None
    """Why the figures should not be trusted, in a few words; None where they can be
    (:meth:`Samples.summary` has the rule)."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of two medians of calls made in turns, with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def clocked(call: Callable[[T], object], clock: Clock = time.perf_counter) -> TimedCall[T]:
    """Return a timed call that measures a plain one from outside, by wall-clock time."""

    def timed(item: T) -> Times:
        start = clock()
        call(item)
        return {END_TO_END: 1e3 * (clock() - start)}

    return timed


def time_stages(
    calls: Mapping[str, TimedCall[T]],
    items: Sequence[T],
    *,
    rounds: int = 3,
    seconds: float = 0.0,
    warmup: int = 3,
    progress: Progress = silent,
    clock: Clock = time.perf_counter,
) -> dict[str, dict[str, Samples]]:
    """Make calls in turns on the same items, after a warm-up that is not counted.

    Args:
        calls: by name; all of them process an item before the next item's turn comes.
        items: each is processed by every call once a round.
        rounds: how often the items are gone through, at least.
        seconds: further rounds are added until this time has passed.
        warmup: calls of one window of the warm-up, which lasts for each call until the medians of
            two successive windows differ by less than 5 %, at most 30 calls or 5 s, at least one
            window; 0: none.
        progress: called after each timed call.
        clock: decides about ``seconds``.

    Returns:
        The samples by name and stage.

    Raises:
        MsfnetError: no call, no item, or no round.
    """
    if not calls or not items or rounds < 1 or warmup < 0:
        raise MsfnetError("nothing to time; at least one model, one frame and one round are needed")
    _warm_up(calls, items, warmup)
    made: dict[str, list[list[Times]]] = {name: [] for name in calls}
    total = 0 if seconds else rounds * len(items) * len(calls)
    start, done, finished = clock(), 0, 0
    while finished < rounds or (seconds and clock() - start < seconds):
        for rows in made.values():
            rows.append([])
        for item in items:
            for name, call in calls.items():
                made[name][-1].append(call(item))
                done += 1
                progress(done, total, name)
        finished += 1
    return {name: _by_stage(name, rows) for name, rows in made.items()}


def time_calls(
    calls: Mapping[str, Callable[[T], object]],
    items: Sequence[T],
    *,
    rounds: int = 3,
    seconds: float = 0.0,
    warmup: int = 3,
    progress: Progress = silent,
    clock: Clock = time.perf_counter,
) -> dict[str, Samples]:
    """Time plain calls from outside; arguments and errors as :func:`time_stages`."""
    timed = time_stages(
        {name: clocked(call, clock) for name, call in calls.items()},
        items,
        rounds=rounds,
        seconds=seconds,
        warmup=warmup,
        progress=progress,
        clock=clock,
    )
    return {name: stages[END_TO_END] for name, stages in timed.items()}


def speedup(candidate: Summary, baseline: Summary) -> Ratio:
    """Return how many times as fast a candidate is as a baseline timed in turns with it.

    Raises:
        MsfnetError: the two were not timed in one run.
    """
    ours, theirs = np.asarray(candidate.samples_ms), np.asarray(baseline.samples_ms)
    if not ours.size or ours.shape != theirs.shape:
        raise MsfnetError(
            f"{candidate.name} and {baseline.name} were not timed in turns; time them in one run"
        )
    return ratio_of_medians(theirs, ours)


def ratio_of_medians(upper: NDArray[np.float64], lower: NDArray[np.float64]) -> Ratio:
    """Return the ratio of the medians of two series of calls, and its 95 % confidence interval.

    The interval is a circular block bootstrap's (Politis and Romano 1992, percentile method) over
    the calls in their order, which are paired: what slowed the machine at one call slowed both.
    Blocks of n^(1/2) calls keep together what a slow second slows together; single calls, drawn
    alone, would make the interval too narrow.

    Args:
        upper: milliseconds of any shape, at least one.
        lower: milliseconds of the calls beside them, of the same shape.
    """
    upper, lower = upper.ravel(), lower.ravel()
    chosen = _blocks(upper.size)
    ratios = np.median(upper[chosen], axis=1) / np.median(lower[chosen], axis=1)
    low, high = (float(value) for value in np.percentile(ratios, (2.5, 97.5)))
    return Ratio(float(np.median(upper) / np.median(lower)), low, high)


def _blocks(calls: int) -> NDArray[np.int64]:
    """Return (resamples, calls) indices of calls: runs of neighbours that begin anywhere."""
    length = round(calls**0.5)
    starts = np.random.default_rng(0).integers(0, calls, (_RESAMPLES, -(-calls // length), 1))
    return ((starts + np.arange(length)) % calls).reshape(_RESAMPLES, -1)[:, :calls]


def _by_stage(name: str, rows: Sequence[Sequence[Times]]) -> dict[str, Samples]:
    """Return the samples of every stage that the calls reported, in the order of the first."""
    return {
        stage: Samples(name, np.array([[times[stage] for times in row] for row in rows]))
        for stage in rows[0][0]
    }


def _warm_up(calls: Mapping[str, TimedCall[T]], items: Sequence[T], window: int) -> None:
    """Make every call, in turns, until it takes as long as before."""
    timed: dict[str, list[float]] = {name: [] for name in calls}
    cold = list(calls) if window else []
    while cold:
        for name in cold:
            item = items[len(timed[name]) % len(items)]
            timed[name].append(calls[name](item)[END_TO_END])
        cold = [name for name in cold if not _is_warm(timed[name], window)]


def _is_warm(ms: Sequence[float], window: int) -> bool:
    if len(ms) < window:
        return False
    if len(ms) >= max(_WARMUP_CALLS, window) or sum(ms) >= _WARMUP_MS:
        return True
    if len(ms) < 2 * window:
        return False
    before, now = np.median(ms[-2 * window : -window]), np.median(ms[-window:])
    return bool(abs(now - before) <= _SETTLED * before)


def _instability(ms: NDArray[np.float64]) -> str | None:
    if ms.size < _FEW_CALLS:
        return f"{counted(ms.size, 'call')} only"
    usual = np.median(ms, axis=0 if ms.shape[0] >= 3 else None)
    relative = (ms / np.maximum(usual, _TINY)).ravel()
    thirds = [float(np.median(part)) for part in np.array_split(relative, 3)]
    drift = max(thirds) / max(min(thirds), _TINY) - 1
    if drift > _DRIFT:
        return f"drifted by {100 * drift:.0f} %"
    low, high = np.percentile(relative, (25, 75))
    if high - low > _SPREAD:
        return f"half the calls spread over {100 * (high - low):.0f} %"
    return None
