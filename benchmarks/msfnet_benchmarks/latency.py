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
    )
