"""Measures a running stream, in memory that does not grow with the stream's length."""

from __future__ import annotations

import itertools
import math
import threading
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from msfnet_runtime.channel import CLOCK, Clock
from msfnet_runtime.typed import to_json, to_plain
from msfnet_runtime.words import counted

_RECENT = 4096
"""The largest number of frames of one interval whose times are kept: the newest."""

_RUNS = itertools.count(1)

_SMALLEST_MS = 0.01
_LOG_WIDTH = math.log(1.01)
_BINS = 2600
"""Ages are counted in bins 1 % wide, starting at 0.01 ms; the last one is beyond a week."""


class FrameTimes(NamedTuple):
    """The times of one frame, milliseconds."""

    frame: int
    """Index of the frame in its source."""
    age_ms: float
    """From capture to depth available."""
    written_age_ms: float
    """From capture to depth written."""
    capture_ms: float
    """The first of the times in :class:`StageTimes`, which have the same order."""
    prepare_ms: float
    infer_ms: float
    finish_ms: float
    write_ms: float


@dataclass(frozen=True)
class Ages:
    """Percentiles of an age, milliseconds; 0 without frames."""

    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p99_ms: float = 0.0


@dataclass(frozen=True)
class StageTimes:
    """Mean time of a frame in each stage, milliseconds; stages overlap."""

    capture_ms: float = 0.0
    """Reading, including the wait for a camera."""
    prepare_ms: float = 0.0
    infer_ms: float = 0.0
    finish_ms: float = 0.0
    write_ms: float = 0.0


@dataclass(frozen=True)
class QueueDepths:
    """The number of frames that wait after each stage."""

    captured: int = 0
    prepared: int = 0
    inferred: int = 0
    finished: int = 0


@dataclass(frozen=True, kw_only=True)
class StreamStats:
    """A snapshot of a stream. Counts are totals; fps, ages and stages are those of the interval.

    The interval is the time since the previous snapshot. In the last snapshot, and in the result
    of a pipeline, it is the whole run.
    """

    frames: int
    """Frames written."""
    total: int = 0
    """Frames in the stream, 0 if unknown."""
    dropped: int = 0
    """Frames of a live source that were replaced by a newer one before inference."""
    skipped: int = 0
    """Frames that could not be decoded."""
    losses: int = 0
    """How often the source was lost and came back."""
    seconds: float
    """Since the first read."""
    fps: float
    """Frames written per second."""
    age: Ages
    """From capture to depth available, before it is written."""
    written_age: Ages
    """From capture to depth written."""
    stages: StageTimes
    queues: QueueDepths = QueueDepths()
    engine: str = ""
    """Description of the engine."""
    live: bool = False
    """Whether the source is live."""
    recent: tuple[FrameTimes, ...] = ()
    """The frames since the previous snapshot, oldest first; empty in the result of a pipeline."""
    run: int = 0
    """Number of the run in this process, by which an observer of several tells them apart."""

    def line(self) -> str:
        """Return a snapshot as one short line, without the number of frames."""
        counts = f", {self.dropped} dropped" * self.live + f", {self.skipped} skipped"
        lost = f", source lost {counted(self.losses, 'time')}" * bool(self.losses)
        return f"{self.fps:.1f} frames/s, age of depth {self.age.p99_ms:.0f} ms{counts}{lost}"

    def text(self) -> str:
        """Return the statistics of a whole run as three lines."""
        counts = (
            f"{counted(self.dropped, 'older frame')} dropped" * bool(self.dropped),
            f"{counted(self.skipped, 'unreadable frame')} skipped" * bool(self.skipped),
            f"source lost {counted(self.losses, 'time')}" * bool(self.losses),
        )
        age, stages = self.age, self.stages
        return (
            f"{counted(self.frames, 'frame')} in {self.seconds:.1f} s, {self.fps:.1f} frames/s"
            f"{''.join(f', {count}' for count in counts if count)}\n"
            f"age of depth: median {age.p50_ms:.0f} ms, 90% {age.p90_ms:.0f} ms, "
            f"99% {age.p99_ms:.0f} ms; written by {self.written_age.p99_ms:.0f} ms\n"
            f"per frame: capture {stages.capture_ms:.1f} ms, prepare {stages.prepare_ms:.1f} ms, "
            f"infer {stages.infer_ms:.1f} ms, finish {stages.finish_ms:.1f} ms, "
            f"write {stages.write_ms:.1f} ms, overlapped; engine {self.engine}"
        )

    def to_json(self) -> str:
        """Return all but the single frames and the run as one line of JSON, to three decimals."""
        values = to_plain(replace(self, recent=()), digits=3)
        del values["recent"], values["run"]
        return to_json(values, indent=None)


