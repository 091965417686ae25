"""Reads the spec out of an ONNX file without the onnx package, which devices lack.

An ONNX file is one protobuf message (``onnx.proto``, message ``ModelProto``): a sequence of
fields, each a key ``number << 3 | wire type`` and a value. ``metadata_props`` (field 14) holds the
spec. Of the graph only operators, names and types are read, never the weights: they decide the
precision, since other programs convert a file and leave its spec as it was.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import existing_file, regular_size
from msfnet_runtime.spec import METADATA_KEY, ModelSpec, Precision
from msfnet_runtime.typed import check_name

_log = logging.getLogger(__name__)

_MOST_NODES = 500_000
"""Nodes and weights of an ONNX file's graph."""

_LONGEST_NAME = 10_000
"""Bytes of one name in a graph."""

_PRECISIONS: Mapping[int, Precision] = {
    **{1: "fp32", 2: "int8", 3: "int8", 10: "fp16", 11: "fp64", 16: "bf16"},
    **dict.fromkeys((17, 18, 19, 20), "fp8"),
    **dict.fromkeys((21, 22), "int4"),
}
"""By the number of an element type in ``onnx.proto``."""

_LOWEST_FIRST: tuple[Precision, ...] = ("int4", "int8", "fp8", "fp16", "bf16", "fp32", "fp64")

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

_PASSED_ON = frozenset({"Cast", "DequantizeLinear", "Identity", "Reshape", "Transpose"})
"""Operators whose output is their input's weights in another form."""

_LARGEST_METADATA = 64 << 20
"""Bytes of all keys and values of an ONNX file's metadata."""

_MOST_FIELDS = 100_000
"""Fields of an ONNX file outside its graph, mostly metadata and functions."""

_GRAPH_FIELD = 7
_METADATA_FIELD = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass
class _Node:
    """What decides the precision of a node."""

    operator: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


def read_onnx_spec(path: str | os.PathLike[str]) -> ModelSpec:
    """Return the spec embedded in an ONNX file.

    The precision and the file of weights are those of the graph. Where the file is labelled with
    another precision, a warning is logged, and what it records about its precision is left out.

    Raises:
        MsfnetError: the file is missing, is not an ONNX file, is cut short or has no spec, or its
            weights are not in the file itself or in one file beside it.
    """
    file = existing_file(path, "ONNX file")
    metadata = read_onnx_metadata(file)
    if METADATA_KEY not in metadata:
        raise MsfnetError(
            f"{file} has no msfnet spec; create it with `msfnet export CHECKPOINT {file.name}`"
        )
    spec = ModelSpec.from_json(metadata[METADATA_KEY], f"the spec of {file}")
    graph = read_graph(file)
    if len(graph.weights_files) > 1:
        raise MsfnetError(
            f"{file} keeps its weights in {len(graph.weights_files)} files; save them in one"
        )
    spec = replace(spec, weights_file="".join(graph.weights_files))
    if graph.precision in (None, spec.precision):
        return spec
    _report_label(file, spec.precision, graph.precision)
    return replace(
        spec,
        precision=graph.precision,
        blocks=(),
        calibration=None,
        change=None,
        islands=(),
        search=None,
    )


@cache
def _report_label(file: Path, label: Precision, found: Precision) -> None:
    """Say once of each file that its label does not hold."""
    _log.warning(
        "%s is labelled %s, but its weights are %s, which is what counts; what the file records "
        "about its precision is ignored",
        file,
        label,
        found,
    )


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


@dataclass(frozen=True)
class GraphFacts:
    """What a graph says of its weights."""

    precision: Precision | None
    """The lowest of convolutions and matrix products. Q/DQ pairs and quantised operators count by
    the type that they quantise to. None: there are neither weights nor pairs."""
    weights_files: tuple[str, ...]
    """Names of the files beside it that hold weights."""


