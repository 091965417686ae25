"""Accesses a GPU through cuda-python's runtime API (``cuda.bindings.runtime``)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.cuda.base import DeviceBase, RuntimeCalls
from msfnet_runtime.errors import MsfnetError


class CudaPythonDevice(DeviceBase):
    """Implements :class:`msfnet_runtime.cuda.base.Device` with cuda-python.

    Raises:
        ImportError: cuda-python is not installed.
        MsfnetError: there is no GPU or no driver.
    """

    def __init__(self, index: int) -> None:
        self._call = RuntimeCalls(index)
        self._cuda = self._call.library
        attribute = self._cuda.cudaDeviceAttr
        try:
            capability = [
                self._call("cudaDeviceGetAttribute", getattr(attribute, name), index)
                for name in (
                    "cudaDevAttrComputeCapabilityMajor",
                    "cudaDevAttrComputeCapabilityMinor",
                )
            ]
        except MsfnetError as error:
            cause = str(error).partition(";")[0]
            raise MsfnetError(
                f"no NVIDIA GPU can be used here ({cause}); run the .onnx file instead"
            ) from None
        super().__init__(index, capability, self._call)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Select this device for the calling thread, also afterwards."""
        self._call.activate()
        yield

    def memory(self) -> tuple[int, int]:
        """Return the free and the total device memory, bytes."""
        free, total = self._call.values("cudaMemGetInfo")
        return int(free), int(total)

    def stream(self) -> int:
        """Create a non-blocking stream."""
        flags = self._cuda.cudaStreamNonBlocking
        return self._reserve("cudaStreamCreateWithFlags", flags, release="cudaStreamDestroy")

    def synchronize(self, stream: int) -> None:
        """Wait for all work on the stream."""
        self._call("cudaStreamSynchronize", stream)

    def event(self) -> int:
        """Create an event that measures time."""
        flags = self._cuda.cudaEventDefault
        return self._reserve("cudaEventCreateWithFlags", flags, release="cudaEventDestroy")

    def record(self, event: int, stream: int) -> None:
        """Record the event after the work that is on the stream now."""
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        """Make later work on the stream wait for the event."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        """Wait for the event."""
        self._call("cudaEventSynchronize", event)

    def elapsed_ms(self, start: int, end: int) -> float:
        """Return the milliseconds between two completed events."""
        return float(self._call("cudaEventElapsedTime", start, end))

    def allocate(self, size: int) -> int:
        """Allocate device memory."""
        return self._reserve("cudaMalloc", size, release="cudaFree")

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Allocate page-locked host memory as an array."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self._reserve("cudaMallocHost", size, release="cudaFreeHost")
        memory = memoryview((ctypes.c_byte * size).from_address(address))
        return np.asarray(np.frombuffer(memory, dtype=np.dtype(dtype)).reshape(shape))

    def copy_in(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy a contiguous host array to the device."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, stream)

    def copy_out(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy device memory into a contiguous host array."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)

    def _reserve(self, name: str, *arguments: Any, release: str) -> int:
        """Call a function that creates a resource; ``release`` names the one that frees it."""
        return self._keep(int(self._call(name, *arguments)), partial(self._call, release))
