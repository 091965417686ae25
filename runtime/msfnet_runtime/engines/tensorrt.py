"""TensorRT engines, both flavours: ``tensorrt`` and TensorRT for RTX share one Python API."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.artifacts import EngineArtifact, Flavour
from msfnet_runtime.cuda import open_device
from msfnet_runtime.engine import EngineBase
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.preflight import check_architecture, check_fixed, preflight, rebuild_command
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
                raise MsfnetError(
                    f"{artifact.path} cannot be deserialised; {rebuild_command(artifact)}"
                )
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
