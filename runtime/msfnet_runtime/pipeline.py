"""Runs capture, preparation, inference, finishing and writing in five overlapping threads.

The calling thread only watches, so that signals are heard while any of them hangs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.channel import CLOCK, Channel, Clock
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.estimator import DepthEstimator
from msfnet_runtime.sink import Sink
from msfnet_runtime.source import Source
from msfnet_runtime.stream_stats import FrameTimes, Meter, QueueDepths, StreamStats
from msfnet_runtime.types import DepthMap, Frame

S = TypeVar("S")
T = TypeVar("T")

Observer = Callable[[StreamStats], None]

_AHEAD = 2
"""Frames of a file that wait before and after preparation: enough to even out the stages."""

_IN_FLIGHT = 6
"""Frames of a file from the model to the last sink."""

_IN_FLIGHT_LIVE = 3
"""Frames of a live source in the same stages: one in inference, one in each of the others."""

_POLL_S = 0.02
"""The longest time between two polls of the sinks, seconds."""

_SOURCE_HANGS_S = 3.0
"""The time that a source has to respond once the stream is over, seconds."""

_STAGE_HANGS_S = 10.0
"""The time that any stage has to end after an error, seconds."""

_LOGGER = logging.getLogger("msfnet_runtime.pipeline")


def never() -> bool:
    """Never stop the stream."""
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
    clock: Clock = CLOCK,
) -> StreamStats:
    """Run every frame of an open source through a model into open sinks.

    Each stage has a thread; the calling thread polls the sinks and ``stop``. Every frame of a file
    is written, in order, and reading waits for writing. From a live source the model gets the
    newest frame when it becomes free; older frames are dropped. The number of frames in memory is
    constant. An error in any thread, Ctrl-C included, stops the pipeline and
    is raised here. A thread outlives the call only if foreign code in it hangs: a source that does
    not respond when it is stopped, or any stage after an error; a warning names it.

    Args:
        source: provides the frames.
        estimator: the model.
        sinks: receive each frame with its depth.
        max_frames: stop after this many frames; None processes all.
        max_fps: process at most this many frames per second.
        observers: called with a snapshot every interval, in a separate thread, and at the end
            with the statistics of the whole run.
        interval_s: seconds between snapshots.
        stop: called many times a second; True ends the stream as if the source had ended.
        clock: measures the stages, the intervals and ``max_fps``.

    Returns:
        The statistics of the whole run.

    Raises:
        MsfnetError: the source is empty, an argument is out of range, or a stage failed.
    """
    if max_frames is not None and max_frames < 1:
        raise MsfnetError(f"max_frames must be at least 1, not {max_frames}; leave it out for all")
    for name, value in (("max_fps", max_fps), ("interval_s", interval_s)):
        if value is not None and not value > 0:
            raise MsfnetError(f"{name} must be above 0, not {value}; change it")
    run = _Run(source, estimator, sinks, stop, clock)
    run.max_frames, run.period_s = max_frames, 1 / max_fps if max_fps else 0.0
    return run.report(observers, interval_s)


@dataclass(frozen=True)
class _Item(Generic[T]):
    """A frame on its way through the stages."""

    frame: Frame
    number: int
    """Number of frames captured so far, including this one."""
    captured: float
    """Time of capture, seconds."""
    seconds: tuple[float, ...]
    """Duration of each stage so far."""
    content: T
    """Result of the last stage."""
    completed: float
    """Time at which the last stage was completed, seconds."""


class _Run:
    """One run: its queues, its threads and the first error."""

    def __init__(
        self,
        source: Source,
        estimator: DepthEstimator,
        sinks: Sequence[Sink],
        stop: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._source, self._estimator, self._sinks = source, estimator, sinks
        self._stop_requested, self._clock = stop, clock
        live = source.live
        ahead, in_flight = (1, _IN_FLIGHT_LIVE) if live else (_AHEAD, _IN_FLIGHT)
        self._captured: Channel[_Item[None]] = Channel(ahead, newest=live, clock=clock)
        self._prepared: Channel[_Item[NDArray[Any]]] = Channel(ahead, newest=live, clock=clock)
        self._inferred: Channel[_Item[NDArray[np.float32]]] = Channel(in_flight, clock=clock)
        self._finished: Channel[_Item[DepthMap]] = Channel(in_flight, clock=clock)
        self._permits: Channel[bool] = Channel(in_flight, clock=clock)
        for _ in range(in_flight):
            self._permits.put(True)
        self._done: Channel[None] = Channel(1, clock=clock)
        self.max_frames: int | None = None
        self.period_s = self._due = 0.0
        self._captures = self._outdated = 0
        self._checked = self._ending = False
        self._meter = Meter(clock)
        self._errors: list[BaseException] = []

    def report(self, observers: Sequence[Observer], interval_s: float) -> StreamStats:
        """Run to the end and return the statistics."""

        def notify(stats: StreamStats) -> None:
            for observer in observers:
                observer(stats)

        def watch() -> None:
            while not self._done.wait_until_over(interval_s):
                notify(self._stats(self._meter.interval()))

        self._run([watch] if observers else [])
        if self._errors:
            raise self._errors[0]
        whole = self._stats(self._meter.whole())
        notify(replace(whole, recent=self._meter.interval().recent))
        if not whole.frames:
            raise MsfnetError(
                "stopped before the first frame was written; there is nothing to keep"
                if self._stop_requested()
                else "the source contains no frames; check it"
            )
        return whole

    def _stats(self, measured: StreamStats) -> StreamStats:
        """Complete measurements with the state of source, queues and engine."""
        health = self._source.health
        channels = (self._captured, self._prepared, self._inferred, self._finished)
        dropped = self._captured.dropped + self._prepared.dropped
        return replace(
            measured,
            total=min((n for n in (self._source.length, self.max_frames) if n), default=0),
            dropped=dropped + self._outdated + health.dropped,
            skipped=health.skipped,
            losses=health.losses,
            queues=QueueDepths(*(channel.waiting for channel in channels)),
            engine=self._estimator.engine.describe(),
            live=self._source.live,
        )

    def _run(self, watchers: Sequence[Callable[[], None]]) -> None:
        """Start the threads, poll in this one, and wait for all of them in any case."""
        stages = (self._capture, self._prepare, self._infer, self._finish, self._write, *watchers)
        exits: Channel[threading.Thread] = Channel(len(stages), clock=self._clock)

        def run_stage(stage: Callable[[], None]) -> None:
            self._guard(stage)
            exits.put(threading.current_thread())

        threads = [
            threading.Thread(
                target=run_stage,
                args=(stage,),
                name=f"msfnet-{stage.__name__.lstrip('_')}",
                daemon=True,
            )
            for stage in stages
        ]
        try:
            self._guard(self._poll)  # a stop that was requested before begins nothing
            for thread in threads:
                thread.start()
            self._guard(self._watch)
        finally:
            self._cancel()
            self._await(threads, exits)

    def _await(self, threads: list[threading.Thread], exits: Channel[threading.Thread]) -> None:
        """Wait for the threads to end; leave those that hang behind, and name them."""
        running = list(threads)
        limit_s = _STAGE_HANGS_S if self._errors else _SOURCE_HANGS_S
        while running and (ended := exits.get(limit_s)) is not None:
            ended.join()
            running.remove(ended)
        for thread in running:
            _LOGGER.warning("%s does not respond and is left behind", thread.name)

    def _watch(self) -> None:
        """Poll the sinks until everything is written."""
        while not self._done.wait_until_over(_POLL_S):
            self._poll()

    def _infer(self) -> None:
        frames = 0
        while frames != self.max_frames and (item := self._next()) is not None:
            self._inferred.put(self._advance(item, lambda batch, _: self._estimator.infer(batch)))
            frames += 1
        self._end_input()
        self._inferred.finish()

    def _end_input(self) -> None:
        """Read no further frame."""
        self._ending = True
        self._source.stop()
        self._captured.cancel()
        self._prepared.cancel()

    def _guard(self, stage: Callable[[], None]) -> None:
        """Run a stage; its error stops the others and is kept for :meth:`report` to raise."""
        try:
            stage()
        except BaseException as error:  # noqa: BLE001 - also Ctrl-C; report raises it
            self._errors.append(error)
            self._cancel()

    def _cancel(self) -> None:
        self._source.stop()
        for channel in (self._captured, self._prepared, self._inferred, self._finished, self._done):
            channel.cancel()

    def _poll(self) -> None:
        """Let every sink do its part in this thread; end the stream if one of them asks for it."""
        continues = [sink.poll() for sink in self._sinks]
        if not self._ending and (not all(continues) or self._stop_requested()):
            self._end_input()

    def _next(self) -> _Item[NDArray[Any]] | None:
        """Wait until it is time, there is room and there is a frame; None when the stream ends.

        From a live source this is the newest frame captured at the time when the first two held.
        """
        while not self._can_infer():
            if self._prepared.over or self._ending:
                return None
        newest = self._captures if self._source.live else 0
        while not self._ending and not self._prepared.over:
            item = self._prepared.get(_POLL_S)
            if item is not None and item.number >= newest:
                return item
            self._outdated += item is not None
        return None

    def _can_infer(self) -> bool:
        """Wait a little; return whether ``max_fps`` and the frames in flight allow another."""
        ahead = self._due - self._clock.now()
        if ahead > 0:
            self._done.wait_until_over(min(ahead, _POLL_S))
        if ahead > _POLL_S or self._permits.get(_POLL_S) is None:
            return False
        self._due = max(self._due + self.period_s, self._clock.now())
        return True

    def _capture(self) -> None:
        """Read ahead, but no more frames than are needed."""
        frames, live = iter(self._source), self._source.live
        while live or self._captures != self.max_frames:
            start = self._clock.now()
            frame = next(frames, None)
            now = self._clock.now()
            if frame is None:
                break
            self._captures += 1
            item = _Item(frame, self._captures, now, (now - start,), None, now)
            if not self._captured.put(item):
                return
        self._captured.finish()

    def _prepare(self) -> None:
        self._relay(self._captured, lambda _, frame: self._estimator.prepare(frame), self._prepared)

    def _finish(self) -> None:
        self._relay(self._inferred, self._estimator.finish, self._finished)

    def _write(self) -> None:
        """Write the frames in order."""
        while (item := self._finished.get()) is not None:
            written = self._advance(item, self._write_frame)
            ages = (item.completed - item.captured, written.completed - item.captured)
            milliseconds = (1000 * seconds for seconds in (*ages, *written.seconds))
            self._meter.add(FrameTimes(item.frame.index, *milliseconds))
            self._permits.put(True)
        self._done.finish()

    def _write_frame(self, depth: DepthMap, frame: Frame) -> None:
        if not self._checked:
            for sink in self._sinks:
                sink.check(frame)
            self._checked = True
        for sink in self._sinks:
            sink.write(frame, depth)

    def _relay(
        self, inbox: Channel[_Item[S]], work: Callable[[S, Frame], T], outbox: Channel[_Item[T]]
    ) -> None:
        """Process items from one channel into the next until either ends."""
        while (item := inbox.get()) is not None:
            if not outbox.put(self._advance(item, work)):
                return
        outbox.finish()

    def _advance(self, item: _Item[S], work: Callable[[S, Frame], T]) -> _Item[T]:
        """Run one stage on an item and measure its duration."""
        start = self._clock.now()
        content = work(item.content, item.frame)
        now = self._clock.now()
        seconds = (*item.seconds, now - start)
        return _Item(item.frame, item.number, item.captured, seconds, content, now)
