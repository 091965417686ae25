"""TensorRT engines, both flavours: ``tensorrt`` and TensorRT for RTX share one Python API."""

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
from msfnet_runtime.engine import EngineBase, check_batch
from msfnet_runtime.engines.tensorrt_context import Context, check_tensors
from msfnet_runtime.engines.tensorrt_lane import Lane, Streams
from msfnet_runtime.engines.tensorrt_ring import Ring
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.preflight import check_architecture, preflight, rebuild_command
from msfnet_runtime.timings import Timings

MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def load_tensorrt(flavour: Flavour) -> Any:
    """Return the Python module of a TensorRT flavour.

    Raises:
        MsfnetError: it is not installed.
    """
    try:
        return importlib.import_module(MODULES[flavour])
    except (ImportError, OSError):
        raise MsfnetError(
            f"{flavour} is not installed; run `pip install 'msfnet[{flavour}]'`"
        ) from None


def _profiler(trt: Any, layers: list[tuple[str, float]]) -> Any:
    """Return TensorRT's IProfiler that appends (name, ms) of every layer."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]  # the module is known at run time only
        def __init__(self) -> None:
            super().__init__()

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            layers.append((layer_name, ms))

    return Profiler()


class TensorRTEngine(EngineBase):
    """One deserialised engine and the execution contexts it needs. Not thread-safe.

    Each shape's first batch is captured as a CUDA graph, and the graph's answer compared with
    the plain run's. Where that fails a warning says why, and :meth:`describe` too.

    Args:
        path: the engine, its manifest beside it.
        cuda_graphs: False runs without graphs.

    Raises:
        MsfnetError: manifest missing, engine not made for this machine, library or GPU absent,
            or the engine is not what its manifest says.
    """

    def __init__(self, path: str | os.PathLike[str], *, cuda_graphs: bool = True) -> None:
        artifact = EngineArtifact.read(Path(path))
        super().__init__(artifact.spec)
        self._trt = trt = load_tensorrt(artifact.flavour)
        preflight(artifact, str(trt.__version__))
        self._device = open_device()
        self._runtime: Any = None
        self._engine: Any = None
        self._lanes: list[Lane] = []
        self._ringing = False
        self._device_context: tuple[Context, int] | None = None
        self._lent = 0
        self._graphs, self._obstacle = cuda_graphs, "not asked for"
        try:
            check_architecture(artifact, self._device.architecture)
            self._deserialise(trt, artifact)
            check_tensors(self._engine, artifact.spec)
            self._streams = Streams(*(self._device.stream() for _ in Streams._fields))
            self._lane(0)
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

    def ring(self, in_flight: int = 2) -> Ring:
        """Return a ring that overlaps copies and compute of so many batches; close it after use.

        Raises:
            MsfnetError: another ring is open, or memory is short.
        """
        self._must_be_open()
        if self._ringing:
            raise MsfnetError("the engine's ring is in use; close it first")
        if in_flight < 1:
            raise MsfnetError(f"in_flight must be at least 1, not {in_flight}; 2 overlap")
        lanes = [self._lane(1 + number) for number in range(in_flight)]
        self._ringing = True
        return Ring(lanes, self._start, self._ring_ended)

    def infer_stream(
        self, batches: Iterable[NDArray[Any]], *, in_flight: int = 2
    ) -> Generator[NDArray[np.float32], None, None]:
        """Run batches with copies and compute overlapped; yield the answers in order.

        A batch is asked for only when there is room for it. Batches may differ in shape.
        """
        with self.ring(in_flight) as ring:
            for batch in batches:
                if ring.full:
                    yield ring.result()
                ring.submit(batch)
            while ring.waiting:
                yield ring.result()

    def infer_device(self, array: Any, stream: int | None = None) -> DeviceArray:
        """Run one batch that lies in GPU memory; return the answer there. Nothing is copied.

        Args:
            array: with ``__cuda_array_interface__``, shaped and typed as ``spec.inputs[0]``.
            stream: put all work on this stream and return at once: keep ``array`` until it is
                done. None waits for the answer.

        Raises:
            MsfnetError: no device array, another shape or type, or the engine is closed.
        """
        self._must_be_open()
        device = self._device
        given = foreign_array(array, device.dlpack)
        check_batch(np.broadcast_to(np.empty((), given.dtype), given.shape), self._spec)
        context, last = self._contexts_for_arrays()
        on = self._streams.compute if stream is None else stream
        device.wait(on, last)
        output = context.set_shape(given.shape, on)
        if given.unmarked:
            join_unmarked(array, on)
        elif given.stream not in (None, on):
            device.record(last, given.stream)
            device.wait(on, last)
        result = self._reserve(output, stream)
        context.bind(given.address, result.address)
        context.enqueue(on)
        device.record(last, on)
        if stream is None:
            device.synchronize(on)
        return result

    def layer_times(self, batch: NDArray[Any]) -> list[tuple[str, float]]:
        """Run one batch without a CUDA graph; return (name, ms) of the layers TensorRT made.

        A context of its own is made for it, since a profiler stays with its context.

        Raises:
            MsfnetError: another shape or type, no memory left, or TensorRT gives no times.
        """
        self._must_be_open()
        check_batch(batch, self._spec)
        context = Context(self._device, self._engine, self._spec)
        lane = Lane(self._device, context, self._streams)
        try:
            lane.prepare(batch.shape)
            lane.upload(batch)
            layers: list[tuple[str, float]] = []
            context.profile(_profiler(self._trt, layers), self._streams.compute)
            return layers
        finally:
            lane.close()

    def timed(
        self, batch: NDArray[Any], *, cuda_graph: bool | None = None, transfers: bool = True
    ) -> Timings:
        """Run one batch and say what each stage cost.

        Args:
            batch: as for ``infer``.
            cuda_graph: with or without; None as ``infer`` runs.
            transfers: False leaves the copies out; the batch is then on the device beforehand.

        Raises:
            MsfnetError: a graph was asked for that cannot be captured.
        """
        self._must_be_open()
        check_batch(batch, self._spec)
        lane, graph = self._lanes[0], self._graphs if cuda_graph is None else cuda_graph
        lane.prepare(batch.shape)
        if not graph:
            lane.without_graph()
        elif obstacle := lane.use_graph(batch):
            raise MsfnetError(f"no CUDA graph can be timed ({obstacle}); time without")
        if not transfers:
            lane.upload(batch)
        lane.submit(batch, transfers=transfers)
        return lane.timings(transfers=transfers)

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self._start(self._lanes[0], batch)
        return self._lanes[0].result()

    def _start(self, lane: Lane, batch: NDArray[Any]) -> None:
        """Submit a batch, through a graph where that works."""
        self._must_be_open()
        check_batch(batch, self._spec)
        lane.prepare(batch.shape)
        if self._graphs:
            obstacle = lane.use_graph(batch)
            if obstacle:
                self._give_up_graphs(obstacle)
        lane.submit(batch)

    def _give_up_graphs(self, obstacle: str) -> None:
        """Run without graphs from now on, and say so."""
        self._graphs, self._obstacle = False, obstacle
        warnings.warn(f"TensorRT runs without CUDA graphs: {obstacle}", stacklevel=4)

    def _deserialise(self, trt: Any, artifact: EngineArtifact) -> None:
        with self._device.active():
            self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
            if artifact.options.get("version_compatible"):
                # Such an engine brings the code that runs it; its hash was checked above.
                self._runtime.engine_host_code_allowed = True
            self._engine = self._runtime.deserialize_cuda_engine(artifact.path.read_bytes())
        if self._engine is None:
            raise MsfnetError(
                f"{artifact.path} cannot be deserialised; {rebuild_command(artifact)}"
            )

    def _lane(self, number: int) -> Lane:
        """Return a lane, with all before it made."""
        while len(self._lanes) <= number:
            context = Context(self._device, self._engine, self._spec)
            self._lanes.append(Lane(self._device, context, self._streams))
        return self._lanes[number]

    def _contexts_for_arrays(self) -> tuple[Context, int]:
        """Return the context for others' memory, and the event behind its last run."""
        if self._device_context is None:
            context = Context(self._device, self._engine, self._spec)
            self._device_context = (context, self._device.event())
        return self._device_context

    def _reserve(self, shape: tuple[int, ...], stream: int | None) -> DeviceArray:
        """Reserve an answer, which may outlive the engine."""
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

    def _ring_ended(self) -> None:
        self._ringing = False

    def _must_be_open(self) -> None:
        if not self._open:
            raise MsfnetError("the engine is closed; open it again")

    def _release(self) -> None:
        """Give all back; the device stays until the last answer on it is given back."""
        for stream in self._streams:
            with suppress(MsfnetError):  # a stream that fails has no work to wait for
                self._device.synchronize(stream)
        try:
            for lane in self._lanes:
                lane.close()
            if self._device_context:
                self._device_context[0].close()
        finally:
            self._drop_library()
            if not self._lent:
                self._device.close()

    def _drop_library(self) -> None:
        """Let TensorRT free its own while the device is still open."""
        self._lanes.clear()
        self._device_context = None
        with self._device.active():
            self._engine = self._runtime = None
