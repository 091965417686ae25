"""Times the stages of a frame in a stream, and of a batch on the device.

The device's stages are those that NVIDIA's trtexec defines in its verbose log: latency is H2D
latency + GPU compute time + D2H latency; enqueue time is the host's.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.timing.core import (
    END_TO_END,
    Clock,
    Samples,
    TimedCall,
    Times,
    clocked,
    time_calls,
    time_stages,
)
from msfnet_runtime import DepthEstimator, Frame
from msfnet_runtime.engine import DeviceTimed, Timings
from msfnet_runtime.sinks.folder import PngSink
from msfnet_runtime.sinks.options import SinkOptions

T = TypeVar("T")

PREPARE, COPY, INFER, FINISH, WRITE = "prepare", "copy", "infer", "finish", "write"

H2D, COMPUTE, D2H = "H2D", "GPU compute", "D2H"
LATENCY, ENQUEUE = "latency", "enqueue"

_COPIES = 20
"""Runs from which the copies' share of a call is taken."""


def frame_call(estimator: DepthEstimator, clock: Clock = time.perf_counter) -> TimedCall[Frame]:
    """Return the call that answers a frame, with its preparing, inferring and finishing."""

    def timed(frame: Frame) -> Times:
        moments = [clock()]
        batch = estimator.prepare(frame)
        moments.append(clock())
        output = estimator.infer(batch)
        moments.append(clock())
        estimator.finish(output, frame)
        moments.append(clock())
        prepare, infer, finish = (1e3 * float(ms) for ms in np.diff(moments))
        whole = 1e3 * (moments[-1] - moments[0])
        return {END_TO_END: whole, PREPARE: prepare, INFER: infer, FINISH: finish}

    return timed


def device_call(
    engine: DeviceTimed, *, cuda_graph: bool | None = None, transfers: bool = True
) -> TimedCall[NDArray[Any]]:
    """Return the call that runs a batch with the times that the engine measures itself."""

    def timed(batch: NDArray[Any]) -> Times:
        run = engine.timed(batch, cuda_graph=cuda_graph, transfers=transfers)
        return {**device_times(run, transfers=transfers), END_TO_END: run.total}

    return timed


def device_times(run: Timings, *, transfers: bool) -> dict[str, float]:
    """Return the stages on the device, their sum, and the host's enqueue time, milliseconds.

    Without transfers there are no copies, and the latency is the GPU's compute time.
    """
    if not transfers:
        return {COMPUTE: run.compute, LATENCY: run.compute, ENQUEUE: run.enqueue}
    copies = {H2D: run.h2d, COMPUTE: run.compute, D2H: run.d2h}
    return {**copies, LATENCY: run.latency, ENQUEUE: run.enqueue}


def stream_stages(
    timed: Mapping[str, Samples],
    estimator: DepthEstimator,
    device: DeviceTimed | None,
    frames: Sequence[Frame],
) -> dict[str, Samples]:
    """Return every stage of a frame but decoding, in the order of a stream.

    Copies are known of engines that time their own stages (TensorRT); elsewhere they are part of
    ``infer``. Writing is a 16-bit PNG into a temporary folder.

    Args:
        timed: what :func:`frame_call` reported, by stage.
        estimator: the one that was timed.
        device: its engine where that times its own stages.
        frames: the timed ones.
    """
    stages = {PREPARE: timed[PREPARE], INFER: timed[INFER], FINISH: timed[FINISH]}
    if device is not None:
        split = _split_copies(device, estimator.prepare(frames[0]))
        stages = {PREPARE: stages[PREPARE], **split, FINISH: stages[FINISH]}
    return {**stages, WRITE: _time_writing(estimator, frames)}


def read_timed(items: Iterator[T], count: int) -> tuple[list[T], Samples]:
    """Return the next items, at most ``count``, and how long each took to come."""
    found: list[T] = []
    timed = time_calls(
        {"decode": lambda _: found.extend(islice(items, 1))}, range(count), rounds=1, warmup=0
    )
    return found, Samples("decode", timed["decode"].ms[:, : len(found)])


def _split_copies(device: DeviceTimed, batch: NDArray[Any]) -> dict[str, Samples]:
    """Return the time of copying, and of all else that an engine's call takes."""

    def timed(batch: NDArray[Any]) -> Times:
        run = device.timed(batch)
        copy = run.h2d + run.d2h
        return {END_TO_END: run.total, COPY: copy, INFER: run.total - copy}

    stages = time_stages({"copies": timed}, [batch], rounds=_COPIES)["copies"]
    return {COPY: stages[COPY], INFER: stages[INFER]}


def _time_writing(estimator: DepthEstimator, frames: Sequence[Frame]) -> Samples:
    """Return how long writing the depth of frames as 16-bit PNG takes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        PngSink(Path(folder, "depth"), estimator.spec, SinkOptions()) as sink,
    ):

        def write(frame: Frame) -> Times:
            depth = estimator(frame)
            return clocked(lambda _: sink.write(frame, depth))(None)

        return time_stages({WRITE: write}, frames, rounds=1, warmup=0)[WRITE][END_TO_END]
