"""Imitates ``cuda.bindings.runtime`` and ``pycuda.driver`` on the simulated GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from msfnet_runtime import MsfnetError
from tests.runtime.fake_cuda import FakeDevice


class Status(IntEnum):
    """Two error codes of CUDA."""

    SUCCESS = 0
    INVALID = 1


class FakeRuntime(ModuleType):
    """``cuda.bindings.runtime``: functions return (status, values...), enumerations are named.

    ``fails`` names a function that returns an error; ``calls`` lists what was called.
    """

    def __init__(self, device: FakeDevice) -> None:
        super().__init__("cuda.bindings.runtime")
        self.device = device
        self.calls: list[str] = []
        self.fails: dict[str, int] = {}
        self.cudaStreamNonBlocking, self.cudaEventDefault = 1, 0
        self.cudaDeviceAttr = SimpleNamespace(
            cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76
        )
        self.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
        self.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
        for name, function in self._functions().items():
            setattr(self, name, self._answering(name, function))

    def cudaGetErrorString(self, status: Status) -> tuple[Status, bytes]:  # noqa: N802
        """Return the text of an error."""
        return Status.SUCCESS, b"invalid argument"

    def _answering(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def reply(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if name in self.fails:
                self.fails[name] -= 1
                if self.fails[name] < 0:
                    return (Status.INVALID, *([None] * (name in _GIVE_A_VALUE)))
            values = function(*arguments)
            if not isinstance(values, tuple):
                values = () if values is None else (values,)
            return (Status.SUCCESS, *values)

        return reply

    def _functions(self) -> dict[str, Callable[..., Any]]:
        device = self.device

        def copy(target: int, source: int, size: int, kind: int, stream: int) -> None:
            device.copy(target, source, size, stream, poison=kind == 2)

        def capture(stream: int, mode: int) -> None:
            assert mode == 1, "captures are thread-local"
            device.begin_capture(stream)

        def created(flags: int) -> int:
            assert flags == 1, "streams do not block"
            return device.stream()

        return {
            "cudaSetDevice": lambda index: None,
            "cudaDeviceGetAttribute": lambda attribute, index: {75: 8, 76: 6}[attribute],
            "cudaMemGetInfo": device.memory,
            "cudaStreamCreateWithFlags": created,
            "cudaStreamDestroy": device.free,
            "cudaStreamSynchronize": device.synchronize,
            "cudaEventCreateWithFlags": lambda flags: device.event(),
            "cudaEventDestroy": device.free,
            "cudaEventRecord": device.record,
            "cudaStreamWaitEvent": lambda stream, event, flags: device.wait(stream, event),
            "cudaEventSynchronize": device.synchronize_event,
            "cudaEventElapsedTime": device.elapsed_ms,
            "cudaMalloc": device.allocate,
            "cudaFree": device.free,
            "cudaMallocHost": lambda size: device.pinned((size,), "uint8").ctypes.data,
            "cudaFreeHost": device.free,
            "cudaMemcpyAsync": copy,
            "cudaStreamBeginCapture": capture,
            "cudaStreamEndCapture": device.end_capture,
            "cudaGraphGetNodes": lambda graph: ([], device.graph_nodes(graph)),
            "cudaGraphInstantiate": lambda graph, flags: device.instantiate(graph),
            "cudaGraphLaunch": device.launch,
            "cudaGraphDestroy": device.free,
            "cudaGraphExecDestroy": device.free,
        }


_GIVE_A_VALUE = (
    "cudaMalloc",
    "cudaMallocHost",
    "cudaStreamCreateWithFlags",
    "cudaGraphInstantiate",
)


class FakePyCuda(ModuleType):
    """``pycuda.driver``: objects that give back what they hold when they are forgotten."""

    def __init__(self, device: FakeDevice) -> None:
        super().__init__("pycuda.driver")
        driver = self
        self.depth, self.attached = 0, 0
        self.fail = False

        class Error(Exception):
            """Base of PyCUDA's errors."""

        def call(function: Callable[..., Any], *arguments: Any) -> Any:
            if driver.depth != 1 or driver.fail:
                raise Error("no context is current" if driver.depth != 1 else "out of memory")
            try:
                return function(*arguments)
            except MsfnetError as error:
                raise Error(str(error)) from None

        class Context:
            """A primary context."""

            def push(self) -> None:
                driver.depth += 1

            def pop(self) -> None:
                driver.depth -= 1

            def detach(self) -> None:
                driver.attached -= 1

        class Device:
            """A GPU."""

            def __init__(self, index: int) -> None:
                if driver.fail:
                    raise Error("no CUDA-capable device is detected")

            def compute_capability(self) -> tuple[int, int]:
                return 8, 6

            def retain_primary_context(self) -> Context:
                driver.attached += 1
                return Context()

        class Held:
            """A resource on the device."""

            def __init__(self, handle: int) -> None:
                self.handle = handle

            def __int__(self) -> int:
                return self.handle

            def __del__(self) -> None:
                if getattr(self, "handle", 0) in device.live:
                    device.free(self.handle)

        class Event(Held):
            """An event."""

            def __init__(self) -> None:
                super().__init__(call(device.event))

            def record(self, stream: Stream) -> None:
                call(device.record, self.handle, stream.handle)

            def synchronize(self) -> None:
                call(device.synchronize_event, self.handle)

            def time_till(self, other: Event) -> float:
                return float(call(device.elapsed_ms, self.handle, other.handle))

        class Stream(Held):
            """A stream."""

            def __init__(self, flags: int) -> None:
                assert flags == 1, "streams do not block"
                super().__init__(call(device.stream))

            def synchronize(self) -> None:
                call(device.synchronize, self.handle)

            def wait_for_event(self, event: Event) -> None:
                call(device.wait, self.handle, event.handle)

        class DeviceAllocation(Held):
            """Device memory."""

            def free(self) -> None:
                call(device.free, self.handle)
                self.handle = 0

        class Pinned(np.ndarray):
            """Page-locked memory, freed with its last view."""

            def __del__(self) -> None:
                if self.base is None or not isinstance(self.base, Pinned):
                    address = self.ctypes.data
                    if address in device.live:
                        device.free(address)

        self.Error, self.Device, self.Stream, self.Event = Error, Device, Stream, Event
        self.DeviceAllocation = DeviceAllocation
        self.init = lambda: None
        self.mem_get_info = lambda: call(device.memory)
        self.mem_alloc = lambda size: DeviceAllocation(call(device.allocate, size))
        self.pagelocked_empty = lambda shape, dtype: call(device.pinned, shape, dtype).view(Pinned)
        self.memcpy_htod_async = lambda address, array, stream: call(
            device.copy_in, address, array, stream.handle
        )
        self.memcpy_dtoh_async = lambda array, address, stream: call(
            device.copy_out, array, address, stream.handle
        )


def install_cuda_python(monkeypatch: pytest.MonkeyPatch, device: FakeDevice) -> FakeRuntime:
    """Make ``from cuda.bindings import runtime`` find the imitation."""
    runtime = FakeRuntime(device)
    bindings = ModuleType("cuda.bindings")
    bindings.runtime = runtime  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)
    return runtime


def install_pycuda(monkeypatch: pytest.MonkeyPatch, device: FakeDevice) -> FakePyCuda:
    """Make ``from pycuda import driver`` find the imitation."""
    driver = FakePyCuda(device)
    package = ModuleType("pycuda")
    package.driver = driver  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    return driver


def remove(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make these modules unavailable."""
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)
