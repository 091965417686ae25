"""Wraps one TensorRT execution context: input shape, tensor addresses, runs on a stream."""

from __future__ import annotations

from typing import Any, NamedTuple

from msfnet_runtime.cuda.base import Device
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.words import shape_text

Shape = tuple[int, ...]

_TYPES = {"FLOAT": "float32", "HALF": "float16"}
"""NumPy's name for TensorRT's types whose name is not the same in capitals."""


class Range(NamedTuple):
    """The shapes that one optimisation profile accepts, and the number of the profile."""

    profile: int
    smallest: Shape
    largest: Shape

    def __str__(self) -> str:
        return f"{shape_text(self.smallest)} to {shape_text(self.largest)}"

    def holds(self, shape: Shape) -> bool:
        """Return whether a shape lies within the range."""
        return all(
            low <= size <= high
            for low, size, high in zip(self.smallest, shape, self.largest, strict=True)
        )


def check_tensors(engine: Any, spec: ModelSpec) -> None:
    """Compare the tensors of an engine with its manifest.

    Args:
        engine: TensorRT's ICudaEngine.
        spec: the spec in the manifest.

    Raises:
        MsfnetError: names, directions, types or shapes differ.
    """
    names = {engine.get_tensor_name(number) for number in range(engine.num_io_tensors)}
    wanted = {tensor.name for tensor in (*spec.inputs, *spec.outputs)}
    if names != wanted:
        raise MsfnetError(
            f"the engine's tensors are {', '.join(sorted(names))}, its manifest says "
            f"{', '.join(sorted(wanted))}; build it again"
        )
    for tensor in (*spec.inputs, *spec.outputs):
        kind = engine.get_tensor_dtype(tensor.name).name
        built = _tensor_text(
            engine.get_tensor_mode(tensor.name).name.lower(),
            [int(size) for size in engine.get_tensor_shape(tensor.name)],
            _TYPES.get(kind, kind.lower()),
        )
        shape = [-1 if isinstance(size, str) else size for size in tensor.shape]
        expected = _tensor_text("input" if tensor in spec.inputs else "output", shape, tensor.dtype)
        if built != expected:
            raise MsfnetError(
                f"the engine's {tensor.name!r} is an {built}, its manifest says {expected}; build "
                "it again"
            )


def _tensor_text(mode: str, shape: list[int], dtype: str) -> str:
    return f"{mode} {shape_text(shape)} {dtype}"


class Context:
    """An execution context for one input and one output, on one GPU.

    Args:
        device: the GPU that runs it.
        engine: TensorRT's ICudaEngine.
        spec: describes the engine's tensors.

    Raises:
        MsfnetError: there is no memory for another context.
    """

    def __init__(self, device: Device, engine: Any, spec: ModelSpec) -> None:
        self._device = device
        self.input, self.output = spec.inputs[0], spec.outputs[0]
        self._ranges = []
        for number in range(engine.num_optimization_profiles):
            low, _, high = engine.get_tensor_profile_shape(self.input.name, number)
            self._ranges.append(Range(number, tuple(map(int, low)), tuple(map(int, high))))
        self._profile = 0
        with device.active():
            self._context = engine.create_execution_context()
        if self._context is None:
            raise MsfnetError("TensorRT could not create an execution context; free GPU memory")

    def set_shape(self, shape: Shape, stream: int) -> Shape:
        """Set the input's shape, and the profile that accepts it; return the output's shape.

        Raises:
            MsfnetError: no profile accepts it.
        """
        fitting = [r.profile for r in self._ranges if r.holds(shape)]
        if not fitting:
            ranges = ", ".join(map(str, self._ranges))
            raise MsfnetError(
                f"{shape_text(shape)} is outside the engine's profiles ({ranges}); pass a batch "
                "within them, or build the engine with another profile"
            )
        with self._device.active():
            if self._profile not in fitting:
                self._context.set_optimization_profile_async(fitting[0], stream)
                self._device.synchronize(stream)
                self._profile = fitting[0]
            accepted = self._context.set_input_shape(self.input.name, shape)
            output = tuple(int(size) for size in self._context.get_tensor_shape(self.output.name))
        if not accepted or min(output) < 1:
            raise MsfnetError(
                f"TensorRT refused the shape {shape_text(shape)}; build the engine again"
            )
        return output

    def bind(self, source: int, target: int) -> None:
        """Set the addresses of input and output."""
        for tensor, address in ((self.input, source), (self.output, target)):
            if not self._context.set_tensor_address(tensor.name, address):
                raise MsfnetError(f"TensorRT refused memory for {tensor.name!r}; build it again")

    def enqueue(self, stream: int) -> None:
        """Enqueue one run on the stream.

        Raises:
            MsfnetError: TensorRT refused it.
        """
        with self._device.active():
            accepted = self._context.execute_async_v3(stream)
        if not accepted:
            raise MsfnetError("TensorRT refused to run the batch; run `msfnet doctor`")

    def profile(self, profiler: Any, stream: int) -> None:
        """Run once on the stream and wait; the profiler gets the time of every layer.

        Raises:
            MsfnetError: TensorRT refused it.
        """
        with self._device.active():
            self._context.enqueue_emits_profile = False
            self._context.profiler = profiler
        self.enqueue(stream)
        self._device.synchronize(stream)
        with self._device.active():
            reported = self._context.report_to_profiler()
        if not reported:
            raise MsfnetError("TensorRT reported no layer times; measure without a layer profile")

    def capturable(self, stream: int) -> bool:
        """Return whether the stream can be captured; only TensorRT for RTX can return False."""
        capturable = getattr(self._context, "is_stream_capturable", None)
        return capturable is None or bool(capturable(stream))

    def close(self) -> None:
        """Let TensorRT free the context."""
        with self._device.active():
            self._context = None
