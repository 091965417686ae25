"""Capture, preparing, inference, finishing and writing overlapped: five threads, short queues."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.channel import Channel
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.estimator import DepthEstimator
from msfnet_runtime.meter import Measured, Meter
from msfnet_runtime.sink import Sink
from msfnet_runtime.source import Source
from msfnet_runtime.stages import Item, relay
from msfnet_runtime.stream_stats import FrameTimes, QueueDepths, StreamStats
from msfnet_runtime.types import DepthMap, Frame

Observer = Callable[[StreamStats], None]

_AHEAD = 2
"""Frames of a file that wait before and after preparing: enough to even out the stages."""

_IN_FLIGHT = 6
"""Frames of a file from the model to the last sink."""

_IN_FLIGHT_LIVE = 3
"""The same of a live source: one in the model, one being finished, one being written."""

_POLL_S = 0.02
"""How long to wait for anything before looking at the sinks again, seconds."""


def never() -> bool:
    """Do not stop."""
    return False


def run_pipeline(
    source: Source,
    estimator: DepthEstimator,
    sinks: Sequence[Sink],
    *,
    max_frames: int | None = None,
    max_fps: float | None = None,
    observers: Sequence[Observer] = (),
    interval_s: float = 1.0,
    stop: Callable[[], bool] = never,
) -> StreamStats:
    """Run every frame of an open source through a model into open sinks.

    Capture, preparing, finishing and writing have a thread each; the calling thread infers. Of a
    file every frame is written, in order, and reading waits for writing. Of a live source the
    model takes the newest frame there is when it becomes free; older ones are dropped. The
    number of frames in memory is constant. An error anywhere, Ctrl-C included, stops all and is
    raised here; no thread outlives the call.

    Args:
        source: the frames.
        estimator: the model.
        sinks: where frame and depth go.
        max_frames: stop after so many; None takes all.
        max_fps: take no more frames than so many per second.
        observers: called with a snapshot every interval, in a thread of their own, and at the end
            with the whole run's.
        interval_s: seconds between snapshots.
        stop: asked many times a second; True ends the stream as if the source had ended.

    Returns:
        The statistics of the whole run.

    Raises:
        MsfnetError: the source is empty, or any stage's own.
    """
    if max_frames is not None and max_frames < 1:
        raise MsfnetError(f"max_frames must be at least 1, not {max_frames}; leave it out for all")
    for name, value in (("max_fps", max_fps), ("interval_s", interval_s)):
        if value is not None and not value > 0:
            raise MsfnetError(f"{name} must be above 0, not {value}; change it")
    run = _Run(source, estimator, sinks, stop)
    return run.report(max_frames, 1 / max_fps if max_fps else 0.0, observers, interval_s)


class _Run:
    """One run: its queues, its threads and the first error."""

    def __init__(
        self,
        source: Source,
        estimator: DepthEstimator,
        sinks: Sequence[Sink],
        stop: Callable[[], bool],
    ) -> None:
        self._source, self._estimator, self._sinks = source, estimator, sinks
        self._stop_asked = stop
        live = source.live
        ahead, in_flight = (1, _IN_FLIGHT_LIVE) if live else (_AHEAD, _IN_FLIGHT)
        self._captured: Channel[Item[None]] = Channel(ahead, newest=live)
        self._prepared: Channel[Item[NDArray[Any]]] = Channel(ahead, newest=live)
        self._inferred: Channel[Item[NDArray[np.float32]]] = Channel(in_flight)
        self._finished: Channel[Item[DepthMap]] = Channel(in_flight)
        self._room = threading.Semaphore(in_flight)
        self._captures = self._outdated = 0
        self._due = 0.0
        self._meter = Meter()
        self._ended = threading.Event()
        self._errors: list[BaseException] = []

    def report(
        self,
        max_frames: int | None,
        period_s: float,
        observers: Sequence[Observer],
        interval_s: float,
    ) -> StreamStats:
        """Run to the end and say how it went."""
        self._max_frames, self._period_s = max_frames, period_s
        self._total = min((n for n in (self._source.length, max_frames) if n), default=0)

        def tell(stats: StreamStats) -> None:
            for observer in observers:
                observer(stats)

        def watch() -> None:
            while not self._ended.wait(interval_s):
                tell(self._stats(self._meter.interval()))

        self._run([watch] if observers else [])
        if self._errors:
            raise self._errors[0]
        whole = self._stats(self._meter.whole())
        tell(replace(whole, recent=self._meter.interval().recent))
        if not whole.frames:
            raise MsfnetError(
                "stopped before the first frame was written; there is nothing to keep"
                if self._stop_asked()
                else "the source gave no frames; check that it holds any"
            )
        return whole

    def _stats(self, measured: Measured) -> StreamStats:
        health = self._source.health
        channels = (self._captured, self._prepared, self._inferred, self._finished)
        dropped = self._captured.dropped + self._prepared.dropped
        return StreamStats(
            frames=measured.frames,
            total=self._total,
            dropped=dropped + self._outdated + health.dropped,
            skipped=health.skipped,
            losses=health.losses,
            seconds=measured.seconds,
            fps=measured.fps,
            age=measured.age,
            written_age=measured.written_age,
            stages=measured.stages,
            queues=QueueDepths(*(channel.waiting for channel in channels)),
            engine=self._estimator.engine.describe(),
            live=self._source.live,
            recent=measured.recent,
        )

    def _run(self, watchers: Sequence[Callable[[], None]]) -> None:
        """Start the threads, infer here, and see every thread out whatever happens."""
        stages = (self._capture, self._prepare, self._finish, *watchers, self._write)
        threads = [
            threading.Thread(
                target=self._guard, args=(stage,), name=f"msfnet-{stage.__name__}", daemon=True
            )
            for stage in stages
        ]
        for thread in threads:
            thread.start()
        try:
            self._guard(lambda: self._drive(threads[-1]))
        finally:
            self._cancel()
            self._ended.set()
            for thread in threads:
                thread.join()

    def _drive(self, writer: threading.Thread) -> None:
        """Infer, then wait until all is written, polling to the end."""
        frames = 0
        while frames != self._max_frames and (item := self._next()) is not None:
            self._inferred.put(item.passed(lambda batch, _: self._estimator.infer(batch)))
            frames += 1
        self._source.stop()
        self._captured.cancel()
        self._prepared.cancel()
        self._inferred.finish()
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
            self._errors.append(error)
            self._cancel()
        return True

    def _cancel(self) -> None:
        self._source.stop()
        for channel in (self._captured, self._prepared, self._inferred, self._finished):
            channel.cancel()

    def _poll(self) -> bool:
        """Let every sink do its part in this thread; tell whether all want to go on."""
        wishes = [sink.poll() for sink in self._sinks]
        return all(wishes) and not self._stop_asked()

    def _next(self) -> Item[NDArray[Any]] | None:
        """Wait until it is time, there is room, and a frame; None when the stream ends.

        A live source's frame is the newest that was captured when the first two were so.
        """
        while not self._may_infer():
            if self._prepared.over or not self._poll():
                return None
        newest = self._captures if self._source.live else 0
        while self._poll() and not self._prepared.over:
            item = self._prepared.get(_POLL_S)
            if item is not None and item.number >= newest:
                return item
            self._outdated += item is not None
        return None

    def _may_infer(self) -> bool:
        """Wait a little; tell whether ``max_fps`` and the frames in flight allow another."""
        ahead = self._due - time.monotonic()
        if ahead > 0:
            time.sleep(min(ahead, _POLL_S))
        if ahead > _POLL_S or not self._room.acquire(timeout=_POLL_S):
            return False
        self._due = max(self._due + self._period_s, time.monotonic())
        return True

    def _capture(self) -> None:
        """Read ahead, no further than frames are wanted."""
        frames, live = iter(self._source), self._source.live
        while live or self._captures != self._max_frames:
            start = time.monotonic()
            frame = next(frames, None)
            now = time.monotonic()
            if frame is None:
                break
            self._captures += 1
            item = Item(frame, self._captures, now, (now - start,), None, now)
            if not self._captured.put(item):
                return
        self._captured.finish()

    def _prepare(self) -> None:
        relay(self._captured, lambda _, frame: self._estimator.prepare(frame), self._prepared)

    def _finish(self) -> None:
        relay(self._inferred, self._estimator.finish, self._finished)

    def _write(self) -> None:
        """Write frame after frame, in order."""
        while (item := self._finished.get()) is not None:
            written = item.passed(self._write_one)
            ages = (item.moment - item.captured, written.moment - item.captured)
            milliseconds = (1000 * seconds for seconds in (*ages, *written.seconds))
            self._meter.add(FrameTimes(item.frame.index, *milliseconds))
            self._room.release()

    def _write_one(self, depth: DepthMap, frame: Frame) -> None:
        for sink in self._sinks:
            sink.write(frame, depth)
