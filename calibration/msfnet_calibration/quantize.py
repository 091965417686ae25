"""INT8 models: Q/DQ pairs around the convolutions that gain by them.

Symmetric signed 8 bits, one scale per output channel of a weight and one per activation; biases
stay in floating point. TensorRT takes the file as it is, as an explicitly quantised network.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from msfnet_calibration.blocks import find_homes
from msfnet_calibration.calibration_options import METHODS, TARGETS, Method, Target
from msfnet_calibration.graph import add_constant, constant, drop_unused, make_node, splice
from msfnet_calibration.ranges import ActivationRanges
from msfnet_runtime import Frame, ModelSpec, MsfnetError
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


def tensors_beside(model: ir.Model, nodes: Collection[str]) -> list[str]:
    """Return the inputs and outputs of the convolutions named, each once."""
    wanted = set(nodes)
    found = [
        str(value.name)
        for node in model.graph
        if node.name in wanted
        for value in (node.inputs[0], node.outputs[0])
        if value is not None
    ]
    return list(dict.fromkeys(found))


def insert_pairs(
    model: ir.Model,
    nodes: Collection[str],
    ranges: ActivationRanges,
    method: Method,
    runs_on: Target,
) -> ir.Model:
    """Return a copy of an FP32 model with Q/DQ pairs around the convolutions named.

    Requires: the type and shape of every value are known. Ensures: every tensor has at most one
    pair, which all consumers of the tensor share; quantised weights are stored in INT8.

    Raises:
        MsfnetError: an unknown method or target.
    """
    if method not in METHODS:
        raise MsfnetError(f"unknown method {method!r}; choose {_or(METHODS)}")
    if runs_on not in TARGETS:
        raise MsfnetError(f"unknown target {runs_on!r}; choose {_or(TARGETS)}")
    wanted, result = set(nodes), model.clone()
    for node in [node for node in result.graph if node.name in wanted]:
        _quantize_weight(result.graph, node)
        for value in (node.inputs[0], *(node.outputs if runs_on == "cpu" else ())):
            if value is not None and not _is_dequantized(value):
                limit = np.array(ranges.threshold(str(value.name), method), np.float32)
                _quantize_activation(result.graph, value, limit, node)
    drop_unused(result)
    return result


def _is_dequantized(value: ir.Value | None) -> bool:
    maker = value.producer() if value is not None else None
    return maker is not None and maker.op_type == "DequantizeLinear"


def _quantize_weight(graph: ir.Graph, conv: ir.Node) -> None:
    """Store a convolution's weight in INT8, one scale per output channel."""
    weight = conv.inputs[1]
    numbers = constant(weight)
    if weight is None or numbers is None:
        return  # another convolution shares it and has quantised it
    scales = _scale(np.abs(numbers).reshape(len(numbers), -1).max(axis=1))
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
    graph: ir.Graph, value: ir.Value, limit: NDArray[np.float32], consumer: ir.Node
) -> None:
    """Put a Q/DQ pair behind a value; it belongs to the node that makes the value."""
    owner = value.producer() or consumer
    name = str(value.name)
    constants = [
        add_constant(graph, f"{name}.scale", _scale(limit)),
        add_constant(graph, f"{name}.zero_point", np.array(0, np.int8)),
    ]
    result = f"{name}.dequantized"
    if value.is_graph_output():
        value.name, result = f"{name}.exact", name
    quantize = make_node(
        "QuantizeLinear",
        [value, *constants],
        (f"{name}.quantized", ir.DataType.INT8),
        f"{owner.name}.quantize",
    )
    dequantize = make_node(
        "DequantizeLinear",
        [*quantize.outputs, *constants],
        (result, ir.DataType.FLOAT),
        f"{owner.name}.dequantize",
    )
    splice(value, [quantize, dequantize])


def _scale(limits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the step of symmetric INT8, -127 to 127, that represents values up to a limit."""
    scales = (2 * limits.astype(np.float64) / 254).astype(np.float32)
    return np.asarray(np.where(scales < np.finfo(np.float32).tiny, np.float32(1), scales))


def _or(names: Sequence[str]) -> str:
    return " or ".join((", ".join(names[:-1]), names[-1]))
