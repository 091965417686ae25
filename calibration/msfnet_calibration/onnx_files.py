"""ONNX files as models in memory: loaded with words for what is wrong, written whole."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper, helper

from msfnet_calibration.blocks import with_blocks
from msfnet_calibration.shapes import annotate, skeleton
from msfnet_runtime import ModelSpec, MsfnetError, OnnxArtifact
from msfnet_runtime.artifacts import EXTERNAL_DATA
from msfnet_runtime.files import check_writable, disk_full
from msfnet_runtime.onnx_metadata import existing_file, read_onnx_spec
from msfnet_runtime.spec import METADATA_KEY

EXTERNAL_BYTES = 1_900_000_000
"""Weights beyond it go into a file of their own: an ONNX file ends at 2 GB."""


def load_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Load and check an ONNX file made by msfnet.

    Raises:
        MsfnetError: missing, no ONNX file, not a valid model, or without a spec.
    """
    file = existing_file(path, "model")
    read_onnx_spec(file)
    try:
        model = onnx.load(file)
        onnx.checker.check_model(os.fspath(file))
    except (DecodeError, onnx.checker.ValidationError, ValueError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MsfnetError(f"{file} is not a valid ONNX model: {reason}; export it again") from None
    return model


def save_model(
    model: onnx.ModelProto,
    path: str | os.PathLike[str],
    spec: ModelSpec,
    *,
    beside: bool = False,
) -> OnnxArtifact:
    """Write a model with its spec, every value's shape and the list of its blocks.

    The file is whole or absent. Weights lie beside it, see :func:`atomic_model`, where that is
    asked for, where the spec says so of the model it comes from, and from 1.9 GB on.

    Raises:
        MsfnetError: types or shapes do not fit, or the file cannot be written.
    """
    target = onnx_path(path)
    onnx.checker.check_model(skeleton(model)[0])
    annotate(model)
    beside = beside or EXTERNAL_DATA in spec.notes or weight_bytes(model) > EXTERNAL_BYTES
    notes = {key: value for key, value in spec.notes.items() if key != EXTERNAL_DATA}
    noted = with_blocks(replace(spec, notes=notes), model)
    with atomic_model(target) as partial:
        if beside:
            _write_external(model, partial, noted)
        else:
            helper.set_model_props(model, {METADATA_KEY: noted.to_json()})
            onnx.save(model, partial)
    return OnnxArtifact.read(target)


def _write_external(model: onnx.ModelProto, path: Path, spec: ModelSpec) -> None:
    """Write a model and its weights; their file's name tells their content."""
    digest = hashlib.sha256()
    for tensor in model.graph.initializer:
        digest.update(tensor.raw_data)
    name = f"{path.stem}.{digest.hexdigest()[:12]}.data"
    helper.set_model_props(model, {METADATA_KEY: spec.with_note(EXTERNAL_DATA, name).to_json()})
    onnx.save(model, path, save_as_external_data=True, location=name)
    external_data_helper.load_external_data_for_model(model, os.fspath(path.parent))


def write_scratch(model: onnx.ModelProto, path: Path) -> None:
    """Write a model for one session, as it is; large weights beside it and out of the model."""
    large = weight_bytes(model) > EXTERNAL_BYTES
    onnx.save(model, path, save_as_external_data=large, location=f"{path.stem}.data")


@contextmanager
def atomic_model(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path of the same name to write a model to; move it to ``path`` on success.

    A model's external weights move first, under a name that tells their content, so that ``path``
    never refers to others than its own; those of the model it replaces are removed last.

    Raises:
        MsfnetError: the folder cannot be written, or the disk is full.
    """
    target = onnx_path(path)
    check_writable(target)
    before = _external_files(target) if target.exists() else set()
    with (
        disk_full(target),
        tempfile.TemporaryDirectory(prefix=f".{target.stem}.", dir=target.parent) as folder,
    ):
        partial = Path(folder) / target.name
        yield partial
        weights = {file for file in partial.parent.iterdir() if file != partial}
        for file in weights:
            file.replace(target.parent / file.name)
        partial.replace(target)
    for name in before - {file.name for file in weights}:
        (target.parent / name).unlink(missing_ok=True)


def _external_files(path: Path) -> set[str]:
    """Return the weight files a model that is to be replaced refers to; none where unreadable."""
    try:
        name = read_onnx_spec(path).notes.get(EXTERNAL_DATA)
    except MsfnetError:
        return set()
    return {Path(name).name} if name else set()


def weight_bytes(model: onnx.ModelProto) -> int:
    """Return the size of a model's constants, bytes."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


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
