"""One GPU as a small interface: memory, streams, events and graphs, and how to open one.

Everything runs on the device's **primary** context, the one PyTorch and ONNX Runtime use too.
cuda-python is the default; ``MSFNET_CUDA=pycuda`` asks for PyCUDA, which also serves where
cuda-python is not installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError


class Device(Protocol):
    """One GPU. Addresses and handles are plain integers; copies are asynchronous.

    What is reserved here lives until :meth:`free` or :meth:`close`. Host memory of a copy must
    be page-locked and must not be touched before the stream, or an event recorded after the
    copy, was waited for.
    """

    @property
    def architecture(self) -> str:
        """The compute capability, as ``sm86``."""

    @property
    def dlpack(self) -> tuple[int, int]:
        """DLPack's kind and number of the device; an NVIDIA GPU is (2, index)."""

    @property
    def graph_obstacle(self) -> str:
        """Why no CUDA graph can be captured here; empty where they can."""

    def active(self) -> AbstractContextManager[None]:
        """Return a context in which other libraries' calls in this thread go to this device."""

    def memory(self) -> tuple[int, int]:
        """Return the free and the whole device memory, bytes."""

    def stream(self) -> int:
        """Create a non-blocking stream; its handle goes into TensorRT."""

    def synchronize(self, stream: int) -> None:
        """Wait until all work on the stream is done."""

    def event(self) -> int:
        """Create an event that measures time."""

    def record(self, event: int, stream: int) -> None:
        """Set the event behind the work that is now on the stream."""

    def wait(self, stream: int, event: int) -> None:
        """Let the stream's later work wait until the event, as now recorded, is reached."""

    def synchronize_event(self, event: int) -> None:
        """Wait until the event is reached."""

    def elapsed_ms(self, start: int, end: int) -> float:
        """Return the milliseconds between two events that were reached."""

    def allocate(self, size: int) -> int:
        """Reserve ``size`` bytes of device memory; return their address."""

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Reserve page-locked host memory as an array."""

    def copy_in(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy a contiguous host array to the device."""

    def copy_out(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy device memory into a contiguous host array."""

    def begin_capture(self, stream: int) -> None:
        """Gather the stream's work into a graph from now on, thread-locally, and do none of it."""

    def end_capture(self, stream: int) -> int:
        """Return the graph of the work gathered since :meth:`begin_capture`."""

    def graph_nodes(self, graph: int) -> int:
        """Return how many nodes a graph has."""

    def instantiate(self, graph: int) -> int:
        """Return a graph made ready to launch."""

    def launch(self, instance: int, stream: int) -> None:
        """Put an instantiated graph's work on a stream."""

    def free(self, resource: int | NDArray[Any]) -> None:
        """Give back one stream, event, graph, or piece of memory reserved here."""

    def close(self) -> None:
        """Give back all that was reserved here; closing twice is allowed."""


def open_device(index: int = 0) -> Device:
    """Open a GPU through the binding that is installed.

    Raises:
        MsfnetError: no binding is installed, or there is no GPU or no driver.
    """
    wanted = os.environ.get("MSFNET_CUDA", "")
    openers: dict[str, Callable[[int], Device]] = {
        "cuda-python": _open_cuda_python,
        "pycuda": _open_pycuda,
    }
    if wanted and wanted not in openers:
        raise MsfnetError(f"MSFNET_CUDA={wanted} is unknown; set it to cuda-python or pycuda")
    for name in [wanted] if wanted else openers:
        try:
            return openers[name](index)
        except ImportError:
            continue
    missing = wanted or "cuda-python"
    raise MsfnetError(f"{missing} is not installed; run `pip install {missing}`")


def _open_cuda_python(index: int) -> Device:
    from msfnet_runtime.cuda.cuda_python_binding import CudaPythonDevice

    return CudaPythonDevice(index)


def _open_pycuda(index: int) -> Device:
    from msfnet_runtime.cuda.pycuda_binding import PyCudaDevice

    return PyCudaDevice(index)
