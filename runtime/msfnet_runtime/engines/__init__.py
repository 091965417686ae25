"""Opens a model file with the engine that runs its kind."""

from __future__ import annotations

import os
from pathlib import Path

from msfnet_runtime.engine import Engine
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.onnx_metadata import existing_file

ENGINE_SUFFIXES = (".engine", ".plan", ".trt")


def open_engine(path: str | os.PathLike[str], *, provider: str = "cpu", threads: int = 0) -> Engine:
    """Open an ONNX file (ONNX Runtime) or an engine (TensorRT, either flavour).

    Args:
        path: ``.onnx``, or ``.engine``, ``.plan`` or ``.trt`` with its manifest.
        provider: ONNX Runtime's provider: ``cpu``, ``cuda`` or ``tensorrt``.
        threads: ONNX Runtime's CPU threads; 0 leaves the choice to it.

    Raises:
        MsfnetError: missing or unreadable file, unknown kind, or a library or GPU it needs
            is absent.
    """
    file = existing_file(path, "model")
    if file.suffix == ".onnx":
        from msfnet_runtime.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(file, provider=provider, threads=threads)
    if file.suffix in ENGINE_SUFFIXES:
        from msfnet_runtime.engines.tensorrt import TensorRTEngine

        return TensorRTEngine(file)
    raise MsfnetError(
        f"{Path(path)} is neither an ONNX file nor an engine; give a .onnx or .engine file"
    )
