"""ONNX files as models in memory: loaded with words for what is wrong, written whole."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import helper

from msfnet_runtime import ModelSpec, MsfnetError, OnnxArtifact
from msfnet_runtime.files import atomic_path
from msfnet_runtime.onnx_metadata import existing_file, read_onnx_spec
from msfnet_runtime.spec import METADATA_KEY


def load_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Load and check an ONNX file made by msfnet.

    Raises:
        MsfnetError: missing, no ONNX file, not a valid model, or without a spec.
    """
    file = existing_file(path, "model")
    read_onnx_spec(file)
    try:
        model = onnx.load(file)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, ValueError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MsfnetError(f"{file} is not a valid ONNX model: {reason}; export it again") from None
    return model


def save_model(
    model: onnx.ModelProto, path: str | os.PathLike[str], spec: ModelSpec
) -> OnnxArtifact:
    """Check a model and write it with its spec, whole or not at all.

    Raises:
        MsfnetError: the file cannot be written.
    """
    target = onnx_path(path)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    with atomic_path(target) as partial:
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, partial)
    return OnnxArtifact.read(target)


def onnx_path(path: str | os.PathLike[str]) -> Path:
    """Return a path to write an ONNX file to.

    Raises:
        MsfnetError: it does not end in ``.onnx``.
    """
    target = Path(path)
    if target.suffix != ".onnx":
        raise MsfnetError(f"{target} does not end in .onnx; name the file model.onnx or the like")
    return target


def count_operators(model: onnx.ModelProto) -> dict[str, int]:
    """Return how often each operator occurs, the most frequent first."""
    return dict(Counter(node.op_type for node in model.graph.node).most_common())


def count_parameters(model: onnx.ModelProto) -> int:
    """Return how many numbers the floating-point initialisers hold."""
    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return sum(math.prod(t.dims) for t in model.graph.initializer if t.data_type in floating)
