"""ONNX files through ONNX Runtime: on the CPU, or on a GPU where its provider really loads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.engine import EngineBase
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.onnx_metadata import read_onnx_spec
from msfnet_runtime.spec import ModelSpec

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}

_SILENT = 4
"""Log fatal errors only: what goes wrong is an exception, and said in our own line."""


class OnnxRuntimeEngine(EngineBase):
    """One ONNX Runtime session, which several threads may run at once.

    Args:
        path: an ONNX file made by msfnet.
        provider: ``cpu``, ``cuda`` or ``tensorrt``; nothing else runs the graph's supported part.
        threads: worker threads of the CPU provider; 0 leaves the choice to ONNX Runtime.

    Raises:
        MsfnetError: ONNX Runtime is missing, the file cannot be loaded, or the provider asked
            for does not load here (there is no silent fall-back to the CPU).
    """

    thread_safe = True

    def __init__(
        self, path: str | os.PathLike[str], *, provider: str = "cpu", threads: int = 0
    ) -> None:
        ort = _library()
        ort.set_default_logger_severity(_SILENT)
        super().__init__(_readable(read_onnx_spec(path)))
        name = _provider_name(provider, ort.get_available_providers())
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _SILENT
        # Threads that spin while they wait slow whatever else runs: the video encoder, the reader,
        # and in a comparison the other models (PyTorch took 36 ms instead of 16).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(
                os.fspath(path),
                options,
                providers=[name, *([PROVIDERS["cpu"]] * (name != PROVIDERS["cpu"]))],
            )
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no base class
            raise MsfnetError(
                f"ONNX Runtime cannot load {Path(path)}: {_first_line(error)}; export it again"
            ) from None
        self._provider = self._session.get_providers()[0]
        if self._provider != name:
            raise MsfnetError(
                f"ONNX Runtime could not start {name} here and fell back to {self._provider}; "
                "install the CUDA and cuDNN it needs, or ask for the CPU"
            )
        self._version: str = ort.__version__

    def describe(self) -> str:
        """Name ONNX Runtime's version and the provider in use."""
        return f"ONNX Runtime {self._version} {self._provider}"

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        name = self._spec.inputs[0].name
        return np.asarray(self._session.run([self._spec.outputs[0].name], {name: batch})[0])

    def _release(self) -> None:
        del self._session


def _library() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MsfnetError(
            "ONNX Runtime is not installed; run `pip install 'msfnet[ort]'`"
        ) from None
    return onnxruntime


def _provider_name(provider: str, available: list[str]) -> str:
    if provider not in PROVIDERS:
        raise MsfnetError(f"unknown provider {provider!r}; choose one of {', '.join(PROVIDERS)}")
    name = PROVIDERS[provider]
    if name not in available:
        raise MsfnetError(
            f"this ONNX Runtime has no {name}; run `pip install onnxruntime-gpu`, or ask for cpu"
        )
    return name


def _readable(spec: ModelSpec) -> ModelSpec:
    if len(spec.inputs) != 1 or len(spec.outputs) != 1:
        raise MsfnetError("a depth model has one input and one output; export the model again")
    return spec


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
