"""ONNX graphs in memory as ``onnx_ir`` models: types and shapes, constants, counts.

Export and calibration both edit graphs, so what they share lies in the lower of the two rooms.
Only this file turns a graph into protobuf, for the checker and for shape inference. A pass takes a
model, edits it in place, and returns ``onnx_ir``'s own ``PassResult``; a function that must leave
its model alone works on a clone. A clone shares the tensors of its constants and the type objects
of its values: give a value another type, never edit the one it has.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import PassResult
from onnx_ir.passes.common import RemoveUnusedNodesPass

from msfnet_runtime import MsfnetError

SYMBOLS: Mapping[str, tuple[int, int]] = {"batch": (1, 3), "height": (64, 160), "width": (96, 128)}
"""Symbolic dimensions an export knows, with two values each that shapes are worked out at."""

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
"""Element types that a conversion to FP16 deals with."""

_LARGEST_VALUE = 2**30
"""Numbers in one value, 4 GB in FP32: more than the largest network needs for 64 megapixels."""

Dimensions = tuple[int | str, ...]
"""A shape whose symbolic dimensions are multiples or fractions of a symbol: ``height/4``."""

_Inferred = dict[str, tuple[ir.DataType, tuple[int, ...]]]


def weight_bytes(model: ir.Model) -> int:
    """Return the size of a model's constants, bytes."""
    return sum(tensor.nbytes for tensor in _tensors(model))


def hash_weights(model: ir.Model) -> str:
    """Return the SHA-256 of a model's constants, in hexadecimal."""
    digest = hashlib.sha256()
    for tensor in _tensors(model):
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    values = model.graph.initializers.values()
    return [value.const_value for value in values if value.const_value is not None]


def count_operators(model: ir.Model) -> dict[str, int]:
    """Return how often each operator occurs, the most frequent first."""
    return dict(Counter(node.op_type for node in model.graph).most_common())


def count_weights(model: ir.Model) -> dict[str, int]:
    """Return how many numbers the constants of each type hold, the most frequent type first.

    Indices and sizes, which are wider integers, are left out.
    """
    sizes: Counter[str] = Counter()
    for tensor in _tensors(model):
        if tensor.dtype not in (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL):
            sizes[tensor.dtype.numpy().name] += tensor.size
    return dict(sizes.most_common())


def count_parameters(model: ir.Model) -> int:
    """Return how many numbers the floating-point constants hold."""
    return sum(tensor.size for tensor in _tensors(model) if tensor.dtype in FLOATS)


def bare_proto(model: ir.Model) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """Return a model as protobuf with the weights of its convolutions as inputs, and those weights.

    Their shape is all that the checker, shape inference and simplification need of them, and half
    a gigabyte takes long to serialise. Shapes of values are left out, too: they are inferred.
    """
    clone = model.clone()
    weights = {}
    for name, value in list(clone.graph.initializers.items()):
        uses = {(use.node.op_type, use.idx) for use in value.uses()}
        if uses == {("Conv", 1)} and value.const_value is not None:
            weights[name] = value.const_value
            value.const_value = None
            del clone.graph.initializers[name]
            clone.graph.inputs.append(value)
    proto = ir.to_proto(clone)
    del proto.graph.value_info[:]
    return proto, weights


def infer_shapes(model: ir.Model) -> PassResult:
    """Write type and shape of every value into a model.

    Requires: types and shapes of the inputs; no others are believed. Ensures: every dimension is
    a number, or a multiple or fraction of a symbol such as ``height/4``.

    Raises:
        MsfnetError: types that do not fit, or a value whose shape cannot be known.
    """
    bare, _ = bare_proto(model)
    dimensions = [d for value in model.graph.inputs for d in value.shape or ()]
    symbols = sorted({str(d) for d in dimensions if not isinstance(d, int)})
    for name in symbols:
        if name not in SYMBOLS:
            known = ", ".join(SYMBOLS)
            raise MsfnetError(f"the graph leaves its {name!r} open; only {known} can be")
    first = {name: SYMBOLS[name][0] for name in symbols}
    base = _infer(bare, first)
    shapes: dict[str, list[int | str]] = {name: list(shape) for name, (_, shape) in base.items()}
    for symbol in symbols:
        low, high = SYMBOLS[symbol]
        for name, (_, shape) in _infer(bare, {**first, symbol: high}).items():
            for axis, (before, after) in enumerate(zip(base[name][1], shape, strict=True)):
                if before != after:
                    shapes[name][axis] = _follow(name, symbol, (low, before), (high, after))
    for name, value in ir.convenience.create_value_mapping(model.graph).items():
        if not value.is_initializer():
            if name not in base:
                raise MsfnetError(
                    f"the graph has {name!r} inside an If or a Loop, which msfnet does not write; "
                    "export the model again"
                )
            value.type, value.shape = ir.TensorType(base[name][0]), ir.Shape(shapes[name])
    return PassResult(model, modified=True)


