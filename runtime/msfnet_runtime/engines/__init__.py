"""Opens a model file with an engine that can run it."""

from __future__ import annotations

import os
from pathlib import Path

from msfnet_runtime.engine import Engine
from msfnet_runtime.engines.providers import Provider
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import existing_file

ENGINE_SUFFIXES = (".engine", ".plan", ".trt")


def open_engine(path: str | os.PathLike[str], *, provider: str = "cpu", threads: int = 0) -> Engine:
    """Open an ONNX file (ONNX Runtime or OpenVINO) or a TensorRT engine of either flavour.

    Args:
        path: ``.onnx``, or ``.engine``, ``.plan`` or ``.trt`` with its manifest.
        provider: runs an ONNX file: ``cpu``, ``cuda`` or ``tensorrt`` (of ONNX Runtime), or
            ``openvino``; with options as in ``cuda:device_id=1``
            (:class:`~msfnet_runtime.engines.providers.Provider`).
        threads: CPU threads for an ONNX file; 0 lets the library choose.

    Raises:
        MsfnetError: the file is missing, unreadable or of an unknown kind, or a library or GPU
            it needs is absent.
    """
    file = existing_file(path, "model")
    chosen = Provider.parse(provider)
    if file.suffix == ".onnx" and chosen.name == "openvino":
        from msfnet_runtime.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(file, threads=threads)
    if file.suffix == ".onnx":
        from msfnet_runtime.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(file, provider=provider, threads=threads)
    if file.suffix in ENGINE_SUFFIXES:
        from msfnet_runtime.engines.tensorrt import TensorRTEngine

        return TensorRTEngine(file)
    raise MsfnetError(
        f"{Path(path)} is neither an ONNX file nor an engine; name a .onnx or .engine file"
    )