def read_graph(path: Path) -> GraphFacts:
    """Read what an ONNX file's graph says of its weights, without reading them.

    Raises:
        MsfnetError: the file is not an ONNX file or is cut short, or weights lie in another folder.
    """
    state = path.stat()
    return _read_graph(path, (state.st_ino, state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=64)
def _read_graph(path: Path, state: tuple[int, ...]) -> GraphFacts:
    """Read a file in one state: an opened model asks for it several times."""
    graph = _Graph()
    try:
        with path.open("rb") as file:
            for number, start, length in _fields(file, regular_size(path)):
                if number == _GRAPH_FIELD:
                    file.seek(start)
                    graph.read(file, start + length)
    except (ValueError, EOFError):
        raise MsfnetError(
            f"{path} is not an ONNX file or is cut short; copy it or export it again"
        ) from None
    found = {kind for node in graph.nodes for kind in _precisions(node, graph.types)}
    for name in graph.files:
        check_name(f"{path}: the location of weights", name)
    lowest = next((kind for kind in _LOWEST_FIRST if kind in found), None)
    return GraphFacts(lowest, tuple(graph.files))


class _Graph:
    """A graph as it is read: the types of its constants, its nodes, and files of weights."""

    def __init__(self) -> None:
        self.types: dict[str, int] = {}
        self.nodes: list[_Node] = []
        self.files: dict[str, None] = {}

    def read(self, file: BinaryIO, end: int) -> None:
        """Read ``GraphProto``: nodes are field 1, initialisers field 5."""
        for count, (number, start, length) in enumerate(_fields(file, end)):
            if count > _MOST_NODES:
                raise ValueError("too many nodes")
            file.seek(start)
            if number == 1:
                self._read_node(file, start + length)
            elif number == 5:
                name, kind = self._read_tensor(file, start + length)
                self.types[name] = kind

    def _read_node(self, file: BinaryIO, end: int) -> None:
        """Read ``NodeProto``: inputs are field 1, outputs 2, the operator 4, attributes 5."""
        node, constant = _Node(), 0
        for number, start, length in _fields(file, end):
            file.seek(start)
            if number in (1, 2):
                (node.inputs if number == 1 else node.outputs).append(_name(file, length))
            elif number == 4:
                node.operator = _name(file, length)
            elif number == 5:
                for inner, place, size in _fields(file, start + length):
                    if inner == 5:  # AttributeProto: the tensor is field 5
                        file.seek(place)
                        constant = self._read_tensor(file, place + size)[1]
        self.nodes.append(node)
        if node.operator == "Constant" and constant:
            self.types.update(dict.fromkeys(node.outputs[:1], constant))

    def _read_tensor(self, file: BinaryIO, end: int) -> tuple[str, int]:
        """Read ``TensorProto``: the type is field 2, the name 8, a file of its numbers 13."""
        name, kind = "", 0
        for number, start, length in _fields(file, end):
            file.seek(start)
            if number == 2:
                kind = _varint(file)
            elif number == 8:
                name = _name(file, length)
            elif number == 13:
                key, value = _string_pair(file.read(min(length, _LONGEST_NAME)))
                if key == "location":
                    self.files[value] = None
        return name, kind


def _name(file: BinaryIO, length: int) -> str:
    if length > _LONGEST_NAME:
        raise ValueError("too long a name")
    return file.read(length).decode("utf-8", "replace")


def _precisions(node: _Node, types: dict[str, int]) -> Iterator[Precision]:
    """Yield the precisions that a node shows, and let it pass its weight's type on."""
    kinds = [types.get(name, 0) for name in node.inputs]
    if node.operator in _PRODUCTS:
        yield from (_PRECISIONS[kind] for kind in kinds if kind in _PRECISIONS)
    elif node.operator in ("QuantizeLinear", "DequantizeLinear"):
        yield _PRECISIONS.get(kinds[2] if len(kinds) > 2 else 0, "int8")
    elif node.operator.startswith("QLinear") or node.operator.endswith("Integer"):
        yield "int8"
    if node.operator in _PASSED_ON and kinds and kinds[0]:
        types.update(dict.fromkeys(node.outputs[:1], kinds[0]))


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
