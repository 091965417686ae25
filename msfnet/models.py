"""Opens any model a user can name: a checkpoint, an ONNX file or an engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msfnet_runtime import Engine, ModelSpec

CHECKPOINT_SUFFIXES = (".ckpt", ".pt", ".pth")


def open_model(
    path: str | os.PathLike[str], *, provider: str = "cpu", threads: int = 0, mode: str = "eager"
) -> Engine:
    """Open a model as an engine, so that every artefact is scored and timed by the same code.

    Args:
        path: checkpoint (run by PyTorch), ``.onnx`` (ONNX Runtime) or ``.engine`` (TensorRT).
        provider: as :func:`~msfnet_runtime.open_engine` takes it.
        threads: CPU threads of ONNX Runtime, OpenVINO and PyTorch, the latter's for the whole
            process; 0 leaves the choice to them.
        mode: how PyTorch runs a checkpoint, of ``msfnet_train.torch_engine.MODES``.

    Raises:
        MsfnetError: missing or unreadable file, or a library it needs is absent.
    """
    from msfnet_runtime import MsfnetError, open_engine
    from msfnet_runtime.engines import ENGINE_SUFFIXES
    from msfnet_runtime.engines.providers import Provider
    from msfnet_runtime.files import existing_file

    Provider.parse(provider)  # a wrong name is an error for every model
    file = existing_file(path, "model")
    if file.suffix in CHECKPOINT_SUFFIXES:
        from msfnet_train.torch_engine import TorchEngine

        return TorchEngine(file, mode=mode, threads=threads)
    if file.suffix not in (".onnx", *ENGINE_SUFFIXES):
        raise MsfnetError(f"{path} is not a model; name a .ckpt, .onnx or .engine file")
    return open_engine(file, provider=provider, threads=threads)


def read_spec(path: str | os.PathLike[str]) -> ModelSpec:
    """Return the spec of an ONNX file or an engine without loading the model.

    Raises:
        MsfnetError: missing or unreadable file, or one without a spec.
    """
    from msfnet_runtime import EngineArtifact
    from msfnet_runtime.engines import ENGINE_SUFFIXES
    from msfnet_runtime.onnx_metadata import read_onnx_spec

    if Path(path).suffix in ENGINE_SUFFIXES:
        return EngineArtifact.read(path).spec
    return read_onnx_spec(path)
