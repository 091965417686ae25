"""Device memory and streams: the only file that names cuda-python or PyCUDA.

Both are used on the device's **primary** context, the one PyTorch and ONNX Runtime use too.
cuda-python is the default; ``MSFNET_CUDA=pycuda`` asks for PyCUDA, which also serves where
cuda-python is not installed.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError


class Device(Protocol):
    """One GPU. Pointers are plain integers; every copy is asynchronous on its stream."""

    @property
    def architecture(self) -> str:
        """The compute capability, as ``sm86``."""

    def stream(self) -> int:
        """Create a non-blocking stream; its handle goes into TensorRT."""

    def synchronize(self, stream: int) -> None:
        """Wait until all work on the stream is done."""

    def allocate(self, size: int) -> int:
        """Reserve ``size`` bytes of device memory until :meth:`close`; return their address."""

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Reserve page-locked host memory as an array, until :meth:`close`."""

    def copy_in(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy a contiguous host array to the device."""

    def copy_out(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy device memory into a contiguous host array."""

    def close(self) -> None:
        """Give back every stream and all memory reserved here."""


def open_device(index: int = 0) -> Device:
    """Open a GPU through the binding that is installed.

    Raises:
        MsfnetError: no binding is installed, or there is no GPU or no driver.
    """
    wanted = os.environ.get("MSFNET_CUDA", "")
    if wanted not in ("", "cuda-python", "pycuda"):
        raise MsfnetError(f"MSFNET_CUDA={wanted} is unknown; set it to cuda-python or pycuda")
    openers: dict[str, Callable[[int], Device]] = {
        "cuda-python": CudaPythonDevice,
        "pycuda": PyCudaDevice,
    }
    missing = ""
    for name in [wanted] if wanted else list(openers):
        try:
            return openers[name](index)
        except ImportError:
            missing = wanted or "cuda-python"
    raise MsfnetError(f"{missing} is not installed; run `pip install {missing}`")


class CudaPythonDevice:
    """A device through cuda-python's runtime API (``cuda.bindings.runtime``)."""

    def __init__(self, index: int) -> None:
        from cuda.bindings import runtime

        self._cuda = runtime
        self._reserved: list[tuple[str, int]] = []
        try:
            self._call("cudaSetDevice", index)
            attribute = runtime.cudaDeviceAttr
            major, minor = (
                self._call("cudaDeviceGetAttribute", getattr(attribute, name), index)
                for name in (
                    "cudaDevAttrComputeCapabilityMajor",
                    "cudaDevAttrComputeCapabilityMinor",
                )
            )
        except (MsfnetError, RuntimeError) as error:
            raise MsfnetError(
                f"no NVIDIA GPU can be used here ({error}); run the .onnx file instead"
            ) from None
        self._architecture = f"sm{major}{minor}"

    @property
    def architecture(self) -> str:
        """The compute capability, as ``sm86``."""
        return self._architecture

    def stream(self) -> int:
        """Create a non-blocking stream."""
        flags = self._cuda.cudaStreamNonBlocking
        return self._reserve("cudaStreamCreateWithFlags", flags, release="cudaStreamDestroy")

    def synchronize(self, stream: int) -> None:
        """Wait until all work on the stream is done."""
        self._call("cudaStreamSynchronize", stream)

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

    def close(self) -> None:
        """Give back every stream and all memory reserved here."""
        while self._reserved:
            self._call(*self._reserved.pop())

    def _reserve(self, name: str, argument: int, *, release: str) -> int:
        handle = int(self._call(name, argument))
        self._reserved.append((release, handle))
        return handle

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *values = getattr(self._cuda, name)(*arguments)
        if int(status) != 0:
            _, text = self._cuda.cudaGetErrorString(status)
            raise MsfnetError(f"{name}: {text.decode()}")
        return values[0] if values else None


class PyCudaDevice:
    """A device through PyCUDA, on the primary context, pushed around every call."""

    def __init__(self, index: int) -> None:
        from pycuda import driver

        self._cuda = driver
        try:
            driver.init()
            device = driver.Device(index)
        except driver.Error as error:
            raise MsfnetError(
                f"no NVIDIA GPU can be used here ({error}); run the .onnx file instead"
            ) from None
        major, minor = device.compute_capability()
        self._architecture = f"sm{major}{minor}"
        self._context = device.retain_primary_context()
        self._streams: dict[int, Any] = {}
        self._memory: list[Any] = []

    @property
    def architecture(self) -> str:
        """The compute capability, as ``sm86``."""
        return self._architecture

    def stream(self) -> int:
        """Create a non-blocking stream."""
        created = self._within(lambda: self._cuda.Stream(1))  # 1 is CU_STREAM_NON_BLOCKING
        self._streams[int(created.handle)] = created
        return int(created.handle)

    def synchronize(self, stream: int) -> None:
        """Wait until all work on the stream is done."""
        self._within(self._streams[stream].synchronize)

    def allocate(self, size: int) -> int:
        """Reserve device memory."""
        memory = self._within(lambda: self._cuda.mem_alloc(size))
        self._memory.append(memory)
        return int(memory)

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Reserve page-locked host memory as an array."""
        array = self._within(lambda: self._cuda.pagelocked_empty(shape, np.dtype(dtype)))
        self._memory.append(array)
        return np.asarray(array)

    def copy_in(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy a contiguous host array to the device."""
        target = self._streams[stream]
        self._within(lambda: self._cuda.memcpy_htod_async(address, array, target))

    def copy_out(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy device memory into a contiguous host array."""
        target = self._streams[stream]
        self._within(lambda: self._cuda.memcpy_dtoh_async(array, address, target))

    def close(self) -> None:
        """Give back every stream, all memory reserved here, and the primary context."""
        self._within(self._streams.clear)
        self._within(self._memory.clear)
        self._context.detach()

    def _within(self, call: Any) -> Any:
        self._context.push()
        try:
            return call()
        finally:
            self._context.pop()
