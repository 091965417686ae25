"""Reads the spec out of an ONNX file without the onnx package, which devices lack.

An ONNX file is one protobuf message (``onnx.proto``, message ``ModelProto``): a sequence of
fields, each a key ``number << 3 | wire type`` and a value. Only ``metadata_props`` (field 14) is
looked into; the graph, which holds the weights, is skipped without being read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.spec import METADATA_KEY, ModelSpec

_GRAPH_FIELD = 7
_METADATA_FIELD = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_onnx_spec(path: str | os.PathLike[str]) -> ModelSpec:
    """Return the spec embedded in an ONNX file.

    Raises:
        MsfnetError: the file is missing, is not an ONNX file, is cut short or has no spec.
    """
    file = existing_file(path, "ONNX file")
    metadata = read_onnx_metadata(file)
    if METADATA_KEY not in metadata:
        raise MsfnetError(
            f"{file} has no msfnet spec; create it with `msfnet export CHECKPOINT {file.name}`"
        )
    return ModelSpec.from_json(metadata[METADATA_KEY])


def read_single_spec(path: str | os.PathLike[str]) -> ModelSpec:
    """Read the spec of a file that an engine is to run.

    Raises:
        MsfnetError: as :func:`read_onnx_spec`, or it has several inputs or outputs.
    """
    spec = read_onnx_spec(path)
    if len(spec.inputs) != 1 or len(spec.outputs) != 1:
        raise MsfnetError("a depth model has one input and one output; export the model again")
    return spec


def existing_file(path: str | os.PathLike[str], what: str) -> Path:
    """Return ``path`` when it is a file.

    Raises:
        MsfnetError: it is missing, a folder or not a valid path.
    """
    file = Path(path)
    try:
        folder, exists = file.is_dir(), file.exists()
    except OSError as error:
        raise MsfnetError(f"cannot read {file}: {error.strerror}; check the path") from None
    if folder:
        raise MsfnetError(f"{file} is a folder; name the {what} itself")
    if not exists:
        raise MsfnetError(f"{file} does not exist; check the path of the {what}")
    return file


def read_onnx_metadata(path: Path) -> dict[str, str]:
    """Return an ONNX file's ``metadata_props``.

    Raises:
        MsfnetError: the file is not an ONNX file or is cut short.
    """
    entries: dict[str, str] = {}
    has_graph = False
    try:
        with path.open("rb") as file:
            end = path.stat().st_size
            for number, position, length in _fields(file, end):
                has_graph |= number == _GRAPH_FIELD
                if number == _METADATA_FIELD:
                    file.seek(position)
                    key, value = _string_pair(file.read(length))
                    entries[key] = value
    except (ValueError, EOFError):
        raise MsfnetError(
            f"{path} is not an ONNX file or is cut short; copy it or export it again"
        ) from None
    if not has_graph:
        raise MsfnetError(f"{path} is not an ONNX file; use a file from `msfnet export`")
    return entries


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, position of the value, its length) of one message."""
    while file.tell() < end:
        key = _varint(file)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            start = file.tell()
            _varint(file)
            length = file.tell() - start
        elif wire == _BYTES:
            length = _varint(file)
            start = file.tell()
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
            start = file.tell()
        else:
            raise ValueError(f"wire type {wire}")
        if number == 0 or start + length > end:
            raise ValueError("cut short")
        yield number, start, length
        file.seek(start + length)


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
        if shift > 63:
            raise ValueError("no varint")


def _string_pair(message: bytes) -> tuple[str, str]:
    """Read a ``StringStringEntryProto``: key is field 1, value is field 2."""
    parts = {1: "", 2: ""}
    for number, start, length in _fields(BytesIO(message), len(message)):
        parts[number] = message[start : start + length].decode()
    return parts[1], parts[2]
