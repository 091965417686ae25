"""INT8 models: Q/DQ pairs around the convolutions that gain by them.

Weights are symmetric signed 8 bits with one scale per output channel; biases stay in floating
point. For TensorRT activations are symmetric and signed, too, and the file is an explicitly
quantised network. For ONNX Runtime's CPU provider they are unsigned with a zero point: processors
multiply unsigned by signed 8 bits. Those without VNNI instructions add two such products in 16
bits, which saturate unless weights keep to 7 bits (a reduced range).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from msfnet_calibration.blocks import find_homes
from msfnet_calibration.calibration_options import METHODS, TARGETS
from msfnet_calibration.graph import add_constant, constant, drop_unused, make_node, splice
from msfnet_calibration.ranges import ActivationRanges, Span
from msfnet_runtime import Frame, ModelSpec, MsfnetError
from msfnet_runtime.precision_records import CalibrationMethod, CalibrationTarget
from msfnet_runtime.preprocess import prepare

MIN_CHANNELS = 16
"""Convolutions with fewer input or output channels, in each group, gain nothing in INT8."""

NARROW = " (narrow groups)"
"""Ends the name of a unit of convolutions that have fewer channels in each group."""

FEW_FRAMES = 4
"""Fewer do not show the range of activations."""


def prepare_frames(frames: Sequence[Frame], spec: ModelSpec) -> list[NDArray[Any]]:
    """Return the batches of calibration frames; each is resized as at inference.

    Raises:
        MsfnetError: there are none, or too few to know the range of activations by.
    """
    if not frames:
        raise MsfnetError("there are no frames to calibrate on; check the data", parameter="data")
    if len(frames) < FEW_FRAMES:
        raise MsfnetError(
            f"{len(frames)} frames are too few to calibrate on; give at least {FEW_FRAMES}, "
            "better 64"
        )
    return [prepare(frame.image, spec) for frame in frames]


def find_units(model: ir.Model) -> dict[str, list[str]]:
    """Return the convolutions that can be quantised, by block, in the order of the graph.

    A block's grouped convolutions with fewer than 16 channels in each group are a unit of their
    own, which :func:`is_narrow` recognises: most processors gain nothing by them. Convolutions
    with fewer than 16 channels in or out belong to none.
    """
    units: dict[str, list[str]] = {}
    for node, home in find_homes(model).items():
        weight = constant(node.inputs[1]) if node.op_type == "Conv" else None
        if weight is None:
            continue
        outputs, inputs = weight.shape[:2]
        groups = node.attributes.get_int("group", 1)
        if min(outputs, inputs * groups) < MIN_CHANNELS:
            continue
        narrow = min(outputs // groups, inputs) < MIN_CHANNELS
        units.setdefault(home + NARROW * narrow, []).append(str(node.name))
    return units


def is_narrow(unit: str) -> bool:
    """Tell by its name whether a unit has few channels in each group."""
    return unit.endswith(NARROW)


def tensors_beside(
    model: ir.Model, nodes: Collection[str], runs_on: CalibrationTarget
) -> list[str]:
    """Return the values around the convolutions named that get a pair, each once."""
    wanted = set(nodes)
    found = [
        str(value.name)
        for node in model.graph
        if node.name in wanted
        for value in _values_beside(node, runs_on)
    ]
    return list(dict.fromkeys(found))


def _values_beside(conv: ir.Node, runs_on: CalibrationTarget) -> list[ir.Value]:
    """Return a convolution's input and, for CPUs, its output behind a ReLU or ReLU6.

    With a zero point of 0 the pair does what a ReLU does, and ONNX Runtime drops the ReLU.
    """
    values = [conv.inputs[0]]
    if runs_on == "cpu":
        output = conv.outputs[0]
        uses = list(output.uses())
        follows = len(uses) == 1 and not output.is_graph_output() and _is_relu(uses[0].node)
        values.append(uses[0].node.outputs[0] if follows else output)
    return [value for value in values if value is not None]


def _is_relu(node: ir.Node) -> bool:
    """Return whether a node is a ReLU, with or without an upper end."""
    if node.op_type != "Clip":
        return node.op_type == "Relu"
    low = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return low is not None and float(low) == 0.0


def insert_pairs(
    model: ir.Model,
    nodes: Collection[str],
    ranges: ActivationRanges,
    method: CalibrationMethod,
    runs_on: CalibrationTarget,
    *,
    reduced_range: bool = False,
) -> ir.Model:
    """Return a copy of an FP32 model with Q/DQ pairs around the convolutions named.

    Requires: the type and shape of every value are known. Ensures: every tensor has at most one
    pair, which all consumers of the tensor share; quantised weights are stored in INT8, in 7 bits
    with ``reduced_range``.

    Raises:
        MsfnetError: an unknown method or target.
    """
    if method not in METHODS:
        raise MsfnetError(f"unknown method {method!r}; choose {_or(METHODS)}")
    if runs_on not in TARGETS:
        raise MsfnetError(f"unknown target {runs_on!r}; choose {_or(TARGETS)}")
    wanted, result = set(nodes), model.clone()
    for node in [node for node in result.graph if node.name in wanted]:
        _quantize_weight(result.graph, node, 64 if reduced_range else 127)
        for value in _values_beside(node, runs_on):
            if not _is_dequantized(value):
                steps = _steps(ranges.span(str(value.name), method), signed=runs_on == "tensorrt")
                _quantize_activation(result.graph, value, *steps, node)
    drop_unused(result)
    return result


def _is_dequantized(value: ir.Value | None) -> bool:
    maker = value.producer() if value is not None else None
    return maker is not None and maker.op_type == "DequantizeLinear"


def _quantize_weight(graph: ir.Graph, conv: ir.Node, largest: int) -> None:
    """Store a convolution's weight in INT8, -largest to largest, one scale per output channel."""
    weight = conv.inputs[1]
    numbers = constant(weight)
    if weight is None or numbers is None:
        return  # another convolution shares it and has quantised it
    scales = _scale(2 * np.abs(numbers).reshape(len(numbers), -1).max(axis=1), 2 * largest)
    steps = np.rint(numbers / scales.reshape(-1, *[1] * (numbers.ndim - 1)))
    stored = [
        add_constant(graph, f"{weight.name}.int8", np.clip(steps, -128, 127).astype(np.int8)),
        add_constant(graph, f"{weight.name}.scale", scales),
        add_constant(graph, f"{weight.name}.zero_point", np.zeros(len(scales), np.int8)),
    ]
    result = f"{weight.name}.dequantized", ir.DataType.FLOAT
    node = make_node("DequantizeLinear", stored, result, f"{conv.name}.weight.dequantize", axis=0)
    graph.insert_before(conv, node)
    weight.replace_all_uses_with(node.outputs[0])


