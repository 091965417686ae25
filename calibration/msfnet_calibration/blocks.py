"""Finds the blocks of a graph: GMAC, parameters, precision, and which block feeds which.

Exports name nodes after the modules they come from, so a node's name tells its block.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from msfnet_calibration.graph import FLOATS, dimensions, shape_at, size_at
from msfnet_runtime import Block, ModelSpec

_PARENTS = frozenset({"usf", "decoder"})
"""Modules whose parts are blocks; other modules are blocks themselves."""

_STAGE = "encoder.stage"

_BORDER = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear"})
"""Operators that stand where a block's precision differs from its neighbours'."""

_WEIGHTS = (*FLOATS, ir.DataType.INT8)


def find_blocks(model: ir.Model, spec: ModelSpec) -> tuple[Block, ...]:
    """Return a model's blocks in the order of their first node; none if it has only one.

    Requires: the type and shape of every value are known.
    """
    homes = find_homes(model)
    groups: dict[str, list[ir.Node]] = defaultdict(list)
    for node in model.graph:
        groups[homes[node]].append(node)
    if len(groups) < 2:
        return ()
    return tuple(_describe(name, nodes, homes, spec.size) for name, nodes in groups.items())


def find_homes(model: ir.Model) -> dict[ir.Node, str]:
    """Return the block that each node belongs to."""
    stages = _encoder_stages(model)
    return {node: _home(node, stages) for node in model.graph}


def _describe(
    name: str, nodes: Sequence[ir.Node], homes: Mapping[ir.Node, str], size: tuple[int, int]
) -> Block:
    inputs = [value for node in nodes for value in node.inputs if value is not None]
    outputs = [value for node in nodes for value in node.outputs]
    feeders = [homes[maker] for value in inputs if (maker := value.producer()) is not None]
    leaving = [
        value
        for value in outputs
        if value.is_graph_output() or any(homes[taker] != name for taker in value.consumers())
    ]
    # Casts at the border have the type of the neighbouring block.
    inner = [node.outputs[0] for node in nodes if node.op_type not in _BORDER] or outputs
    weights = {value for value in inputs if value.is_initializer() and value.dtype in _WEIGHTS}
    work: Counter[str] = Counter()
    for node in nodes:
        if macs := _macs(node, size):
            work[_precision(node)] += macs
    return Block(
        name=name,
        inputs=tuple(dict.fromkeys(feeder for feeder in feeders if feeder != name)),
        shape=dimensions((leaving or outputs)[-1]),
        macs=sum(work.values()),
        parameters=sum(size_at(value, size) for value in weights),
        precision="+".join(p for p, _ in work.most_common()) or _type(inner[-1]),
        operators=dict(Counter(node.op_type for node in nodes)),
    )


def _macs(node: ir.Node, size: tuple[int, int]) -> int:
    """Return the multiply-accumulates of a convolution or matrix product; 0 for others."""
    if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return 0
    first, second, result = (
        shape_at(value, size) for value in (*node.inputs[:2], node.outputs[0]) if value is not None
    )
    if node.op_type == "Conv":
        return math.prod(result) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    return math.prod(result) * first[-2 if node.attributes.get_int("transA", 0) else -1]


def _precision(node: ir.Node) -> str:
    maker = node.inputs[0].producer() if node.inputs[0] is not None else None
    if maker is not None and maker.op_type == "DequantizeLinear":
        return "int8"
    return _type(node.outputs[0])


def _type(value: ir.Value) -> str:
    assert value.dtype is not None
    dtype = value.dtype.numpy()
    return f"fp{8 * dtype.itemsize}" if dtype.kind == "f" else dtype.name


def _home(node: ir.Node, stages: Mapping[ir.Node, str]) -> str:
    """Return a node's block: its name's first words; in the encoder, the stage it feeds."""
    words = (node.name or "graph").replace("/", ".").split(".")
    if words[0] == "encoder":
        return stages.get(node, "encoder")
    return ".".join(words[:2]) if words[0] in _PARENTS else words[0]


def _encoder_stages(model: ir.Model) -> dict[ir.Node, str]:
    """Return for every node that an encoder stage needs the first such stage."""
    ends = {value.name: node for node in model.graph for value in node.outputs}
    stages: dict[ir.Node, str] = {}
    for number in range(1, 6):
        name = f"{_STAGE}{number}"
        waiting = [ends[name]] if name in ends else []
        while waiting:
            node = waiting.pop()
            if node not in stages:
                stages[node] = name
                waiting.extend(node.predecessors())
    return stages