class AgeCounts:
    """Counts ages in logarithmic bins: percentiles of any number of frames, to within 1 %."""

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * _BINS))

    def add(self, age_ms: float) -> None:
        """Count one age."""
        place = math.log(max(age_ms, _SMALLEST_MS) / _SMALLEST_MS) / _LOG_WIDTH
        self._counts[min(int(place), _BINS - 1)] += 1

    def ages(self) -> Ages:
        """Return the percentiles by nearest rank, at the middle of their bins."""
        sums = np.cumsum(np.asarray(self._counts))
        if not sums[-1]:
            return Ages()
        places = (np.searchsorted(sums, math.ceil(share * sums[-1])) for share in (0.5, 0.9, 0.99))
        return Ages(*(_SMALLEST_MS * math.exp((int(p) + 0.5) * _LOG_WIDTH) for p in places))


class Meter:
    """Collects the times of written frames from one thread, and reports them to another."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._lock = threading.Lock()
        self._run = next(_RUNS)
        self._clock = clock
        self._start = self._last = clock.now()
        self._frames = self._frames_before = 0
        self._sums = np.zeros(len(StageTimes.__dataclass_fields__))
        self._age, self._written_age = AgeCounts(), AgeCounts()
        self._recent: deque[FrameTimes] = deque(maxlen=_RECENT)

    def add(self, times: FrameTimes) -> None:
        """Count one written frame."""
        with self._lock:
            self._frames += 1
            self._sums += times[3:]
            self._age.add(times.age_ms)
            self._written_age.add(times.written_age_ms)
            self._recent.append(times)

    def interval(self) -> StreamStats:
        """Return the measurements since the last call, and begin another interval."""
        with self._lock:
            now, recent = self._clock.now(), tuple(self._recent)
            frames = self._frames - self._frames_before
            seconds = max(now - self._last, 1e-9)
            self._recent.clear()
            self._last, self._frames_before = now, self._frames
            return StreamStats(
                frames=self._frames,
                seconds=now - self._start,
                fps=frames / seconds,
                age=_ages([times.age_ms for times in recent]),
                written_age=_ages([times.written_age_ms for times in recent]),
                stages=_means(np.sum([times[3:] for times in recent], axis=0), len(recent)),
                recent=recent,
                run=self._run,
            )

    def whole(self) -> StreamStats:
        """Return the measurements since the start."""
        with self._lock:
            seconds = max(self._clock.now() - self._start, 1e-9)
            return StreamStats(
                frames=self._frames,
                seconds=seconds,
                fps=self._frames / seconds,
                age=self._age.ages(),
                written_age=self._written_age.ages(),
                stages=_means(self._sums, self._frames),
                run=self._run,
            )


def _ages(ages_ms: Sequence[float]) -> Ages:
    if not ages_ms:
        return Ages()
    return Ages(*(float(age) for age in np.percentile(ages_ms, (50, 90, 99))))


def _means(sums: np.ndarray[tuple[int, ...], np.dtype[np.float64]], frames: int) -> StageTimes:
    return StageTimes(*(float(total) / frames for total in sums)) if frames else StageTimes()
