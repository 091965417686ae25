"""Runs TensorRT engines; ``tensorrt`` and TensorRT for RTX share one Python API."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Generator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.artifacts import EngineArtifact, Flavour
from msfnet_runtime.cuda.device import open_device
from msfnet_runtime.cuda.device_array import DeviceArray, foreign_array, join_unmarked
from msfnet_runtime.engine import EngineBase, Timings, check_batch
from msfnet_runtime.engines.tensorrt_context import Context, check_tensors
from msfnet_runtime.engines.tensorrt_slot import ExecutionSlot, InFlightQueue, Streams
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.libraries import require
from msfnet_runtime.preflight import check_architecture, preflight, rebuild_command

MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def load_tensorrt(flavour: Flavour) -> Any:
    """Return the Python module of a TensorRT flavour.

    Raises:
        MsfnetError: it is not installed, or does not load.
    """
    require(MODULES[flavour])
    return importlib.import_module(MODULES[flavour])


def _profiler(trt: Any, layers: list[tuple[str, float]]) -> Any:
    """Return an IProfiler of TensorRT that appends (name, ms) of every layer to ``layers``."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]  # the module is known at run time only
        def report_layer_time(self, layer_name: str, ms: float) -> None:
            layers.append((layer_name, ms))

    return Profiler()


