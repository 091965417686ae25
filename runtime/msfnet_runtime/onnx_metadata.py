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
from msfnet_runtime.files import existing_file, regular_size
from msfnet_runtime.spec import METADATA_KEY, ModelSpec

_LARGEST_METADATA = 64 << 20
"""Bytes of all keys and values of an ONNX file's metadata."""

_MOST_FIELDS = 100_000
"""Fields of an ONNX file outside its graph, mostly metadata and functions."""

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
        MsfnetError: as :func:`read_onnx_spec` and :meth:`ModelSpec.check_runnable`.
    """
    spec = read_onnx_spec(path)
    spec.check_runnable()
    return spec


def read_onnx_metadata(path: Path) -> dict[str, str]:
    """Return an ONNX file's ``metadata_props``.

    Raises:
        MsfnetError: the file is not an ONNX file or is cut short.
    """
    entries: dict[str, str] = {}
    has_graph = False
    try:
        with path.open("rb") as file:
            end, left = regular_size(path), _LARGEST_METADATA
            for count, (number, position, length) in enumerate(_fields(file, end)):
                has_graph |= number == _GRAPH_FIELD
                if count > _MOST_FIELDS:
                    raise ValueError("too many fields")
                if number == _METADATA_FIELD:
                    left -= length
                    if left < 0:
                        raise ValueError("too much metadata")
                    file.seek(position)
                    key, value = _string_pair(file.read(length))
                    entries[key] = value
    except (ValueError, EOFError):
        raise MsfnetError(
            f"{path} is not an ONNX file or is cut short; copy it or export it again"
        ) from None
    except OSError as error:
        raise MsfnetError(f"cannot read {path}: {error.strerror}; check the path") from None
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
