"""Simulates a GPU with NumPy memory, streams that run as late as possible, strict lifetimes."""

from __future__ import annotations

import ctypes
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime import MsfnetError

BYTES_PER_MS = 1e4
"""Bytes that a copy moves in one simulated millisecond."""


@dataclass
class Work:
    """One item of work on a stream."""

    run: Callable[[], object]
    ms: float = 0.0
    touches: tuple[int, ...] = ()
    """Addresses that must be reserved when it runs."""
    after: tuple[FakeStream, int] | None = None
    """A stream, and how many of its items must be done first."""
    submitted: float = 0.0


@dataclass
class FakeStream:
    """A stream of work in order; ``done`` of ``submitted`` items are done."""

    queue: deque[Work] = field(default_factory=deque)
    submitted: int = 0
    done: int = 0
    clock: float = 0.0
    capture: list[Work] | None = None


@dataclass
class FakeEvent:
    """An event: where it was last recorded, and when that was reached."""

    at: tuple[FakeStream, int] | None = None
    reached: float | None = None


class FakeDevice:
    """Implements :class:`msfnet_runtime.cuda.base.Device` over NumPy.

    Work runs only when it is waited for, so a missing wait gives stale data; a host array that
    is still to be written holds 0xFF until then. With a seed, streams also run ahead at random.

    Args:
        seed: of the random run-ahead; None runs nothing before it must.
        graphs: why there are no graphs; empty for graphs.
    """

    def __init__(self, seed: int | None = None, graphs: str = "") -> None:
        self._random = random.Random(seed) if seed is not None else None
        self.graph_obstacle = graphs
        self.architecture, self.dlpack = "sm86", (1, 0)  # the memory is really the CPU's
        self.live: dict[int, Any] = {}
        self._freed: list[NDArray[Any]] = []
        self.now = 0.0
        self.total = 1 << 30
        self.log: list[str] = []
        self._next = 0x1000
        self._closed = False

    def memory(self) -> tuple[int, int]:
        """Return free and total bytes."""
        used = sum(thing.nbytes for thing in self.live.values() if isinstance(thing, np.ndarray))
        return self.total - used, self.total

    @contextmanager
    def active(self) -> Iterator[None]:
        """Do nothing: there is one device."""
        self._must(not self._closed, "the device is closed")
        yield

    def stream(self) -> int:
        """Create a stream."""
        return self._keep(FakeStream())

    def event(self) -> int:
        """Create an event."""
        return self._keep(FakeEvent())

    def allocate(self, size: int) -> int:
        """Allocate memory filled with 0xEE."""
        return self._keep_array(np.full(size, 0xEE, np.uint8))

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Allocate host memory filled with 0xDD."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self._keep_array(np.full(size, 0xDD, np.uint8))
        return np.asarray(self.live[address].view(dtype).reshape(shape))

    def copy_in(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Enqueue a copy to the device."""
        self.copy(address, array.ctypes.data, array.nbytes, stream)

    def copy_out(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Enqueue a copy from the device; fill the target with 0xFF until then."""
        self.copy(array.ctypes.data, address, array.nbytes, stream, poison=True)

    def copy(self, target: int, source: int, size: int, stream: int, poison: bool = False) -> None:
        """Enqueue a copy between two addresses of this device."""
        self.reserved(target, size)
        self.reserved(source, size)
        work = Work(
            lambda: ctypes.memmove(target, source, size),
            size / BYTES_PER_MS,
            (target, source),
        )
        self.submit(stream, work)
        if poison and self._stream(stream).queue:
            ctypes.memset(target, 0xFF, size)

    def submit(self, stream: int, work: Work) -> None:
        """Enqueue work on a stream, or add it to the graph being captured."""
        target = self._stream(stream)
        if target.capture is not None:
            target.capture.append(work)
            return
        work.submitted = self.now
        target.queue.append(work)
        target.submitted += 1
        while self._random and self._random.random() < 0.6:
            streams = [s for s in self._of(FakeStream) if s.queue]
            if streams:
                self._step(self._random.choice(streams))

    def record(self, event: int, stream: int) -> None:
        """Record the stream's work so far."""
        mark, target = self._thing(event, FakeEvent), self._stream(stream)

        def reach() -> None:
            mark.reached = target.clock

        mark.reached = None
        mark.at = (target, target.submitted + 1)
        self.submit(stream, Work(reach))

    def wait(self, stream: int, event: int) -> None:
        """Make the stream's later work wait."""
        self._must(self._stream(stream).capture is None, "waits are not part of these graphs")
        self.submit(stream, Work(lambda: None, after=self._thing(event, FakeEvent).at))

    def synchronize(self, stream: int) -> None:
        """Run all the stream's work."""
        target = self._stream(stream)
        self._must(target.capture is None, "operation not permitted when stream is capturing")
        self._run(target, target.submitted)
        self.now = max(self.now, target.clock)

    def synchronize_event(self, event: int) -> None:
        """Run the work before the event."""
        mark = self._thing(event, FakeEvent)
        if mark.at:
            self._run(*mark.at)
            self.now = max(self.now, mark.reached or 0.0)

    def elapsed_ms(self, start: int, end: int) -> float:
        """Return simulated milliseconds between two reached events."""
        times = [self._thing(event, FakeEvent).reached for event in (start, end)]
        self._must(None not in times, "device not ready")
        return float(times[1] - times[0])

    def begin_capture(self, stream: int) -> None:
        """Start a capture."""
        self._must(not self.graph_obstacle, self.graph_obstacle)
        self._stream(stream).capture = []

    def end_capture(self, stream: int) -> int:
        """Return the captured graph."""
        target = self._stream(stream)
        work, target.capture = target.capture, None
        self._must(work is not None, "no capture is open")
        return self._keep(work)

    def graph_nodes(self, graph: int) -> int:
        """Return the number of nodes."""
        return len(self._thing(graph, list))

    def instantiate(self, graph: int) -> int:
        """Return an instance of the graph."""
        return self._keep(tuple(self._thing(graph, list)))

    def launch(self, instance: int, stream: int) -> None:
        """Enqueue the work of a graph."""
        self.log.append("launch")
        for work in self._thing(instance, tuple):
            self.submit(stream, Work(work.run, work.ms, work.touches))

    def free(self, resource: int | NDArray[Any]) -> None:
        """Free a resource; pending work must not need it."""
        handle = resource if isinstance(resource, int) else resource.ctypes.data
        self._must(handle in self.live, f"{handle:#x} is not reserved, or was freed before")
        waiting = [work for stream in self._of(FakeStream) for work in stream.queue]
        self._must(not any(handle in work.touches for work in waiting), "freed while in use")
        thing = self.live.pop(handle)
        self._must(not getattr(thing, "queue", None), "a stream was destroyed with work on it")
        self._bury(thing)

    def close(self) -> None:
        """Free everything; no capture must be open and no work pending."""
        if self._closed:
            return
        self._closed = True
        for stream in self._of(FakeStream):
            self._must(stream.capture is None, "a capture was left open")
            self._must(not stream.queue, "closed with work that nobody waited for")
        for thing in self.live.values():
            self._bury(thing)
        self.live.clear()

    def reserved(self, address: int, size: int = 1) -> None:
        """Fail unless an allocation covers the range."""
        fits = any(
            start <= address and address + size <= start + memory.nbytes
            for start, memory in self.live.items()
            if isinstance(memory, np.ndarray)
        )
        self._must(fits, f"{size} bytes at {address:#x} are not reserved: an illegal address")

    def _run(self, stream: FakeStream, until: int) -> None:
        while stream.done < until:
            self._step(stream)

    def _step(self, stream: FakeStream) -> None:
        """Run one item of work, after the work it waits for."""
        work = stream.queue[0]
        if work.after:
            self._run(*work.after)
            stream.clock = max(stream.clock, work.after[0].clock)
        stream.queue.popleft()
        for address in work.touches:
            self.reserved(address)
        stream.clock = max(stream.clock, work.submitted) + work.ms
        work.run()
        stream.done += 1

    def _bury(self, thing: Any) -> None:
        """Fill freed memory with 0xCC and keep NumPy from using it again."""
        if isinstance(thing, np.ndarray):
            thing[:] = 0xCC
            self._freed.append(thing)

    def _keep(self, thing: Any) -> int:
        self._must(not self._closed, "the device is closed")
        self._next += 16
        self.live[self._next] = thing
        return self._next

    def _keep_array(self, array: NDArray[np.uint8]) -> int:
        self._must(self.memory()[0] >= array.nbytes, "out of memory")
        self.live[array.ctypes.data] = array
        return int(array.ctypes.data)

    def _of(self, kind: type) -> Iterable[Any]:
        return [thing for thing in self.live.values() if isinstance(thing, kind)]

    def _stream(self, handle: int) -> FakeStream:
        found: FakeStream = self._thing(handle, FakeStream)
        return found

    def _thing(self, handle: int, kind: type) -> Any:
        self._must(isinstance(self.live.get(handle), kind), f"no {kind.__name__} {handle:#x}")
        return self.live[handle]

    @staticmethod
    def _must(fine: object, words: str) -> None:
        if not fine:
            raise MsfnetError(f"fake device: {words}; correct the caller")
