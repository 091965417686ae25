"""Types and shapes of every value of a model, without copying its weights.

Shape inference serialises the model, which is slow for half a gigabyte of weights and impossible
beyond two. The weights of convolutions are therefore left out of what it sees: their shape says
all it needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

import onnx
from onnx import helper

from msfnet_runtime import MsfnetError

Shape = tuple[int | str, ...]

SYMBOLS: Mapping[str, tuple[int, int]] = {"batch": (1, 3), "height": (64, 160), "width": (96, 128)}
"""Symbolic dimensions an export knows, with two values each that shapes are worked out at."""


class Value(NamedTuple):
    """Element type (``onnx.TensorProto``'s number) and shape of a value."""

    element_type: int
    shape: Shape


def skeleton(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, onnx.TensorProto]]:
    """Return the model with the weights of its convolutions as inputs, and those weights."""
    taken = {
        name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:2]
    }
    elsewhere = {
        name
        for node in model.graph.node
        for place, name in enumerate(node.input)
        if (node.op_type, place) != ("Conv", 1)
    }
    weights = {t.name: t for t in model.graph.initializer if t.name in taken - elsewhere}
    bare = onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions
    )
    bare.graph.name = model.graph.name or "model"
    bare.graph.node.extend(model.graph.node)
    bare.graph.output.extend(model.graph.output)
    bare.graph.initializer.extend(t for t in model.graph.initializer if t.name not in weights)
    bare.graph.input.extend(model.graph.input)
    bare.graph.input.extend(
        helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
        for name, tensor in weights.items()
    )
    return bare, weights


def infer_values(
    model: onnx.ModelProto, sizes: Mapping[str, int] | None = None
) -> dict[str, Value]:
    """Return type and shape of every value of a model.

    Args:
        model: with whatever shapes it carries; only those of its inputs are believed.
        sizes: numbers for symbolic dimensions. Without, they stay symbolic: every dimension is a
            number, or a multiple or fraction of a symbol such as ``height/4``.

    Raises:
        MsfnetError: types that do not fit, or a value whose shape cannot be known.
    """
    bare, weights = skeleton(model)
    symbols = {
        d.dim_param
        for value in model.graph.input
        for d in value.type.tensor_type.shape.dim
        if d.dim_param
    }
    if sizes is not None or not symbols:
        values = _infer(bare, sizes or {})
    else:
        values = _infer_symbolic(bare, symbols)
    return {name: value for name, value in values.items() if name not in weights}


def _infer(bare: onnx.ModelProto, sizes: Mapping[str, int]) -> dict[str, Value]:
    model = onnx.ModelProto()
    model.CopyFrom(bare)
    for value in model.graph.input:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in sizes:
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
    values = {
        info.name: Value(
            info.type.tensor_type.elem_type,
            tuple(
                d.dim_value if d.HasField("dim_value") else (d.dim_param or "?")
                for d in info.type.tensor_type.shape.dim
            ),
        )
        for info in (*graph.input, *graph.value_info, *graph.output)
    }
    made = [name for node in graph.node for name in node.output if name]
    unknown = [n for n in made if n not in values or any(isinstance(d, str) for d in values[n][1])]
    if unknown:
        raise MsfnetError(
            f"the shape of {unknown[0]} cannot be known before the model runs; "
            "export at a fixed size"
        )
    return values


def _infer_symbolic(bare: onnx.ModelProto, symbols: set[str]) -> dict[str, Value]:
    """Work shapes out at several sizes and tell which dimension follows which symbol."""
    first = {name: SYMBOLS[name][0] for name in symbols}
    base = _infer(bare, first)
    shapes: dict[str, list[int | str]] = {name: list(v.shape) for name, v in base.items()}
    for symbol in sorted(symbols):
        low, high = SYMBOLS[symbol]
        for name, value in _infer(bare, {**first, symbol: high}).items():
            for axis, (before, after) in enumerate(zip(base[name].shape, value.shape, strict=True)):
                if before != after:
                    shapes[name][axis] = _follow(name, symbol, (low, before), (high, after))
    return {name: Value(v.element_type, tuple(shapes[name])) for name, v in base.items()}


def _follow(
    name: str, symbol: str, first: tuple[int, int | str], second: tuple[int, int | str]
) -> str:
    """Write a dimension as a multiple or a fraction of a symbol."""
    ratios = {Fraction(int(size), value) for value, size in (first, second)}
    if len(ratios) > 1:
        raise MsfnetError(f"{name} does not grow in step with {symbol}; export at a fixed size")
    ratio = ratios.pop()
    times = "" if ratio.numerator == 1 else f"{ratio.numerator}*"
    return f"{times}{symbol}" + ("" if ratio.denominator == 1 else f"/{ratio.denominator}")


def annotate(model: onnx.ModelProto) -> dict[str, Value]:
    """Write type and shape of every value into a model; return them.

    Raises:
        MsfnetError: as :func:`infer_values`.
    """
    values = infer_values(model)
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    constants = {tensor.name for tensor in model.graph.initializer}
    del model.graph.value_info[:]
    model.graph.value_info.extend(
        helper.make_tensor_value_info(name, *value)
        for name, value in values.items()
        if name not in ends | constants
    )
    for output in model.graph.output:
        output.CopyFrom(helper.make_tensor_value_info(output.name, *values[output.name]))
    return values


def elements(shape: Shape) -> int:
    """Return how many numbers a shape of numbers holds."""
    return math.prod(int(side) for side in shape)
