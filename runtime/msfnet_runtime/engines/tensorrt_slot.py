"""Runs batches on the GPU in steps: copy in, one execution context, copy out.

Several slots keep several batches in flight: one is copied in while another computes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.closing import Closing
from msfnet_runtime.cuda.base import Device
from msfnet_runtime.engine import Timings
from msfnet_runtime.engines.tensorrt_context import Context, Shape
from msfnet_runtime.errors import MsfnetError

_GRAPH_TOLERANCE = 1e-3
"""Largest accepted difference between the output of a CUDA graph and that of the plain run, as a
fraction of the largest output value."""


class Streams(NamedTuple):
    """The CUDA streams on which copies and compute overlap; events order them."""

    copy_in: int
    compute: int
    copy_out: int


class _Memory:
    """Holds the host and device memory of one tensor, which grows and never shrinks."""

    def __init__(self, device: Device, dtype: str) -> None:
        self._device, self._dtype = device, np.dtype(dtype)
        self._pinned: NDArray[Any] | None = None
        self.address = 0
        self.host: NDArray[Any] = np.empty(0, self._dtype)

    def fit(self, shape: Shape) -> None:
        """Allocate room for a shape; the previous contents are lost."""
        size = int(np.prod(shape)) * self._dtype.itemsize
        if self._pinned is None or self._pinned.nbytes < size:
            self.free()
            self.address = self._device.allocate(size)
            self._pinned = self._device.pinned((size,), "uint8")
        self.host = self._pinned[:size].view(self._dtype).reshape(shape)

    def free(self) -> None:
        """Free both."""
        self.host = np.empty(0, self._dtype)
        if self._pinned is not None:
            self._device.free(self._pinned)
            self._pinned = None
        if self.address:
            self._device.free(self.address)
            self.address = 0


class _Stage(NamedTuple):
    """The CUDA events before and after one stage."""

    start: int
    end: int


class ExecutionSlot:
    """Owns one execution context and its memory, and runs one batch at a time.

    Between :meth:`submit` and :meth:`result` other slots can run.
    """

    def __init__(self, device: Device, context: Context, streams: Streams) -> None:
        self._device, self._context, self._streams = device, context, streams
        self._input = _Memory(device, context.input.dtype)
        self._output = _Memory(device, context.output.dtype)
        self._in, self._compute, self._out = (
            _Stage(device.event(), device.event()) for _ in streams
        )
        self._shape: Shape = ()
        self._graph = 0
        self._started = self._enqueue_ms = 0.0

    def prepare(self, shape: Shape) -> None:
        """Fit context and memory to a shape; a new shape discards the CUDA graph.

        Raises:
            MsfnetError: no profile of the engine holds the shape, or memory is short.
        """
        if shape == self._shape:
            return
        self._shape = ()
        self.without_graph()
        output = self._context.set_shape(shape, self._streams.compute)
        self._input.fit(shape)
        self._output.fit(output)
        self._context.bind(self._input.address, self._output.address)
        self._shape = shape

    def submit(self, batch: NDArray[Any], *, transfers: bool = True) -> None:
        """Start a batch of the prepared shape, with the CUDA graph if one was captured.

        Args:
            batch: copied before this returns.
            transfers: False computes on the batch that :meth:`upload` copied to the device, and
                leaves the output there.
        """
        self._input.host[...] = batch
        self._started = time.perf_counter()
        if transfers:
            self._copy(self._in, self._streams.copy_in)
            self._device.wait(self._streams.compute, self._in.end)
        self._device.record(self._compute.start, self._streams.compute)
        before = time.perf_counter()
        self._run()
        self._enqueue_ms = 1e3 * (time.perf_counter() - before)
        self._device.record(self._compute.end, self._streams.compute)
        if transfers:
            self._device.wait(self._streams.copy_out, self._compute.end)
            self._copy(self._out, self._streams.copy_out)

    def result(self) -> NDArray[np.float32]:
        """Wait for the submitted batch and return its output."""
        self._device.synchronize_event(self._out.end)
        return self._output.host.copy()

    def timings(self, *, transfers: bool = True) -> Timings:
        """Wait for the submitted batch and return the times of its stages."""
        self._device.synchronize_event(self._out.end if transfers else self._compute.end)
        total = 1e3 * (time.perf_counter() - self._started)
        stages = (self._in, self._compute, self._out)
        h2d, compute, d2h = (
            self._device.elapsed_ms(*stage) if transfers or stage is self._compute else 0.0
            for stage in stages
        )
        return Timings(h2d, compute, d2h, self._enqueue_ms, total)

    def upload(self, batch: NDArray[Any]) -> None:
        """Copy a batch of the prepared shape to the device and wait for it."""
        self._input.host[...] = batch
        self._copy(self._in, self._streams.copy_in)
        self._device.synchronize(self._streams.copy_in)

    def use_graph(self, batch: NDArray[Any]) -> str:
        """Capture a CUDA graph for the prepared shape, if there is none, and verify it.

        The graph is captured with one batch and verified with another, which reveals an input
        that was frozen during the capture.

        Returns:
            The reason why there is no graph, empty if there is one. Without a graph the slot runs
            the plain way.

        Raises:
            MsfnetError: the plain run fails.
        """
        if self._graph:
            return ""
        self.upload(np.flip(batch))
        plain = self._run_and_wait()
        self.upload(batch)
        self._run_and_wait()
        try:
            self._graph = self._capture()
            self.upload(np.flip(batch))
            replayed = self._replay()
        except MsfnetError as error:
            self.without_graph()
            return str(error)
        limit = _GRAPH_TOLERANCE * float(np.abs(plain).max(initial=0))
        if np.allclose(plain, replayed, rtol=0, atol=limit, equal_nan=True):
            return ""
        self.without_graph()
        return "the output of the graph differs from that of the plain run"

    def without_graph(self) -> None:
        """Discard the CUDA graph."""
        if self._graph:
            self._device.free(self._graph)
            self._graph = 0

    def close(self) -> None:
        """Free context, memory, events and graph."""
        self.without_graph()
        self._context.close()
        for memory in (self._input, self._output):
            memory.free()
        for stage in (self._in, self._compute, self._out):
            self._device.free(stage.start)
            self._device.free(stage.end)

    def _copy(self, stage: _Stage, stream: int) -> None:
        self._device.record(stage.start, stream)
        if stage is self._in:
            self._device.copy_in(self._input.address, self._input.host, stream)
        else:
            self._device.copy_out(self._output.host, self._output.address, stream)
        self._device.record(stage.end, stream)

    def _run(self) -> None:
        if self._graph:
            self._device.launch(self._graph, self._streams.compute)
        else:
            self._context.enqueue(self._streams.compute)

    def _run_and_wait(self) -> NDArray[Any]:
        """Run the batch that is on the device and wait for the output."""
        self._run()
        self._device.copy_out(self._output.host, self._output.address, self._streams.compute)
        self._device.synchronize(self._streams.compute)
        return self._output.host.copy()

    def _replay(self) -> NDArray[Any]:
        """Return the output of the graph, first overwritten with NaN to reveal stale output."""
        self._output.host.view(np.uint8)[...] = 0xFF
        self._device.copy_in(self._output.address, self._output.host, self._streams.compute)
        return self._run_and_wait()

    def _capture(self) -> int:
        """Capture one run and return the instantiated graph; the capture always ends."""
        stream = self._streams.compute
        if not self._context.capturable(stream):
            raise MsfnetError("TensorRT reports that the stream cannot be captured")
        self._device.begin_capture(stream)
        try:
            self._context.enqueue(stream)
        finally:
            graph = self._device.end_capture(stream)
        try:
            if not self._device.graph_nodes(graph):
                raise MsfnetError("the captured graph is empty")
            return self._device.instantiate(graph)
        finally:
            self._device.free(graph)


class InFlightQueue(Closing):
    """Accepts batches and returns their outputs in order. Not thread-safe.

    Args:
        slots: one for each batch in flight.
        start: checks a batch and submits it to a slot.
    """

    def __init__(
        self,
        slots: Sequence[ExecutionSlot],
        start: Callable[[ExecutionSlot, NDArray[Any]], None],
    ) -> None:
        self._free, self._busy = deque(slots), deque[ExecutionSlot]()
        self._start = start
        self.open = True

    @property
    def waiting(self) -> int:
        """The number of outputs that are still to come."""
        return len(self._busy)

    @property
    def full(self) -> bool:
        """Whether :meth:`result` must be called before another :meth:`submit`."""
        return not self._free

    def submit(self, batch: NDArray[Any]) -> None:
        """Start a batch; it is copied first, so the caller can change it afterwards.

        Raises:
            MsfnetError: the queue is full or closed, or the batch does not fit the model.
        """
        if not self.open:
            raise MsfnetError("the queue is closed; open another one")
        if self.full:
            raise MsfnetError("the queue is full; call result() first")
        self._start(self._free[0], batch)
        self._busy.append(self._free.popleft())

    def result(self) -> NDArray[np.float32]:
        """Wait for the oldest batch and return its output.

        Raises:
            MsfnetError: nothing is in flight, or the batch failed.
        """
        if not self._busy:
            raise MsfnetError("no batch is in flight; submit one first")
        slot = self._busy.popleft()
        self._free.append(slot)
        return slot.result()

    def close(self) -> None:
        """Wait for the batches in flight and discard them; closing twice is allowed."""
        self.open = False
        while self._busy:
            self.result()
