"""Where the time of a frame goes: reading, preparing, copying, inferring, finishing, writing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.timing.device_latency import Stage, TimedEngine
from msfnet_benchmarks.timing.latency import LatencyReport, summarise_calls
from msfnet_runtime import DepthEstimator, DepthMap, Frame
from msfnet_runtime.sinks.folder import PngSink
from msfnet_runtime.sinks.options import SinkOptions

_COPIES = 20


class StagedRunner:
    """Answers frames as an estimator does, and notes what each stage took.

    Args:
        estimator: what answers.
        clock: seconds; replaced in tests.
    """

    def __init__(
        self, estimator: DepthEstimator, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._estimator, self._clock = estimator, clock
        self._moments: list[tuple[float, ...]] = []

    def __call__(self, frame: Frame) -> DepthMap:
        """Return the depth of a frame."""
        start = self._clock()
        batch = self._estimator.prepare(frame)
        prepared = self._clock()
        output = self._estimator.infer(batch)
        inferred = self._clock()
        depth = self._estimator.finish(output, frame)
        self._moments.append((start, prepared, inferred, self._clock()))
        return depth

    def engine_latency(self, name: str, rounds: int, frames: int) -> LatencyReport:
        """Return what the engine took, from batch to answer, in the last rounds."""
        return summarise_calls(name, self._taken(rounds * frames)[:, 1].reshape(rounds, frames))

    def stages(self, calls: int) -> dict[str, Stage]:
        """Return the stages of the last calls."""
        names = ("prepare", "infer", "finish")
        return {n: Stage.of(ms) for n, ms in zip(names, self._taken(calls).T, strict=True)}

    def _taken(self, calls: int) -> NDArray[np.float64]:
        """Return (calls, 3) milliseconds."""
        return 1e3 * np.diff(np.asarray(self._moments[-calls:], np.float64), axis=1)


def all_stages(
    runner: StagedRunner, estimator: DepthEstimator, frames: Sequence[Frame], calls: int
) -> Mapping[str, Stage]:
    """Return every stage but decoding, in the order of a stream.

    Copies are known of engines that time their own (TensorRT); elsewhere they are part of
    ``infer``. Writing is a 16-bit PNG into a temporary folder.

    Args:
        runner: after its timed calls.
        estimator: the runner's.
        frames: the timed ones.
        calls: how many were timed.
    """
    stages = runner.stages(calls)
    engine: Any = estimator.engine
    if hasattr(engine, "timed"):
        copy, infer = _copies(engine, estimator.prepare(frames[0]))
        finish = stages["finish"]
        stages = {"prepare": stages["prepare"], "copy": copy, "infer": infer, "finish": finish}
    return {**stages, "write": time_writing(estimator, frames)}


def _copies(engine: TimedEngine, batch: NDArray[Any]) -> tuple[Stage, Stage]:
    """Return copying, and all else that an engine's call takes."""
    runs = [engine.timed(batch) for _ in range(_COPIES)]
    return (
        Stage.of(run.h2d + run.d2h for run in runs),
        Stage.of(run.total - run.h2d - run.d2h for run in runs),
    )


def time_writing(estimator: DepthEstimator, frames: Sequence[Frame]) -> Stage:
    """Return what writing the depth of frames as 16-bit PNG takes."""
    seconds = []
    with (
        tempfile.TemporaryDirectory() as folder,
        PngSink(Path(folder, "depth"), estimator.spec, SinkOptions()) as sink,
    ):
        for frame in frames:
            depth = estimator(frame)
            start = time.perf_counter()
            sink.write(frame, depth)
            seconds.append(time.perf_counter() - start)
    return Stage.of(1e3 * taken for taken in seconds)
