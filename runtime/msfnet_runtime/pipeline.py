"""Reading, inference and writing overlapped: three threads, two short queues."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.channel import Channel
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.estimator import DepthEstimator
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sink import Sink
from msfnet_runtime.source import Source
from msfnet_runtime.types import Frame

_QUEUED = 4
"""Frames a file source may be ahead: enough to even out the stages, little memory."""

_POLL_S = 0.02
"""How long to wait for a frame before looking at the sinks again, seconds."""


@dataclass(frozen=True)
class StreamReport:
    """What a stream did. Stages overlap, so their times add up to more than 1 / fps."""

    frames: int
    """Frames written."""
    dropped: int
    """Frames of a live source that a newer one replaced before they were looked at."""
    seconds: float
    """From the first read to the last write, seconds."""
    fps: float
    """Frames written per second."""
    age_p50_ms: float
    """Median time from having a frame to having written its depth, milliseconds."""
    age_p90_ms: float
    age_p99_ms: float
    read_ms: float
    """Mean time to read a frame and, unless live, to prepare it; a camera's own wait counts."""
    infer_ms: float
    """Mean time of the model, preparing included where the source is live."""
    write_ms: float
    """Mean time to finish the depth and to write it."""
    engine: str
    """What ran the model."""

    def text(self) -> str:
        """Return the report as three lines."""
        dropped = f", {self.dropped} older frames dropped" if self.dropped else ""
        return (
            f"{self.frames} frames in {self.seconds:.1f} s, {self.fps:.1f} frames/s{dropped}\n"
            f"age of the depth when written: median {self.age_p50_ms:.0f} ms, "
            f"90% {self.age_p90_ms:.0f} ms, 99% {self.age_p99_ms:.0f} ms\n"
            f"per frame: read {self.read_ms:.1f} ms, infer {self.infer_ms:.1f} ms, "
            f"write {self.write_ms:.1f} ms, overlapped; engine {self.engine}"
        )


class _Taken(NamedTuple):
    """A frame that was read."""

    frame: Frame
    moment: float
    """When the frame was there, on the monotonic clock, seconds."""
    batch: NDArray[Any] | None
    """What the engine takes; None where that is yet to be made."""


class _Answered(NamedTuple):
    """A frame with the engine's answer."""

    frame: Frame
    moment: float
    output: NDArray[np.float32]


@dataclass
class _Times:
    """Seconds spent in each stage, and the age of each depth map, seconds."""

    read: float = 0.0
    infer: float = 0.0
    write: float = 0.0
    reads: int = 0
    ages: array[float] = field(default_factory=lambda: array("d"))


def run_pipeline(
    source: Source,
    estimator: DepthEstimator,
    sinks: Sequence[Sink],
    *,
    max_frames: int | None = None,
    progress: Progress = silent,
) -> StreamReport:
    """Run every frame of an open source through a model into open sinks.

    A reader thread reads ahead, the calling thread infers, a writer thread finishes and writes.
    Of a file every frame is written, in order; of a live source only the newest is looked at,
    and older ones are dropped. An error anywhere stops all three and is raised here; no thread
    outlives the call. Ctrl-C ends a live source, which has no end of its own, as if it had
    ended; in a file it is raised.

    Args:
        source: the frames.
        estimator: the model.
        sinks: where frame and depth go.
        max_frames: stop after so many; None takes all.
        progress: called by the writer as (frames written, total or 0, rate).

    Raises:
        MsfnetError: the source is empty, or any stage's own.
    """
    if max_frames is not None and max_frames < 1:
        raise MsfnetError(f"max_frames must be at least 1, not {max_frames}; leave it out for all")
    return _Run(source, estimator, sinks, max_frames, progress).report()


