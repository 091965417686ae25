"""A TensorRT that computes a NumPy function on the fake device's memory, when its stream does."""

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
    """Some of TensorRT's."""

    FLOAT = 0
    HALF = 1
    UINT8 = 2


class TensorIOMode(Enum):
    """TensorRT's."""

    INPUT = 1
    OUTPUT = 2


def depth_like(batch: NDArray[Any]) -> NDArray[np.float32]:
    """Return (N, 1, ceil(h/2), ceil(w/2)) of a (N, 3, h, w) batch: every input pixel row counts."""
    mixed = 0.5 * batch[:, :1] - 0.25 * batch[:, 1:2] + 2.0 * batch[:, 2:3]
    running = np.cumsum(mixed, axis=-1, dtype=np.float32)
    return np.ascontiguousarray(running[:, :, ::2, ::2].astype(np.float32))


def halved(shape: Shape) -> Shape:
    """Return the output shape of :func:`depth_like`."""
    return (shape[0], 1, -(-shape[2] // 2), -(-shape[3] // 2))


@dataclass
class FakeTensorRT:
    """The module, its runtime and its engine in one; attributes are its faults.

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
    """Of capture: ``empty``, ``refused``, ``stale``, ``wrong`` or ``not capturable``."""
    ms: float = 3.0
    runs: int = 0
    __version__: str = "1.0"

    def __post_init__(self) -> None:
        """Be the module."""
        self.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda *_: None})
        self.IProfiler = type("IProfiler", (), {})

    def Runtime(self, logger: Any) -> FakeTensorRT:  # noqa: N802
        """Be the runtime."""
        return self

    def deserialize_cuda_engine(self, content: bytes) -> FakeTensorRT | None:
        """Be the engine."""
        assert content
        return self if self.loads else None

    @property
    def num_io_tensors(self) -> int:
        """How many there are."""
        return len(self.tensors)

    @property
    def num_optimization_profiles(self) -> int:
        """How many there are."""
        return len(self.profiles)

    def get_tensor_name(self, number: int) -> str:
        """Of one tensor."""
        return self.tensors[number][0]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """Of one tensor."""
        return self._tensor(name)[1]

    def get_tensor_dtype(self, name: str) -> DataType:
        """Of one tensor."""
        return self._tensor(name)[2]

    def get_tensor_shape(self, name: str) -> Shape:
        """Of one tensor, -1 where it is dynamic."""
        return self._tensor(name)[3]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Shape]:
        """Of the input."""
        assert self.get_tensor_mode(name) is TensorIOMode.INPUT
        return list(self.profiles[profile])

    def create_execution_context(self) -> FakeContext | None:
        """Return another context, while there are any."""
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
        """Tell of two layers, once the run asked for is done."""
        if self.profiler is None or self.enqueue_emits_profile or self._engine.fault == "silent":
            return False
        assert self._engine.runs, "asked before anything ran"
        self.profiler.report_layer_time("encoder.stem", self._engine.ms / 4)
        self.profiler.report_layer_time("decoder.head", 3 * self._engine.ms / 4)
        return True

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        """Choose a profile, which forgets the shape."""
        self._profile, self._shape = profile, ()
        return True

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        """Accept what the profile holds."""
        low, _, high = self._engine.profiles[self._profile]
        if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            return False
        self._shape = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> Shape:
        """Of the output; -1 before the input's is known."""
        return halved(self._shape) if self._shape else (-1, 1, -1, -1)

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Keep it."""
        self._addresses[name] = address
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        """As TensorRT for RTX says it."""
        return self._engine.fault != "not capturable"

    def execute_async_v3(self, stream: int) -> bool:
        """Put the function on the stream, with shape and addresses as they are now."""
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
            given = _floats(source, shape) if frozen is None else frozen
            _floats(target, halved(shape))[...] = wrong * engine.function(given)

        sizes = (4 * int(np.prod(shape)), 4 * int(np.prod(halved(shape))))
        for address, size in zip((source, target), sizes, strict=True):
            device.reserved(address, size)
        device.submit(stream, Work(run, engine.ms, (source, target)))
        return True


def _floats(address: int, shape: Shape) -> NDArray[np.float32]:
    """View memory as an array."""
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
"""Arguments of an engine with two profiles."""

Open = Callable[..., tuple[TensorRTEngine, FakeTensorRT]]
"""What the fixture ``opened`` gives: changes to engine, library and device."""


def batches(rng: np.random.Generator, count: int, *shape: int) -> list[NDArray[np.float32]]:
    """Return batches that all differ."""
    return [rng.normal(size=shape or (1, 3, 32, 64)).astype(np.float32) for _ in range(count)]
