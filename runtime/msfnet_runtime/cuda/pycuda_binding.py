"""Accesses a GPU through PyCUDA, in the primary context, which is pushed for every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.cuda.base import DeviceBase, RuntimeCalls
from msfnet_runtime.errors import MsfnetError

T = TypeVar("T")

_NON_BLOCKING = 1
"""The driver API's CU_STREAM_NON_BLOCKING."""


class PyCudaDevice(DeviceBase):
    """Implements :class:`msfnet_runtime.cuda.base.Device` with PyCUDA.

    CUDA graphs use cuda-python if it is also installed.

    Raises:
        ImportError: PyCUDA is not installed.
        MsfnetError: there is no GPU or no driver.
    """

    def __init__(self, index: int) -> None:
        from pycuda import driver

        self._cuda: Any = driver
        try:
            driver.init()
            device = driver.Device(index)
            capability = device.compute_capability()
            self._context: Any = device.retain_primary_context()
        except driver.Error as error:
            raise MsfnetError(
                f"no NVIDIA GPU can be used here ({error}); run the .onnx file instead"
            ) from None
        try:
            runtime: RuntimeCalls | None = RuntimeCalls(index)
        except ImportError:
            runtime = None
        super().__init__(index, capability, runtime)
        self._objects: dict[int, Any] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Push the primary context for calls of other libraries."""
        if self._context is None:
            raise MsfnetError("the device is closed; open it again")
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def memory(self) -> tuple[int, int]:
        """Return the free and the total device memory, bytes."""
        free, total = self._within(self._cuda.mem_get_info)
        return int(free), int(total)

    def stream(self) -> int:
        """Create a non-blocking stream."""
        created = self._within(lambda: self._cuda.Stream(_NON_BLOCKING))
        return self._own(int(created.handle), created)

    def synchronize(self, stream: int) -> None:
        """Wait for all work on the stream."""
        self._within(self._object(stream).synchronize)

    def event(self) -> int:
        """Create an event that measures time; its handle is the object's identity."""
        created = self._within(self._cuda.Event)
        return self._own(id(created), created)

    def record(self, event: int, stream: int) -> None:
        """Record the event after the work that is on the stream now."""
        self._within(lambda: self._object(event).record(self._object(stream)))

    def wait(self, stream: int, event: int) -> None:
        """Make later work on the stream wait for the event."""
        self._within(lambda: self._object(stream).wait_for_event(self._object(event)))

    def synchronize_event(self, event: int) -> None:
        """Wait for the event."""
        self._within(self._object(event).synchronize)

    def elapsed_ms(self, start: int, end: int) -> float:
        """Return the milliseconds between two completed events."""
        return float(self._within(lambda: self._object(start).time_till(self._object(end))))

    def allocate(self, size: int) -> int:
        """Allocate device memory."""
        memory = self._within(lambda: self._cuda.mem_alloc(size))
        return self._own(int(memory), memory)

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Allocate page-locked host memory as an array."""
        array = self._within(lambda: self._cuda.pagelocked_empty(shape, np.dtype(dtype)))
        self._own(array.ctypes.data, array)
        return np.asarray(array)

    def copy_in(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy a contiguous host array to the device."""
        self._within(lambda: self._cuda.memcpy_htod_async(address, array, self._object(stream)))

    def copy_out(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy device memory into a contiguous host array."""
        self._within(lambda: self._cuda.memcpy_dtoh_async(array, address, self._object(stream)))

    def close(self) -> None:
        """Free all resources, newest first, and release the primary context."""
        if self._context is None:
            return
        try:
            super().close()
        finally:
            self._context.detach()
            self._context = None

    def _own(self, handle: int, created: Any) -> int:
        """Keep an object of PyCUDA until its handle is freed."""
        self._objects[handle] = created
        return self._keep(handle, lambda handle: self._within(lambda: self._drop(handle)))

    def _object(self, handle: int) -> Any:
        """Return the object of a handle; PyCUDA cannot use streams of other libraries."""
        if handle not in self._objects:
            raise MsfnetError(
                "PyCUDA has no resource with that handle; for streams of other libraries set "
                "MSFNET_CUDA=cuda-python"
            )
        return self._objects[handle]

    def _drop(self, handle: int) -> None:
        """Forget an object: PyCUDA frees unreferenced objects; device memory needs a call."""
        dropped = self._objects.pop(handle)
        if isinstance(dropped, self._cuda.DeviceAllocation):
            dropped.free()

    def _graph_call(self, name: str, *arguments: Any) -> Any:
        return self._within(lambda: self._graphs(name, *arguments))

    def _within(self, call: Callable[[], T]) -> T:
        with self.active():
            try:
                return call()
            except self._cuda.Error as error:
                raise MsfnetError(f"PyCUDA: {error}; run `msfnet doctor`") from None
