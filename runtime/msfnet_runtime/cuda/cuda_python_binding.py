"""Accesses a GPU through cuda-python's runtime API (``cuda.bindings.runtime``)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.cuda.device import DeviceBase
from msfnet_runtime.errors import MsfnetError


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

    def begin_capture(self, stream: int) -> None:
        """Start a thread-local capture."""
        mode = self.library.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self("cudaStreamBeginCapture", stream, mode)


class CudaPythonDevice(DeviceBase):
    """Implements :class:`msfnet_runtime.cuda.device.Device` with cuda-python.

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
        super().__init__(index, capability)

    @property
    def graph_obstacle(self) -> str:
        """The reason why no CUDA graph can be captured: none."""
        return ""

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

    def begin_capture(self, stream: int) -> None:
        """Start a thread-local capture of the stream's work."""
        self._call.begin_capture(stream)

    def end_capture(self, stream: int) -> int:
        """End the capture; return the graph."""
        return self._reserve("cudaStreamEndCapture", stream, release="cudaGraphDestroy")

    def graph_nodes(self, graph: int) -> int:
        """Return the number of nodes of a graph."""
        return int(self._call("cudaGraphGetNodes", graph))

    def instantiate(self, graph: int) -> int:
        """Return an executable instance of a graph."""
        return self._reserve("cudaGraphInstantiate", graph, 0, release="cudaGraphExecDestroy")

    def launch(self, instance: int, stream: int) -> None:
        """Enqueue the work of an instantiated graph on a stream."""
        self._call("cudaGraphLaunch", instance, stream)

    def _reserve(self, name: str, *arguments: Any, release: str) -> int:
        """Call a function that creates a resource; ``release`` names the one that frees it."""
        return self._keep(int(self._call(name, *arguments)), partial(self._call, release))