def _infer(bare: onnx.ModelProto, sizes: Mapping[str, int]) -> _Inferred:
    """Infer with numbers in the place of symbols."""
    model = onnx.ModelProto()
    model.CopyFrom(bare)
    for value in model.graph.input:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_value = sizes[dimension.dim_param]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        graph = onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        ).graph
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise MsfnetError(f"the graph's types or shapes do not fit: {reason}") from None
    kinds = {i.name: i.type.tensor_type for i in (*graph.input, *graph.value_info, *graph.output)}
    made = [name for node in graph.node for name in node.output if name]
    for name in made:
        if name not in kinds or not all(d.HasField("dim_value") for d in kinds[name].shape.dim):
            raise MsfnetError(
                f"the shape of {name} cannot be known before the model runs; export at a fixed size"
            )
    found = {
        name: (ir.DataType(kind.elem_type), tuple(d.dim_value for d in kind.shape.dim))
        for name, kind in kinds.items()
    }
    for name, (_, shape) in found.items():
        if not all(side >= 0 for side in shape) or math.prod(shape) > _LARGEST_VALUE:
            sides = "x".join(map(str, shape))
            raise MsfnetError(f"{name} has the shape {sides}, which no image needs; check the file")
    return found


def _follow(name: str, symbol: str, first: tuple[int, int], second: tuple[int, int]) -> str:
    """Write a dimension as a multiple or a fraction of a symbol."""
    ratios = {Fraction(size, value) for value, size in (first, second)}
    if len(ratios) > 1:
        raise MsfnetError(f"{name} does not grow in step with {symbol}; export at a fixed size")
    ratio = ratios.pop()
    times = "" if ratio.numerator == 1 else f"{ratio.numerator}*"
    return f"{times}{symbol}" + ("" if ratio.denominator == 1 else f"/{ratio.denominator}")


def dimensions(value: ir.Value) -> Dimensions:
    """Return a value's shape; symbolic dimensions as text."""
    return tuple(d if isinstance(d, int) else str(d) for d in value.shape or ())


def shape_at(value: ir.Value, size: tuple[int, int]) -> tuple[int, ...]:
    """Return a value's shape for one image at a (height, width) of the network's input."""
    assert value.shape is not None
    height, width = size
    shape = value.shape.evaluate({"batch": 1, "height": height, "width": width})
    return tuple(int(side) for side in shape.numpy())


def size_at(value: ir.Value, size: tuple[int, int]) -> int:
    """Return how many numbers a value holds, as :func:`shape_at`."""
    return math.prod(shape_at(value, size))


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """Return the numbers of a value that is a constant; None for others."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    return np.asarray(value.const_value.numpy())


def add_constant(graph: ir.Graph, name: str, values: NDArray[Any]) -> ir.Value:
    """Add a constant to a graph and return it."""
    added = ir.val(name, const_value=ir.tensor(values, name=name))
    graph.register_initializer(added)
    return added


def make_node(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    result: tuple[str, ir.DataType],
    name: str,
    **attributes: int,
) -> ir.Node:
    """Return a node of one output that has the shape of the first input.

    Args:
        op_type: the operator.
        inputs: what it takes.
        result: name and element type of its output.
        name: its own name.
        attributes: whole numbers.
    """
    assert inputs[0] is not None
    output = ir.val(*result, shape=inputs[0].shape)
    return ir.node(op_type, inputs, attributes, outputs=[output], name=name)


def cast(value: ir.Value, wanted: ir.DataType, result: str, name: str) -> ir.Node:
    """Return a Cast of a value, not yet in a graph."""
    return make_node("Cast", [value], (result, wanted), name, to=wanted)


def splice(value: ir.Value, chain: Sequence[ir.Node]) -> None:
    """Put nodes between a value and all that took it before; the first of them takes it.

    Ensures: the last one's output takes the value's place, as an output of the graph, too.
    """
    graph, replacement = value.graph, chain[-1].outputs[0]
    assert isinstance(graph, ir.Graph)
    for use in value.uses():
        if use.node is not chain[0]:
            use.node.replace_input_with(use.idx, replacement)
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = replacement
    maker = value.producer()
    if maker is None:
        graph.insert_before(graph[0], chain)
    else:
        graph.insert_after(maker, chain)


def drop_unused(model: ir.Model) -> PassResult:
    """Remove nodes and constants that nothing takes."""
    return RemoveUnusedNodesPass()(model)


def as_dtype(values: NDArray[Any], wanted: ir.DataType) -> NDArray[Any]:
    """Return values in another float type; beyond FP16's range they saturate."""
    limits = np.finfo(np.float16)
    return np.asarray(np.clip(values, limits.min, limits.max), wanted.numpy())
