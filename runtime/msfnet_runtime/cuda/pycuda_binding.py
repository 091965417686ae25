"""A GPU through PyCUDA, on the primary context, pushed around every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.cuda.cuda_python_binding import RuntimeCalls
from msfnet_runtime.errors import MsfnetError

T = TypeVar("T")

_NON_BLOCKING = 1
"""The driver API's CU_STREAM_NON_BLOCKING."""

_WITHOUT_GRAPHS = "PyCUDA captures no CUDA graphs; run `pip install cuda-python` beside it"


class PyCudaDevice:
    """A device through PyCUDA; see :class:`msfnet_runtime.cuda.device.Device`.

    CUDA graphs go through cuda-python where that is installed too.

    Raises:
        ImportError: PyCUDA is not installed.
        MsfnetError: no GPU, or no driver.
    """

    def __init__(self, index: int) -> None:
        from pycuda import driver

        self._cuda: Any = driver
        self._index = index
        try:
            driver.init()
            device = driver.Device(index)
            major, minor = device.compute_capability()
            self._context: Any = device.retain_primary_context()
        except driver.Error as error:
            raise MsfnetError(
                f"no NVIDIA GPU can be used here ({error}); run the .onnx file instead"
            ) from None
        self._architecture = f"sm{major}{minor}"
        self._objects: dict[int, Any] = {}
        self._graphs: dict[int, str] = {}
        try:
            self._runtime: RuntimeCalls | None = RuntimeCalls(index)
        except ImportError:
            self._runtime = None

    @property
    def architecture(self) -> str:
        """The compute capability, as ``sm86``."""
        return self._architecture

    @property
    def dlpack(self) -> tuple[int, int]:
        """DLPack's kind and number of the device."""
        return 2, self._index

    @property
    def graph_obstacle(self) -> str:
        """Say that PyCUDA alone has no graphs."""
        return "" if self._runtime else _WITHOUT_GRAPHS

    @contextmanager
    def active(self) -> Iterator[None]:
        """Push the primary context around other libraries' calls."""
        if self._context is None:
            raise MsfnetError("the device is closed; open it again")
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def memory(self) -> tuple[int, int]:
        """Return the free and the whole device memory, bytes."""
        free, total = self._within(self._cuda.mem_get_info)
        return int(free), int(total)

    def stream(self) -> int:
        """Create a non-blocking stream."""
        created = self._within(lambda: self._cuda.Stream(_NON_BLOCKING))
        return self._keep(int(created.handle), created)

    def synchronize(self, stream: int) -> None:
        """Wait until all work on the stream is done."""
        self._within(self._own(stream).synchronize)

    def event(self) -> int:
        """Create an event that measures time; its number is the object's own."""
        created = self._within(self._cuda.Event)
        return self._keep(id(created), created)

    def record(self, event: int, stream: int) -> None:
        """Set the event behind the work that is now on the stream."""
        self._within(lambda: self._own(event).record(self._own(stream)))

    def wait(self, stream: int, event: int) -> None:
        """Let the stream's later work wait for the event."""
        self._within(lambda: self._own(stream).wait_for_event(self._own(event)))

    def synchronize_event(self, event: int) -> None:
        """Wait until the event is reached."""
        self._within(self._own(event).synchronize)

    def elapsed_ms(self, start: int, end: int) -> float:
        """Return the milliseconds between two events that were reached."""
        return float(self._within(lambda: self._own(start).time_till(self._own(end))))

    def allocate(self, size: int) -> int:
        """Reserve device memory."""
        memory = self._within(lambda: self._cuda.mem_alloc(size))
        return self._keep(int(memory), memory)

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Reserve page-locked host memory as an array."""
        array = self._within(lambda: self._cuda.pagelocked_empty(shape, np.dtype(dtype)))
        self._keep(array.ctypes.data, array)
        return np.asarray(array)

    def copy_in(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy a contiguous host array to the device."""
        self._within(lambda: self._cuda.memcpy_htod_async(address, array, self._own(stream)))

    def copy_out(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy device memory into a contiguous host array."""
        self._within(lambda: self._cuda.memcpy_dtoh_async(array, address, self._own(stream)))

    def begin_capture(self, stream: int) -> None:
        """Gather the stream's work into a graph from now on."""
        self._within(lambda: self._graph_calls().begin_capture(stream))

    def end_capture(self, stream: int) -> int:
        """Return the graph of the work gathered."""
        graph = int(self._graph_call("cudaStreamEndCapture", stream))
        self._graphs[graph] = "cudaGraphDestroy"
        return graph

    def graph_nodes(self, graph: int) -> int:
        """Return how many nodes a graph has."""
        return int(self._graph_call("cudaGraphGetNodes", graph))

    def instantiate(self, graph: int) -> int:
        """Return a graph made ready to launch."""
        instance = int(self._graph_call("cudaGraphInstantiate", graph, 0))
        self._graphs[instance] = "cudaGraphExecDestroy"
        return instance

    def launch(self, instance: int, stream: int) -> None:
        """Put an instantiated graph's work on a stream."""
        self._graph_call("cudaGraphLaunch", instance, stream)

    def free(self, resource: int | NDArray[Any]) -> None:
        """Give back one thing reserved here."""
        handle = resource if isinstance(resource, int) else resource.ctypes.data
        if handle in self._graphs:
            self._graph_call(self._graphs.pop(handle), handle)
            return
        self._own(handle)
        self._within(lambda: self._drop(handle))

    def close(self) -> None:
        """Give back all that was reserved here, newest first, and the primary context."""
        if self._context is None:
            return
        errors = []
        for handle in reversed([*self._objects, *self._graphs]):
            try:
                self.free(handle)
            except MsfnetError as error:
                errors.append(error)
        self._context.detach()
        self._context = None
        if errors:
            raise errors[0]

    def _keep(self, handle: int, thing: Any) -> int:
        self._objects[handle] = thing
        return handle

    def _own(self, handle: int) -> Any:
        """Return what was reserved under a handle; PyCUDA cannot adopt others' streams."""
        if handle not in self._objects:
            raise MsfnetError(
                "PyCUDA reserved nothing under that handle; free each thing once, and for other "
                "libraries' streams set MSFNET_CUDA=cuda-python"
            )
        return self._objects[handle]

    def _drop(self, handle: int) -> None:
        """Forget an object: PyCUDA gives back what nothing refers to, device memory at once."""
        thing = self._objects.pop(handle)
        if isinstance(thing, self._cuda.DeviceAllocation):
            thing.free()

    def _graph_calls(self) -> RuntimeCalls:
        if self._runtime is None:
            raise MsfnetError(_WITHOUT_GRAPHS)
        return self._runtime

    def _graph_call(self, name: str, *arguments: Any) -> Any:
        return self._within(lambda: self._graph_calls()(name, *arguments))

    def _within(self, call: Callable[[], T]) -> T:
        with self.active():
            try:
                return call()
            except self._cuda.Error as error:
                raise MsfnetError(f"PyCUDA: {error}; run `msfnet doctor`") from None