def _quantize_activation(
    graph: ir.Graph,
    value: ir.Value,
    scale: NDArray[np.float32],
    zero_point: NDArray[np.integer[Any]],
    consumer: ir.Node,
) -> None:
    """Put a Q/DQ pair behind a value; it belongs to the node that makes the value."""
    owner = value.producer() or consumer
    name = str(value.name)
    constants = [
        add_constant(graph, f"{name}.scale", scale),
        add_constant(graph, f"{name}.zero_point", zero_point),
    ]
    result = f"{name}.dequantized"
    if value.is_graph_output():
        value.name, result = f"{name}.exact", name
    quantize = make_node(
        "QuantizeLinear",
        [value, *constants],
        (f"{name}.quantized", ir.DataType.from_numpy(zero_point.dtype)),
        f"{owner.name}.quantize",
    )
    dequantize = make_node(
        "DequantizeLinear",
        [*quantize.outputs, *constants],
        (result, ir.DataType.FLOAT),
        f"{owner.name}.dequantize",
    )
    splice(value, [quantize, dequantize])


def _steps(span: Span, *, signed: bool) -> tuple[NDArray[np.float32], NDArray[np.integer[Any]]]:
    """Return scale and zero point of an activation: symmetric INT8, or UINT8 from end to end."""
    low, high = (np.float32(end) for end in span)
    if signed:
        return _scale(2 * np.maximum(high, -low), 254), np.array(0, np.int8)
    exact = (np.float64(high) - low) / 255
    scale = _scale(high - np.float64(low), 255)
    return scale, np.array(0 if low == high else np.rint(-low / exact), np.uint8)


def _scale(widths: Any, steps: int) -> NDArray[np.float32]:
    """Return the step of which ``steps`` are as wide as a range; 1 where the range is empty."""
    scales = (np.asarray(widths, np.float64) / steps).astype(np.float32)
    return np.asarray(np.where(scales < np.finfo(np.float32).tiny, np.float32(1), scales))


def _or(names: Sequence[str]) -> str:
    return " or ".join((", ".join(names[:-1]), names[-1]))
