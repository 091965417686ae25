"""Imitates TensorRT: computes a NumPy function in the simulated GPU's memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.engines.tensorrt import TensorRTEngine
from tests.runtime.fake_cuda import FakeDevice, Work

Shape = tuple[int, ...]


class DataType(Enum):
    """Some data types of TensorRT."""

    FLOAT = 0
    HALF = 1
    UINT8 = 2


class TensorIOMode(Enum):
    """TensorRT's tensor modes."""

    INPUT = 1
    OUTPUT = 2


def depth_like(batch: NDArray[Any]) -> NDArray[np.float32]:
    """Return (N, 1, ceil(h/2), ceil(w/2)) of a (N, 3, h, w) batch; every input value matters."""
    mixed = 0.5 * batch[:, :1] - 0.25 * batch[:, 1:2] + 2.0 * batch[:, 2:3]
    running = np.cumsum(mixed, axis=-1, dtype=np.float32)
    return np.ascontiguousarray(running[:, :, ::2, ::2].astype(np.float32))


def halved(shape: Shape) -> Shape:
    """Return the output shape of :func:`depth_like`."""
    return (shape[0], 1, -(-shape[2] // 2), -(-shape[3] // 2))


@dataclass
class FakeTensorRT:
    """Imitates the module, its runtime and its engine; attributes set its faults.

    ``profiles`` are (smallest, usual, largest) shapes of the input.
    """

    device: FakeDevice
    tensors: Sequence[tuple[str, TensorIOMode, DataType, Shape]] = (
        ("image", TensorIOMode.INPUT, DataType.FLOAT, (1, 3, 32, 64)),
        ("prediction", TensorIOMode.OUTPUT, DataType.FLOAT, (1, 1, 16, 32)),
    )
    profiles: Sequence[tuple[Shape, Shape, Shape]] = (((1, 3, 32, 64),) * 3,)
    function: Callable[[NDArray[Any]], NDArray[np.float32]] = depth_like
    loads: bool = True
    contexts_left: int = 99
    refuses: bool = False
    fault: str = ""
    """Fault of the capture: ``empty``, ``refused``, ``stale``, ``wrong``, ``not capturable``."""
    ms: float = 3.0
    runs: int = 0
    __version__: str = "1.0"

    def __post_init__(self) -> None:
        """Add the classes of the module."""
        self.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda *_: None})
        self.IProfiler = type("IProfiler", (), {})

    def Runtime(self, logger: Any) -> FakeTensorRT:  # noqa: N802
        """Return the runtime: this object."""
        return self

    def deserialize_cuda_engine(self, content: bytes) -> FakeTensorRT | None:
        """Return the engine: this object."""
        assert content
        return self if self.loads else None

    @property
    def num_io_tensors(self) -> int:
        """The number of them."""
        return len(self.tensors)

    @property
    def num_optimization_profiles(self) -> int:
        """The number of them."""
        return len(self.profiles)

    def get_tensor_name(self, number: int) -> str:
        """Return this property of one tensor."""
        return self.tensors[number][0]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """Return this property of one tensor."""
        return self._tensor(name)[1]

    def get_tensor_dtype(self, name: str) -> DataType:
        """Return this property of one tensor."""
        return self._tensor(name)[2]

    def get_tensor_shape(self, name: str) -> Shape:
        """Return the shape of one tensor, -1 where it is dynamic."""
        return self._tensor(name)[3]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Shape]:
        """Return the shapes of a profile."""
        assert self.get_tensor_mode(name) is TensorIOMode.INPUT
        return list(self.profiles[profile])

    def create_execution_context(self) -> FakeContext | None:
        """Return another context, if any is left."""
        self.contexts_left -= 1
        return FakeContext(self) if self.contexts_left >= 0 else None

    def _tensor(self, name: str) -> tuple[str, TensorIOMode, DataType, Shape]:
        return next(tensor for tensor in self.tensors if tensor[0] == name)


class FakeContext:
    """One execution context."""

    def __init__(self, engine: FakeTensorRT) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._shape: Shape = ()
        self._profile = 0
        self.profiler: Any = None
        self.enqueue_emits_profile = True

    def report_to_profiler(self) -> bool:
        """Report two layers after a run."""
        if self.profiler is None or self.enqueue_emits_profile or self._engine.fault == "silent":
            return False
        assert self._engine.runs, "asked before anything ran"
        self.profiler.report_layer_time("encoder.stem", self._engine.ms / 4)
        self.profiler.report_layer_time("decoder.head", 3 * self._engine.ms / 4)
        return True

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        """Select a profile, which resets the shape."""
        self._profile, self._shape = profile, ()
        return True

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        """Accept shapes within the profile."""
        low, _, high = self._engine.profiles[self._profile]
        if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            return False
        self._shape = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> Shape:
        """Return the shape of the output; -1 before the input's is set."""
        return halved(self._shape) if self._shape else (-1, 1, -1, -1)

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Store the address."""
        self._addresses[name] = address
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        """Return whether a capture is possible, like TensorRT for RTX."""
        return self._engine.fault != "not capturable"

    def execute_async_v3(self, stream: int) -> bool:
        """Enqueue the function with the current shape and addresses."""
        engine, device = self._engine, self._engine.device
        capturing = device.live[stream].capture is not None
        if engine.refuses or not self._shape or (capturing and engine.fault == "refused"):
            return False
        if capturing and engine.fault == "empty":
            return True
        names = [tensor[0] for tensor in engine.tensors]
        source, target = (self._addresses[name] for name in names)
        shape = self._shape
        frozen = _floats(source, shape).copy() if capturing and engine.fault == "stale" else None
        wrong = 1.5 if capturing and engine.fault == "wrong" else 1.0

        def run() -> None:
            engine.runs += 1
            batch = _floats(source, shape) if frozen is None else frozen
            _floats(target, halved(shape))[...] = wrong * engine.function(batch)

        sizes = (4 * int(np.prod(shape)), 4 * int(np.prod(halved(shape))))
        for address, size in zip((source, target), sizes, strict=True):
            device.reserved(address, size)
        device.submit(stream, Work(run, engine.ms, (source, target)))
        return True


def _floats(address: int, shape: Shape) -> NDArray[np.float32]:
    """Return a view of memory as an array."""
    size = 4 * int(np.prod(shape))
    memory = memoryview((ctypes.c_byte * size).from_address(address))
    return np.frombuffer(memory, np.float32).reshape(shape)


DYNAMIC: dict[str, Any] = {
    "tensors": (
        ("image", TensorIOMode.INPUT, DataType.FLOAT, (-1, 3, -1, -1)),
        ("prediction", TensorIOMode.OUTPUT, DataType.FLOAT, (-1, 1, -1, -1)),
    ),
    "profiles": (
        ((1, 3, 8, 8), (1, 3, 16, 16), (2, 3, 32, 32)),
        ((1, 3, 64, 64), (1, 3, 64, 64), (1, 3, 64, 96)),
    ),
}
"""Arguments for an engine with two profiles."""

Open = Callable[..., tuple[TensorRTEngine, FakeTensorRT]]
"""The type of the fixture ``opened``: its options change engine, library and device."""


def batches(rng: np.random.Generator, count: int, *shape: int) -> list[NDArray[np.float32]]:
    """Return batches that all differ."""
    return [rng.normal(size=shape or (1, 3, 32, 64)).astype(np.float32) for _ in range(count)]
