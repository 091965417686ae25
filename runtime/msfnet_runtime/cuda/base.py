"""Defines a small interface to one GPU: memory, streams, events and graphs.

Everything runs in the device's **primary** context, which PyTorch and ONNX Runtime also use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError


class Device(Protocol):
    """One GPU. Addresses and handles are plain integers; copies are asynchronous.

    Resources live until :meth:`free` or :meth:`close`. Host memory of a copy must be page-locked,
    and must not be accessed before the stream, or an event recorded after the copy, has been
    synchronised.
    """

    @property
    def architecture(self) -> str:
        """The compute capability, such as ``sm86``."""

    @property
    def dlpack(self) -> tuple[int, int]:
        """DLPack's kind and number of the device; an NVIDIA GPU is (2, index)."""

    @property
    def graph_obstacle(self) -> str:
        """The reason why no CUDA graph can be captured; empty if it can."""

    def active(self) -> AbstractContextManager[None]:
        """Return a context in which calls of other libraries in this thread use this device."""

    def memory(self) -> tuple[int, int]:
        """Return the free and the total device memory, bytes."""

    def stream(self) -> int:
        """Create a non-blocking stream; TensorRT accepts its handle."""

    def synchronize(self, stream: int) -> None:
        """Wait for all work on the stream."""

    def event(self) -> int:
        """Create an event that measures time."""

    def record(self, event: int, stream: int) -> None:
        """Record the event after the work that is on the stream now."""

    def wait(self, stream: int, event: int) -> None:
        """Make later work on the stream wait for the event, as recorded now."""

    def synchronize_event(self, event: int) -> None:
        """Wait for the event."""

    def elapsed_ms(self, start: int, end: int) -> float:
        """Return the milliseconds between two completed events."""

    def allocate(self, size: int) -> int:
        """Allocate ``size`` bytes of device memory; return their address."""

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Allocate page-locked host memory as an array."""

    def copy_in(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy a contiguous host array to the device."""

    def copy_out(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy device memory into a contiguous host array."""

    def begin_capture(self, stream: int) -> None:
        """Start a thread-local capture of the stream's work into a graph, which is not executed."""

    def end_capture(self, stream: int) -> int:
        """End the capture; return the graph of the work since :meth:`begin_capture`."""

    def graph_nodes(self, graph: int) -> int:
        """Return the number of nodes of a graph."""

    def instantiate(self, graph: int) -> int:
        """Return an executable instance of a graph."""

    def launch(self, instance: int, stream: int) -> None:
        """Enqueue the work of an instantiated graph on a stream."""

    def free(self, resource: int | NDArray[Any]) -> None:
        """Free one stream, event, graph or allocation of this device."""

    def close(self) -> None:
        """Free all resources of this device; closing twice is allowed."""


class RuntimeCalls:
    """Calls CUDA's runtime API on one device, and raises failures as errors of one line.

    Raises:
        ImportError: cuda-python is not installed.
    """

    def __init__(self, index: int) -> None:
        from cuda.bindings import runtime

        self.library: Any = runtime
        self._index = index

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Select the device for this thread, call, and return the last value, if any."""
        values = self.values(name, *arguments)
        return values[-1] if values else None

    def values(self, name: str, *arguments: Any) -> list[Any]:
        """Select the device for this thread, call, and return the values after the status."""
        self.activate()
        return self._checked(name, *arguments)

    def activate(self) -> None:
        """Select the device for this thread."""
        self._checked("cudaSetDevice", self._index)

    def _checked(self, name: str, *arguments: Any) -> list[Any]:
        try:
            status, *values = getattr(self.library, name)(*arguments)
        except RuntimeError as error:  # the driver library itself is missing
            raise MsfnetError(f"{name}: {error}; install NVIDIA's driver") from None
        if int(status) != 0:
            _, text = self.library.cudaGetErrorString(status)
            raise MsfnetError(f"{name}: {text.decode()}; run `msfnet doctor`")
        return list(values)


_WITHOUT_GRAPHS = "PyCUDA cannot capture CUDA graphs; also run `pip install cuda-python`"


class DeviceBase:
    """Implements what both bindings share: identity, CUDA graphs, and freeing resources.

    Args:
        index: number of the device.
        capability: its compute capability, major and minor.
        runtime: CUDA's runtime API, which captures graphs; None if cuda-python is not installed.
    """

    def __init__(self, index: int, capability: Sequence[int], runtime: RuntimeCalls | None) -> None:
        self._index, self._runtime = index, runtime
        self._architecture = f"sm{''.join(map(str, capability))}"
        self._releases: dict[int, Callable[[int], object]] = {}

    @property
    def architecture(self) -> str:
        """The compute capability, such as ``sm86``."""
        return self._architecture

    @property
    def dlpack(self) -> tuple[int, int]:
        """DLPack's kind and number of the device."""
        return 2, self._index

    @property
    def graph_obstacle(self) -> str:
        """The reason why no CUDA graph can be captured; empty if it can."""
        return "" if self._runtime else _WITHOUT_GRAPHS

    def begin_capture(self, stream: int) -> None:
        """Start a thread-local capture of the stream's work."""
        mode = self._graphs.library.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._graph_call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """End the capture; return the graph."""
        graph = int(self._graph_call("cudaStreamEndCapture", stream))
        return self._keep(graph, partial(self._graph_call, "cudaGraphDestroy"))

    def graph_nodes(self, graph: int) -> int:
        """Return the number of nodes of a graph."""
        return int(self._graph_call("cudaGraphGetNodes", graph))

    def instantiate(self, graph: int) -> int:
        """Return an executable instance of a graph."""
        instance = int(self._graph_call("cudaGraphInstantiate", graph, 0))
        return self._keep(instance, partial(self._graph_call, "cudaGraphExecDestroy"))

    def launch(self, instance: int, stream: int) -> None:
        """Enqueue the work of an instantiated graph on a stream."""
        self._graph_call("cudaGraphLaunch", instance, stream)

    @property
    def _graphs(self) -> RuntimeCalls:
        """The calls that capture and run graphs; an error if they are not available."""
        if self._runtime is None:
            raise MsfnetError(_WITHOUT_GRAPHS)
        return self._runtime

    def _graph_call(self, name: str, *arguments: Any) -> Any:
        return self._graphs(name, *arguments)

    def free(self, resource: int | NDArray[Any]) -> None:
        """Free one stream, event, graph or allocation of this device."""
        handle = resource if isinstance(resource, int) else resource.ctypes.data
        if handle not in self._releases:
            raise MsfnetError("the device has no resource with that handle; free each one once")
        self._releases.pop(handle)(handle)

    def close(self) -> None:
        """Free all resources, newest first, even if one call fails; closing twice is allowed."""
        errors = []
        for handle in reversed(list(self._releases)):
            try:
                self.free(handle)
            except MsfnetError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _keep(self, handle: int, release: Callable[[int], object]) -> int:
        """Register a resource with the call that frees it; return its handle."""
        self._releases[handle] = release
        return handle
