"""Finds the blocks of a graph: multiplications, parameters, precision, and who feeds whom.

Exports name nodes after the modules they come from, so a node's name tells its block.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import onnx

from msfnet_calibration.shapes import Shape, elements, infer_values
from msfnet_runtime import ModelSpec
from msfnet_runtime.blocks import NOTE, Block

_PARENTS = frozenset({"usf", "decoder"})
"""Modules whose parts are blocks; other modules are blocks themselves."""

_STAGE = "encoder.stage"

_BORDER = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear"})
"""Operators that stand where a block's precision differs from its neighbours'."""


def with_blocks(spec: ModelSpec, model: onnx.ModelProto) -> ModelSpec:
    """Return the spec with the model's blocks noted, where its nodes have names to tell them."""
    blocks = [asdict(block) for block in find_blocks(model, spec)]
    if len(blocks) < 2:
        return spec
    return spec.with_note(NOTE, json.dumps(blocks, separators=(",", ":")))


def find_blocks(model: onnx.ModelProto, spec: ModelSpec) -> tuple[Block, ...]:
    """Return a model's blocks in the order of their first node.

    Raises:
        MsfnetError: types or shapes of the model do not fit.
    """
    return _Reader(model, spec).blocks()


def find_homes(model: onnx.ModelProto) -> dict[str, str]:
    """Return for every node, by its name, the block that it belongs to."""
    stages = _stages_of_encoder({name: node for node in model.graph.node for name in node.output})
    return {node.name: _home(node, stages) for node in model.graph.node}


class _Reader:
    """A graph with all that is looked up while its blocks are described."""

    def __init__(self, model: onnx.ModelProto, spec: ModelSpec) -> None:
        height, width = spec.size
        graph = model.graph
        self._nodes = list(graph.node)
        self._values = infer_values(model, {"batch": 1, "height": height, "width": width})
        self._shapes = infer_values(model)
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        stages = _stages_of_encoder(self._makers)
        self._homes = {name: _home(node, stages) for name, node in self._makers.items()}
        self._leaving = {output.name for output in graph.output} | {
            name
            for node in graph.node
            for name in node.input
            if name in self._homes and self._homes[name] != self._homes[node.output[0]]
        }

    def blocks(self) -> tuple[Block, ...]:
        """Describe every block."""
        groups: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self._nodes:
            groups[self._homes[node.output[0]]].append(node)
        return tuple(self._describe(name, nodes) for name, nodes in groups.items())

    def _describe(self, name: str, nodes: Sequence[onnx.NodeProto]) -> Block:
        feeders = [self._homes[n] for node in nodes for n in node.input if n in self._homes]
        made = [n for node in nodes for n in node.output]
        given = [n for n in made if n in self._leaving] or made
        # Casts at its border tell the type of its neighbours.
        worked = [node.output[0] for node in nodes if node.op_type not in _BORDER] or made
        used = {n for node in nodes for n in node.input if n in self._constants}
        work: Counter[str] = Counter()
        for node in nodes:
            if macs := self._macs(node):
                work[self._precision(node)] += macs
        return Block(
            name=name,
            takes=tuple(dict.fromkeys(feeder for feeder in feeders if feeder != name)),
            shape=self._shapes[given[-1]].shape,
            macs=sum(work.values()),
            parameters=sum(_count(self._constants[n]) for n in used),
            precision="+".join(p for p, _ in work.most_common()) or self._type(worked[-1]),
            operators=dict(Counter(node.op_type for node in nodes)),
        )

    def _macs(self, node: onnx.NodeProto) -> int:
        """Return the multiplications of a convolution or matrix product; 0 for others."""
        if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            return 0
        first, second = (self._shape(name) for name in node.input[:2])
        result = self._shape(node.output[0])
        if node.op_type == "Conv":
            return elements(result) * elements(second[1:])
        if node.op_type == "ConvTranspose":
            return elements(first) * elements(second[1:])
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return elements(result) * int(first[-2 if transposed else -1])

    def _shape(self, name: str) -> Shape:
        if name in self._constants:
            return tuple(self._constants[name].dims)
        return self._values[name].shape

    def _precision(self, node: onnx.NodeProto) -> str:
        maker = self._makers.get(node.input[0])
        if maker is not None and maker.op_type == "DequantizeLinear":
            return "int8"
        return self._type(node.output[0])

    def _type(self, name: str) -> str:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self._values[name].element_type))
        return f"fp{8 * dtype.itemsize}" if dtype.kind == "f" else dtype.name


def _home(node: onnx.NodeProto, stages: Mapping[str, str]) -> str:
    """Return a node's block: its name's first words; in the encoder, the stage it feeds."""
    words = (node.name or "graph").replace("/", ".").split(".")
    if words[0] == "encoder":
        return next((stages[name] for name in node.output if name in stages), "encoder")
    return ".".join(words[:2]) if words[0] in _PARENTS else words[0]


def _stages_of_encoder(makers: Mapping[str, onnx.NodeProto]) -> dict[str, str]:
    """Return for every value that an encoder stage needs the first such stage."""
    stages: dict[str, str] = {}
    for number in range(1, 6):
        waiting = [f"{_STAGE}{number}"]
        while waiting:
            name = waiting.pop()
            if name in makers and name not in stages:
                stages[name] = f"{_STAGE}{number}"
                waiting.extend(makers[name].input)
    return stages


def _count(tensor: onnx.TensorProto) -> int:
    types = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8)
    return elements(tuple(tensor.dims)) if tensor.data_type in types else 0