class _Run:
    """One run: its queues, its threads and the first error."""

    def __init__(
        self,
        source: Source,
        estimator: DepthEstimator,
        sinks: Sequence[Sink],
        max_frames: int | None,
        progress: Progress,
    ) -> None:
        self._source = source
        self._estimator = estimator
        self._sinks = sinks
        self._max_frames = max_frames
        self._progress = progress
        capacity = 1 if source.live else _QUEUED
        self._taken: Channel[_Taken] = Channel(capacity, newest=source.live)
        self._answered: Channel[_Answered] = Channel(capacity)
        self._times = _Times()
        self._errors: list[BaseException] = []

    def report(self) -> StreamReport:
        """Run to the end and say how it went."""
        self._start = time.monotonic()
        self._run()
        seconds = time.monotonic() - self._start
        times, frames = self._times, len(self._times.ages)
        if self._errors:
            raise self._errors[0]
        if not frames:
            raise MsfnetError("the source gave no frames; check that it holds any")
        p50, p90, p99 = (float(age) for age in np.percentile(times.ages, (50, 90, 99)) * 1000)
        return StreamReport(
            frames=frames,
            dropped=self._taken.dropped,
            seconds=seconds,
            fps=frames / seconds,
            age_p50_ms=p50,
            age_p90_ms=p90,
            age_p99_ms=p99,
            read_ms=times.read / max(times.reads, 1) * 1000,
            infer_ms=times.infer / frames * 1000,
            write_ms=times.write / frames * 1000,
            engine=self._estimator.engine.describe(),
        )

    def _run(self) -> None:
        """Start the threads, infer here, and see every thread out whatever happens."""
        threads = [
            threading.Thread(target=self._guard, args=(stage,), name=name, daemon=True)
            for stage, name in ((self._reader, "msfnet-read"), (self._writer, "msfnet-write"))
        ]
        for thread in threads:
            thread.start()
        try:
            self._guard(lambda: self._drive(threads[1]))
        finally:
            self._stop()
            for thread in threads:
                thread.join()

    def _drive(self, writer: threading.Thread) -> None:
        """Infer, then wait until all is written, so that Ctrl-C is heard to the end."""
        self._infer()
        self._taken.cancel()
        self._answered.finish()
        while writer.is_alive():
            writer.join(_POLL_S)
            self._poll()

    def _guard(self, stage: Callable[[], None]) -> None:
        """Run a stage; its error stops the others and waits for the caller."""
        with ExitStack() as stack:
            stack.push(self._keep)
            stage()

    def _keep(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Keep a stage's error for :meth:`report` to raise."""
        if error is not None:
            if not (self._source.live and isinstance(error, KeyboardInterrupt)):
                self._errors.append(error)
            self._stop()
        return True

    def _stop(self) -> None:
        self._taken.cancel()
        self._answered.cancel()

    def _reader(self) -> None:
        """Read ahead; of a live source nothing but read, since the frame may be dropped."""
        frames, times, live = iter(self._source), self._times, self._source.live
        while live or times.reads != self._max_frames:
            start = time.monotonic()
            frame = next(frames, None)
            moment = time.monotonic()
            if frame is None:
                break
            batch = None if live else self._estimator.prepare(frame)
            times.read += time.monotonic() - start
            times.reads += 1
            if not self._taken.put(_Taken(frame, moment, batch)):
                return
        self._taken.finish()

    def _infer(self) -> None:
        """Infer frame after frame until the source, a sink or the count ends it."""
        frames = 0
        while frames != self._max_frames and self._poll() and not self._taken.over:
            taken = self._taken.get(_POLL_S)
            if taken is None:
                continue
            start = time.monotonic()
            batch = self._estimator.prepare(taken.frame) if taken.batch is None else taken.batch
            output = self._estimator.infer(batch)
            self._times.infer += time.monotonic() - start
            self._answered.put(_Answered(taken.frame, taken.moment, output))
            frames += 1

    def _poll(self) -> bool:
        """Let every sink do its part in this thread; tell whether all want to go on."""
        wishes = [sink.poll() for sink in self._sinks]
        return all(wishes)

    def _writer(self) -> None:
        """Finish and write frame after frame, in order."""
        total = min((n for n in (self._source.length, self._max_frames) if n), default=0)
        while not self._answered.over:
            answered = self._answered.get(_POLL_S)
            if answered is None:
                continue
            start = time.monotonic()
            depth = self._estimator.finish(answered.output, answered.frame)
            for sink in self._sinks:
                sink.write(answered.frame, depth)
            now = time.monotonic()
            self._times.write += now - start
            self._times.ages.append(now - answered.moment)
            written = len(self._times.ages)
            self._progress(written, total, f"{written / (now - self._start):.1f} frames/s")