class TensorRTEngine(EngineBase):
    """Runs one deserialised engine with the execution contexts it needs. Not thread-safe.

    The first batch of each shape is captured as a CUDA graph, and the output of the graph is
    compared with that of the plain run. If that fails, a warning and :meth:`describe` say why.

    Args:
        path: the engine; its manifest is beside it.
        cuda_graphs: False runs without CUDA graphs.

    Raises:
        MsfnetError: the manifest is missing, the engine was not built for this machine, the
            library or GPU is absent, or the engine differs from its manifest.
    """

    def __init__(self, path: str | os.PathLike[str], *, cuda_graphs: bool = True) -> None:
        artifact = EngineArtifact.read(Path(path))
        artifact.spec.check_runnable()
        super().__init__(artifact.spec)
        self._trt = trt = load_tensorrt(artifact.flavour)
        preflight(artifact, str(trt.__version__))
        self._device = open_device()
        self._runtime: Any = None
        self._engine: Any = None
        self._slots: list[ExecutionSlot] = []
        self._queue: InFlightQueue | None = None
        self._device_context: tuple[Context, int] | None = None
        """For device arrays: the context, and the event after its last run."""
        self._lent = 0
        self._graphs, self._obstacle = cuda_graphs, "not requested"
        try:
            check_architecture(artifact, self._device.architecture)
            self._deserialise(trt, artifact)
            check_tensors(self._engine, artifact.spec)
            self._streams = Streams(*(self._device.stream() for _ in Streams._fields))
            self._slot(0)
        except BaseException:
            self._drop_library()
            self._device.close()
            raise
        self._label = f"{artifact.flavour} {artifact.version} {self._device.architecture}"
        if cuda_graphs and self._device.graph_obstacle:
            self._give_up_graphs(self._device.graph_obstacle)

    def describe(self) -> str:
        """Name the flavour, its version, the GPU's architecture, and whether graphs run."""
        graphs = "CUDA graphs" if self._graphs else f"no CUDA graphs: {self._obstacle}"
        return f"{self._label} ({graphs})"

    def queue(self, in_flight: int = 2) -> InFlightQueue:
        """Return a queue that overlaps copies and compute; close it after use.

        Args:
            in_flight: largest number of batches in flight.

        Raises:
            MsfnetError: another queue is open, or memory is short.
        """
        self._must_be_open()
        if self._queue is not None and self._queue.open:
            raise MsfnetError("the engine's queue is in use; close it first")
        if in_flight < 1:
            raise MsfnetError(f"in_flight must be at least 1, not {in_flight}")
        slots = [self._slot(1 + number) for number in range(in_flight)]
        self._queue = InFlightQueue(slots, self._start)
        return self._queue

    def infer_stream(
        self, batches: Iterable[NDArray[Any]], *, in_flight: int = 2
    ) -> Generator[NDArray[np.float32], None, None]:
        """Run batches with copies and compute overlapped; yield the outputs in order.

        The next batch is read only when there is room for it. Batches can differ in shape.
        """
        with self.queue(in_flight) as queue:
            for batch in batches:
                if queue.full:
                    yield queue.result()
                queue.submit(batch)
            while queue.waiting:
                yield queue.result()

    def infer_device(self, array: Any, stream: int | None = None) -> DeviceArray:
        """Run one batch that is in GPU memory; return the output there. Nothing is copied.

        Args:
            array: has ``__cuda_array_interface__``, and shape and type of ``spec.inputs[0]``.
            stream: enqueue all work on this stream and return immediately; keep ``array`` until
                the work is done. None waits for the output.

        Raises:
            MsfnetError: not a device array, wrong shape or type, or the engine is closed.
        """
        self._must_be_open()
        device = self._device
        batch = foreign_array(array, device.dlpack)
        check_batch(np.broadcast_to(np.empty((), batch.dtype), batch.shape), self._spec)
        if self._device_context is None:
            context = Context(device, self._engine, self._spec)
            self._device_context = (context, device.event())
        context, last = self._device_context
        on = self._streams.compute if stream is None else stream
        device.wait(on, last)
        output = context.set_shape(batch.shape, on)
        if batch.unmarked:
            join_unmarked(array, on)
        elif batch.stream not in (None, on):
            device.record(last, batch.stream)
            device.wait(on, last)
        result = self._reserve(output, stream)
        context.bind(batch.address, result.address)
        context.enqueue(on)
        device.record(last, on)
        if stream is None:
            device.synchronize(on)
        return result

    def layer_times(self, batch: NDArray[Any]) -> list[tuple[str, float]]:
        """Run one batch without a CUDA graph; return (name, ms) of TensorRT's layers.

        It uses a separate execution context, because a profiler cannot be removed from one.

        Raises:
            MsfnetError: wrong shape or type, no memory left, or TensorRT reports no times.
        """
        self._check(batch)
        context = Context(self._device, self._engine, self._spec)
        slot = ExecutionSlot(self._device, context, self._streams)
        try:
            slot.prepare(batch.shape)
            slot.upload(batch)
            layers: list[tuple[str, float]] = []
            context.profile(_profiler(self._trt, layers), self._streams.compute)
            return layers
        finally:
            slot.close()

    def timed(
        self, batch: NDArray[Any], *, cuda_graph: bool | None = None, transfers: bool = True
    ) -> Timings:
        """Run one batch; return the times, see :class:`~msfnet_runtime.engine.DeviceTimed`."""
        self._check(batch)
        slot, graph = self._slots[0], self._graphs if cuda_graph is None else cuda_graph
        slot.prepare(batch.shape)
        if not graph:
            slot.without_graph()
        elif obstacle := slot.use_graph(batch):
            raise MsfnetError(f"no CUDA graph can be timed ({obstacle}); time it without")
        if not transfers:
            slot.upload(batch)
        slot.submit(batch, transfers=transfers)
        return slot.timings(transfers=transfers)

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self._start(self._slots[0], batch)
        return self._slots[0].result()

    def _start(self, slot: ExecutionSlot, batch: NDArray[Any]) -> None:
        """Submit a batch, with a CUDA graph if possible."""
        self._check(batch)
        slot.prepare(batch.shape)
        if self._graphs:
            obstacle = slot.use_graph(batch)
            if obstacle:
                self._give_up_graphs(obstacle)
        slot.submit(batch)

    def _give_up_graphs(self, obstacle: str) -> None:
        """Run without CUDA graphs from now on, and warn about it."""
        self._graphs, self._obstacle = False, obstacle
        warnings.warn(f"TensorRT runs without CUDA graphs: {obstacle}", stacklevel=4)

    def _deserialise(self, trt: Any, artifact: EngineArtifact) -> None:
        with self._device.active():
            self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
            if artifact.options.get("version_compatible"):
                # Such an engine contains host code; the preflight has checked its hash.
                self._runtime.engine_host_code_allowed = True
            self._engine = self._runtime.deserialize_cuda_engine(artifact.path.read_bytes())
        if self._engine is None:
            raise MsfnetError(
                f"{artifact.path} cannot be deserialised; {rebuild_command(artifact)}"
            )

    def _slot(self, number: int) -> ExecutionSlot:
        """Return the slot with this number; create it and those before it if needed."""
        while len(self._slots) <= number:
            context = Context(self._device, self._engine, self._spec)
            self._slots.append(ExecutionSlot(self._device, context, self._streams))
        return self._slots[number]

    def _reserve(self, shape: tuple[int, ...], stream: int | None) -> DeviceArray:
        """Allocate an output array, which can outlive the engine."""
        dtype = self._spec.outputs[0].dtype
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self._device.allocate(size)
        self._lent += 1

        def release() -> None:
            self._device.free(address)
            self._lent -= 1
            if not self._open and not self._lent:
                self._device.close()

        place = self._device.dlpack
        return DeviceArray(address, shape, dtype, device=place, release=release, stream=stream)

    def _release(self) -> None:
        """Free everything; the device stays open until the last output array is freed."""
        for stream in self._streams:
            with suppress(MsfnetError):  # a stream that fails has no work to wait for
                self._device.synchronize(stream)
        try:
            for slot in self._slots:
                slot.close()
            if self._device_context:
                self._device_context[0].close()
        finally:
            self._drop_library()
            if not self._lent:
                self._device.close()

    def _drop_library(self) -> None:
        """Let TensorRT free its objects while the device is still open."""
        self._slots.clear()
        self._device_context = None
        with self._device.active():
            self._engine = self._runtime = None
