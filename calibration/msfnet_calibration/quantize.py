"""INT8 models: Q/DQ pairs around the convolutions that gain by them.

Symmetric signed 8 bits, one scale per output channel of a weight and one per activation; biases
stay in floating point. TensorRT takes the file as it is, as an explicitly quantised network. The
pairs are inserted by ``onnxruntime.quantization``.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from msfnet_calibration.blocks import find_homes
from msfnet_calibration.calibration_options import METHODS, TARGETS, Method, Target
from msfnet_calibration.onnx_files import load_model
from msfnet_calibration.ranges import ActivationRanges
from msfnet_calibration.shapes import annotate
from msfnet_runtime import Frame, ModelSpec, MsfnetError
from msfnet_runtime.artifacts import refuse_cpu_form
from msfnet_runtime.onnx_metadata import read_onnx_spec
from msfnet_runtime.preprocess import prepare

MIN_CHANNELS = 16
"""Convolutions with fewer input or output channels, in each group, gain nothing in INT8."""

NARROW = " (narrow groups)"
"""Ends the name of a unit of convolutions that have fewer channels in each group."""

FEW_FRAMES = 4
"""Fewer give no idea of the range of activations."""


def load_fp32(source: str | os.PathLike[str]) -> onnx.ModelProto:
    """Load a model that can be quantised.

    Raises:
        MsfnetError: it cannot be read, its precision is another than FP32, or it was exported for
            CPUs.
    """
    model, spec = load_model(source), read_onnx_spec(source)
    refuse_cpu_form(spec, source)
    if spec.precision != "fp32":
        raise MsfnetError(f"{source} is {spec.precision}; calibrate the fp32 model it came from")
    return model


def prepare_frames(frames: Sequence[Frame], spec: ModelSpec) -> list[NDArray[Any]]:
    """Return the batches of calibration frames; each is resized as at inference.

    Raises:
        MsfnetError: there are none, or too few to know the range of activations by.
    """
    if not frames:
        raise MsfnetError("there are no frames to calibrate on; check --data")
    if len(frames) < FEW_FRAMES:
        raise MsfnetError(
            f"{len(frames)} frames are too few to calibrate on; give at least {FEW_FRAMES}, "
            "better 64"
        )
    return [prepare(frame.image, spec) for frame in frames]


def find_units(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Return the convolutions that can be quantised, by block, in the order of the graph.

    A block's grouped convolutions with fewer than 16 channels in each group are a unit of their
    own, whose name :func:`is_narrow` tells: most processors gain nothing by them. Convolutions
    with fewer than 16 channels in or out belong to none.
    """
    homes = find_homes(model)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    units: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type != "Conv" or node.input[1] not in shapes:
            continue
        given, taken = shapes[node.input[1]][:2]
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        if min(given, taken * groups) < MIN_CHANNELS:
            continue
        narrow = min(given // groups, taken) < MIN_CHANNELS
        units.setdefault(homes[node.name] + NARROW * narrow, []).append(node.name)
    return units


def is_narrow(unit: str) -> bool:
    """Tell a unit of grouped convolutions with few channels in each group by its name."""
    return unit.endswith(NARROW)


def tensors_beside(model: onnx.ModelProto, nodes: Collection[str]) -> list[str]:
    """Return the values that the convolutions named take and give, each once."""
    wanted = set(nodes)
    found = [
        name
        for node in model.graph.node
        if node.name in wanted
        for name in (node.input[0], node.output[0])
    ]
    return list(dict.fromkeys(found))


def insert_pairs(
    model: onnx.ModelProto,
    nodes: Collection[str],
    ranges: ActivationRanges,
    method: Method,
    runs_on: Target,
) -> onnx.ModelProto:
    """Return a copy of an FP32 model with Q/DQ pairs around the convolutions named.

    Raises:
        MsfnetError: an unknown method or target.
    """
    if method not in METHODS:
        raise MsfnetError(f"unknown method {method!r}; choose {_or(METHODS)}")
    if runs_on not in TARGETS:
        raise MsfnetError(f"unknown target {runs_on!r}; choose {_or(TARGETS)}")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if not nodes:
        return copy
    annotate(copy)
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    limits = {n: np.float32(ranges.threshold(n, method)) for n in tensors_beside(model, nodes)}
    inputs_only = ["Conv"] if runs_on == "tensorrt" else []
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(
            CalibrationMethod.MinMax, {name: (-limit, limit) for name, limit in limits.items()}
        ),
        nodes_to_quantize=list(nodes),
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv"],
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": False,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": inputs_only,
        },
    )
    with _quiet():
        quantizer.quantize_model()
    quantizer.model.topological_sort()
    result: onnx.ModelProto = quantizer.model.model
    return result


def _or(names: Sequence[str]) -> str:
    return " or ".join((", ".join(names[:-1]), names[-1]))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from printing and from logging warnings about files we make on purpose."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
