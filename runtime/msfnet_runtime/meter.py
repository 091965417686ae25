"""Counts and times of a running stream, in memory that does not grow with its length."""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msfnet_runtime.stream_stats import Ages, FrameTimes, StageTimes

_RECENT = 4096
"""Frames of one interval whose own times are kept, the newest: a bound on memory."""

_SMALLEST_MS = 0.01
_LOG_WIDTH = math.log(1.01)
_BINS = 2600
"""Ages are counted in bins 1 % wide from 0.01 ms on, the last beyond a week."""


class AgeCounts:
    """Counts of ages in logarithmic bins: percentiles to within 1 % of any number of frames."""

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


@dataclass(frozen=True)
class Measured:
    """What an interval or a whole run measured."""

    frames: int
    """Frames written since the start."""
    seconds: float
    """Since the start."""
    fps: float
    """Of the interval, or of the whole run."""
    age: Ages
    written_age: Ages
    stages: StageTimes
    recent: tuple[FrameTimes, ...]


class Meter:
    """Takes the times of each written frame from one thread, and tells them to another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start = self._last = time.monotonic()
        self._frames = self._frames_before = 0
        self._sums = np.zeros(len(StageTimes.__dataclass_fields__))
        self._age, self._written_age = AgeCounts(), AgeCounts()
        self._recent: deque[FrameTimes] = deque(maxlen=_RECENT)

    def add(self, times: FrameTimes) -> None:
        """Count one written frame."""
        with self._lock:
            self._frames += 1
            self._sums += _stages(times)
            self._age.add(times.age_ms)
            self._written_age.add(times.written_age_ms)
            self._recent.append(times)

    def interval(self) -> Measured:
        """Return what was measured since the last call, and begin another interval."""
        with self._lock:
            now, recent = time.monotonic(), tuple(self._recent)
            frames = self._frames - self._frames_before
            seconds = max(now - self._last, 1e-9)
            self._recent.clear()
            self._last, self._frames_before = now, self._frames
            return Measured(
                self._frames,
                now - self._start,
                frames / seconds,
                _ages([times.age_ms for times in recent]),
                _ages([times.written_age_ms for times in recent]),
                _means(np.sum([_stages(times) for times in recent], axis=0), len(recent)),
                recent,
            )

    def whole(self) -> Measured:
        """Return what was measured since the start."""
        with self._lock:
            seconds = max(time.monotonic() - self._start, 1e-9)
            return Measured(
                self._frames,
                seconds,
                self._frames / seconds,
                self._age.ages(),
                self._written_age.ages(),
                _means(self._sums, self._frames),
                (),
            )


def _stages(times: FrameTimes) -> tuple[float, ...]:
    return times.capture_ms, times.prepare_ms, times.infer_ms, times.finish_ms, times.write_ms


def _ages(ages_ms: Sequence[float]) -> Ages:
    if not ages_ms:
        return Ages()
    return Ages(*(float(age) for age in np.percentile(ages_ms, (50, 90, 99))))


def _means(sums: np.ndarray[tuple[int, ...], np.dtype[np.float64]], frames: int) -> StageTimes:
    return StageTimes(*(float(total) / frames for total in sums)) if frames else StageTimes()
