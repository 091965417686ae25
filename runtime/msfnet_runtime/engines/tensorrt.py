"""TensorRT engines, both flavours: ``tensorrt`` and TensorRT for RTX share one Python API.

The manifest beside the engine is read and held against this machine before anything is
deserialised: TensorRT itself answers a foreign engine with an error code at best.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.artifacts import EngineArtifact, Flavour
from msfnet_runtime.cuda import open_device
from msfnet_runtime.engine import EngineBase
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import sha256
from msfnet_runtime.spec import TensorSpec

MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def load_tensorrt(flavour: Flavour) -> Any:
    """Return the Python module of a TensorRT flavour.

    Raises:
        MsfnetError: it is not installed.
    """
    try:
        return importlib.import_module(MODULES[flavour])
    except (ImportError, OSError):
        raise MsfnetError(
            f"{flavour} is not installed; run `pip install 'msfnet[{flavour}]'`"
        ) from None


def this_platform() -> str:
    """Name the operating system and processor, as manifests do: ``linux-x86_64``."""
    return f"{sys.platform}-{platform.machine()}"


def preflight(artifact: EngineArtifact, version: str) -> None:
    """Check what can be checked without a GPU: platform, library version, the file itself.

    Raises:
        MsfnetError: what does not fit, and the command that rebuilds the engine.
    """
    again = _rebuild(artifact)
    if artifact.platform != this_platform():
        raise MsfnetError(
            f"{artifact.path} was built for {artifact.platform}, this is {this_platform()}; {again}"
        )
    if artifact.version != version:
        raise MsfnetError(
            f"{artifact.path} was built by {artifact.flavour} {artifact.version}, "
            f"{version} is installed here; {again}"
        )
    if artifact.path.stat().st_size != artifact.bytes or (
        sha256(artifact.path) != artifact.engine_sha256
    ):
        raise MsfnetError(f"{artifact.path} is not the file its manifest describes; {again}")


def check_fixed(artifact: EngineArtifact) -> None:
    """Check that every dimension is a number: memory is reserved once.

    Raises:
        MsfnetError: one is not; with the way out.
    """
    for tensor in (*artifact.spec.inputs, *artifact.spec.outputs):
        if not all(isinstance(dimension, int) for dimension in tensor.shape):
            raise MsfnetError(
                f"{artifact.path} was built from a dynamic graph ({tensor.name} is "
                f"{'x'.join(map(str, tensor.shape))}), which msfnet runs as ONNX only; run the "
                ".onnx file, or export without --dynamic and build again"
            )


def _rebuild(artifact: EngineArtifact) -> str:
    return (
        f"rebuild it with `msfnet build MODEL.onnx {artifact.path.name} "
        f"--flavour {artifact.flavour}`"
    )


class _Binding(NamedTuple):
    """One tensor of the engine."""

    host: NDArray[Any]
    """Pinned host memory of the tensor's shape and type."""
    address: int
    """Its device memory."""


class TensorRTEngine(EngineBase):
    """One deserialised engine with one execution context. Not thread-safe.

    Raises:
        MsfnetError: manifest missing, engine not made for this machine, library or GPU absent.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        artifact = EngineArtifact.read(Path(path))
        super().__init__(artifact.spec)
        check_fixed(artifact)
        trt = load_tensorrt(artifact.flavour)
        preflight(artifact, str(trt.__version__))
        self._device = open_device()
        try:
            check_architecture(artifact, self._device.architecture)
            self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
            self._engine = self._runtime.deserialize_cuda_engine(artifact.path.read_bytes())
            if self._engine is None:
                raise MsfnetError(f"{artifact.path} cannot be deserialised; {_rebuild(artifact)}")
            self._context = self._engine.create_execution_context()
            self._input = self._bind(artifact.spec.inputs[0])
            self._output = self._bind(artifact.spec.outputs[0])
            self._stream = self._device.stream()
        except BaseException:
            self._device.close()
            raise
        self._label = f"{artifact.flavour} {artifact.version} {self._device.architecture}"

    def describe(self) -> str:
        """Name the flavour, its version and the GPU's architecture."""
        return self._label

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        self._input.host[...] = batch
        self._device.copy_in(self._input.address, self._input.host, self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise MsfnetError("TensorRT refused to run the batch; run `msfnet doctor`")
        self._device.copy_out(self._output.host, self._output.address, self._stream)
        self._device.synchronize(self._stream)
        return self._output.host.copy()

    def _bind(self, tensor: TensorSpec) -> _Binding:
        """Reserve memory for one tensor, once the engine and the spec agree on its shape."""
        shape = tuple(int(dimension) for dimension in tensor.shape)
        built = tuple(self._engine.get_tensor_shape(tensor.name))
        if built != shape:
            raise MsfnetError(
                f"the engine's {tensor.name!r} is {built}, its manifest says {shape}; "
                "build it again"
            )
        host = self._device.pinned(shape, tensor.dtype)
        address = self._device.allocate(host.nbytes)
        self._context.set_tensor_address(tensor.name, address)
        return _Binding(host, address)

    def _release(self) -> None:
        del self._context, self._engine, self._runtime
        self._device.close()


def check_architecture(artifact: EngineArtifact, architecture: str) -> None:
    """Check that the engine holds code for the GPU at hand (``sm86``).

    Raises:
        MsfnetError: it does not; with the command that adds it.
    """
    if architecture not in artifact.architectures:
        raise MsfnetError(
            f"{artifact.path} was built for {', '.join(artifact.architectures)}, this GPU is "
            f"{architecture}; {_rebuild(artifact)} --arch {architecture}"
        )
