"""A GPU through cuda-python's runtime API (``cuda.bindings.runtime``)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError


class RuntimeCalls:
    """Calls of CUDA's runtime API on one device, whose failures are errors of one line.

    Raises:
        ImportError: cuda-python is not installed.
    """

    def __init__(self, index: int) -> None:
        from cuda.bindings import runtime

        self.library: Any = runtime
        self._index = index

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Make the device the thread's own, call, and return the last value, if there is any."""
        values = self.values(name, *arguments)
        return values[-1] if values else None

    def values(self, name: str, *arguments: Any) -> list[Any]:
        """Make the device the thread's own, call, and return what comes after the status."""
        self.activate()
        return self._checked(name, *arguments)

    def activate(self) -> None:
        """Make the device the thread's own."""
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


class CudaPythonDevice:
    """A device through cuda-python; see :class:`msfnet_runtime.cuda.device.Device`.

    Raises:
        ImportError: cuda-python is not installed.
        MsfnetError: no GPU, or no driver.
    """

    def __init__(self, index: int) -> None:
        self._call = RuntimeCalls(index)
        self._cuda = self._call.library
        self._index = index
        self._reserved: dict[int, str] = {}
        attribute = self._cuda.cudaDeviceAttr
        try:
            major, minor = (
                self._call("cudaDeviceGetAttribute", getattr(attribute, name), index)
                for name in (
                    "cudaDevAttrComputeCapabilityMajor",
                    "cudaDevAttrComputeCapabilityMinor",
                )
            )
        except MsfnetError as error:
            cause = str(error).partition(";")[0]
            raise MsfnetError(
                f"no NVIDIA GPU can be used here ({cause}); run the .onnx file instead"
            ) from None
        self._architecture = f"sm{major}{minor}"

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
        """Nothing stands in the way."""
        return ""

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this the calling thread's device, which it stays."""
        self._call.activate()
        yield

    def memory(self) -> tuple[int, int]:
        """Return the free and the whole device memory, bytes."""
        free, total = self._call.values("cudaMemGetInfo")
        return int(free), int(total)

    def stream(self) -> int:
        """Create a non-blocking stream."""
        flags = self._cuda.cudaStreamNonBlocking
        return self._reserve("cudaStreamCreateWithFlags", flags, release="cudaStreamDestroy")

    def synchronize(self, stream: int) -> None:
        """Wait until all work on the stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def event(self) -> int:
        """Create an event that measures time."""
        flags = self._cuda.cudaEventDefault
        return self._reserve("cudaEventCreateWithFlags", flags, release="cudaEventDestroy")

    def record(self, event: int, stream: int) -> None:
        """Set the event behind the work that is now on the stream."""
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        """Let the stream's later work wait for the event."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        """Wait until the event is reached."""
        self._call("cudaEventSynchronize", event)

    def elapsed_ms(self, start: int, end: int) -> float:
        """Return the milliseconds between two events that were reached."""
        return float(self._call("cudaEventElapsedTime", start, end))

    def allocate(self, size: int) -> int:
        """Reserve device memory."""
        return self._reserve("cudaMalloc", size, release="cudaFree")

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Reserve page-locked host memory as an array."""
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
        """Gather the stream's work into a graph from now on."""
        self._call.begin_capture(stream)

    def end_capture(self, stream: int) -> int:
        """Return the graph of the work gathered."""
        return self._reserve("cudaStreamEndCapture", stream, release="cudaGraphDestroy")

    def graph_nodes(self, graph: int) -> int:
        """Return how many nodes a graph has."""
        return int(self._call("cudaGraphGetNodes", graph))

    def instantiate(self, graph: int) -> int:
        """Return a graph made ready to launch."""
        return self._reserve("cudaGraphInstantiate", graph, 0, release="cudaGraphExecDestroy")

    def launch(self, instance: int, stream: int) -> None:
        """Put an instantiated graph's work on a stream."""
        self._call("cudaGraphLaunch", instance, stream)

    def free(self, resource: int | NDArray[Any]) -> None:
        """Give back one thing reserved here."""
        handle = resource if isinstance(resource, int) else resource.ctypes.data
        if handle not in self._reserved:
            raise MsfnetError("nothing is reserved under that handle; free each thing once")
        self._call(self._reserved.pop(handle), handle)

    def close(self) -> None:
        """Give back all that was reserved here, newest first, even where one call fails."""
        errors = []
        while self._reserved:
            handle, release = self._reserved.popitem()
            try:
                self._call(release, handle)
            except MsfnetError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _reserve(self, name: str, *arguments: Any, release: str) -> int:
        handle = int(self._call(name, *arguments))
        self._reserved[handle] = release
        return handle
