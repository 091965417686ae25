"""ONNX files: loaded and checked, and written whole with their spec.

The weights of a large model lie in a file beside it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from mmap import ACCESS_READ, mmap
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from msfnet_calibration.blocks import find_blocks
from msfnet_calibration.graph import bare_proto, hash_weights, infer_shapes, weight_bytes
from msfnet_runtime import ModelSpec, MsfnetError
from msfnet_runtime.artifacts import refuse_cpu_layout
from msfnet_runtime.files import (
    atomic_path,
    check_writable,
    existing_file,
    temporary_folder,
)
from msfnet_runtime.libraries import text_path
from msfnet_runtime.onnx_metadata import read_onnx_spec
from msfnet_runtime.spec import METADATA_KEY

EXTERNAL_BYTES = 1_900_000_000
"""Weights beyond it go into a separate file: an ONNX file ends at 2 GB."""

_SMALL_BYTES = 1024
"""Constants of at most this size stay in the file: shape inference reads some of them."""


def load_model(path: str | os.PathLike[str]) -> ir.Model:
    """Load and check an ONNX file made by msfnet.

    Ensures: the type and shape of every value are known.

    Raises:
        MsfnetError: the file is missing, is not a valid model, or has no spec.
    """
    file = existing_file(path, "model")
    read_onnx_spec(file)
    try:
        onnx.checker.check_model(_checkable(file))
        model = ir.load(file)
        ir.external_data.load_to_model(model)
    except (
        DecodeError,
        onnx.checker.ValidationError,
        ir.serde.SerdeError,
        ValueError,
        OSError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MsfnetError(f"{file} is not a valid ONNX model: {reason}; export it again") from None
    infer_shapes(model)
    return model


def _checkable(file: Path) -> str | bytes:
    """Return a path for onnx's checker, which takes names in UTF-8 only, or the file's content."""
    try:
        return text_path(file, "onnx")
    except MsfnetError:
        return file.read_bytes()


def load_fp32(path: str | os.PathLike[str], verb: str) -> tuple[ir.Model, ModelSpec]:
    """Load a model that can be converted to another precision, with its spec.

    Args:
        path: the ONNX file.
        verb: what is done with it, for the error message.

    Raises:
        MsfnetError: as :func:`load_model`, or the model is not FP32 or was exported for CPUs.
    """
    return load_model(path), check_fp32(path, verb)


def check_fp32(path: str | os.PathLike[str], verb: str) -> ModelSpec:
    """Return the spec of a model that can be converted, as :func:`load_fp32`, without loading it.

    Raises:
        MsfnetError: the file has no spec, or the model is not FP32 or was exported for CPUs.
    """
    spec = read_onnx_spec(path)
    refuse_cpu_layout(spec, path)
    if spec.precision != "fp32":
        raise MsfnetError(f"{path} is {spec.precision}; {verb} the fp32 model it was made from")
    return spec


def save_model(
    model: ir.Model, path: str | os.PathLike[str], spec: ModelSpec, *, beside: bool = False
) -> None:
    """Write a model with :func:`write_model`, whole or not at all."""
    with atomic_model(path) as partial:
        write_model(model, partial, spec, beside=beside)


def write_model(model: ir.Model, path: Path, spec: ModelSpec, *, beside: bool = False) -> None:
    """Write a model with its spec, every value's shape and the table of its blocks.

    Requires: ``path`` comes from :func:`atomic_model`. Ensures: the model itself is only typed.
    Weights lie beside the file where that is asked for, where the spec says so of the model it
    comes from, and from 1.9 GB on; the name of their file contains a hash of their content.

    Raises:
        onnx.checker.ValidationError: the graph is not a valid one.
        MsfnetError: types or shapes do not fit.
    """
    onnx.checker.check_model(bare_proto(model)[0])
    infer_shapes(model)
    beside = beside or bool(spec.weights_file) or weight_bytes(model) > EXTERNAL_BYTES
    weights = f"{path.stem}.{hash_weights(model)[:12]}.data" if beside else ""
    spec = replace(spec, weights_file=weights, blocks=find_blocks(model, spec))
    model.metadata_props.clear()
    model.metadata_props[METADATA_KEY] = spec.to_json()
    _write(model, path, weights)


def write_scratch(model: ir.Model, path: Path) -> None:
    """Write a model for one session, as it is; large weights lie beside it."""
    _write(model, path, f"{path.stem}.data" if weight_bytes(model) > EXTERNAL_BYTES else "")


def _write(model: ir.Model, path: Path, weights: str) -> None:
    clone = model.clone()
    if weights:
        ir.external_data.unload_from_model(
            clone, path.parent, weights, size_threshold_bytes=_SMALL_BYTES
        )
    for constant in clone.graph.initializers.values():
        constant.shape = constant.type = None  # its tensor has both
    ir.save(clone, path)


@contextmanager
def atomic_model(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path of the same name to write a model to; move it to ``path`` on success.

    The weights that the model's spec names move first, so that ``path`` never refers to others
    than its own. Those of the model it replaces are removed last, if they bear a name that
    :func:`write_model` gave them and no other model beside refers to them.

    Raises:
        MsfnetError: the folder cannot be written, or the disk is full.
    """
    target = onnx_path(path)
    check_writable(target)
    before = _weights_of(target) if target.exists() else set()
    with temporary_folder(target) as folder, atomic_path(target) as final:
        partial = folder / target.name
        yield partial
        after = _weights_of(partial)
        for name in after:
            (folder / name).replace(target.with_name(name))
        partial.replace(final)
    for name in before - after:
        if _is_ours(name, target) and not _is_used(name, target):
            target.with_name(name).unlink(missing_ok=True)


def _weights_of(path: Path) -> set[str]:
    """Return the name of the file with a model's weights; nothing where there is none."""
    try:
        name = read_onnx_spec(path).weights_file
    except MsfnetError:
        return set()
    return {name} if name else set()


def _is_ours(name: str, model: Path) -> bool:
    """Return whether a file of weights is named as this program names those of a model."""
    return bool(re.fullmatch(re.escape(model.stem) + r"\.[0-9a-f]{12}\.data", name))


def _is_used(name: str, model: Path) -> bool:
    """Return whether another ONNX file of the folder, a backup of one included, holds a name."""
    wanted = name.encode()
    for other in model.parent.iterdir():
        if ".onnx" not in other.name or other == model or not other.is_file():
            continue
        try:
            with other.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
                if content.find(wanted) >= 0:
                    return True
        except ValueError:  # it is empty
            continue
        except OSError:  # nobody knows what it refers to
            return True
    return False


def onnx_path(path: str | os.PathLike[str]) -> Path:
    """Return a path to write an ONNX file to.

    Raises:
        MsfnetError: it does not end in ``.onnx``, or is not UTF-8.
    """
    target = Path(text_path(path, "ONNX Runtime"))
    if target.suffix != ".onnx":
        raise MsfnetError(f"{target} does not end in .onnx; name the file model.onnx or the like")
    return target
