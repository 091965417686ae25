"""What FP16 would do to the values of a model: their ranges on frames, and a rehearsal of it.

ONNX Runtime's CPU provider rounds FP16 weights and computes in FP32 between them, so that neither
an overflow nor the rounding of values shows when it runs an FP16 file. :func:`rehearse` writes
the rounding into an FP32 graph as pairs of Casts, which the provider keeps: every value becomes
what FP16 can hold, infinity included. Sums within an operator stay in FP32 there, as
convolutions and matrix products do in TensorRT; :func:`find_islands` keeps other sums that could
overflow out of FP16.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from msfnet_calibration.ranges import open_probe
from msfnet_calibration.shapes import elements, infer_values
from msfnet_runtime.progress import Progress, silent

RANGE_LIMIT = 1e4
"""Tensors that exceed it on the probe frames stay in FP32."""

SUM_LIMIT = float(np.finfo(np.float16).max)
"""Reductions whose sum could exceed it, all elements being as large as the largest, stay in FP32.
That bound is the worst case already, hence the full range."""

_SUMS = {
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceL1"), 1),
    **dict.fromkeys(("GlobalAveragePool", "AveragePool"), 1),
    **dict.fromkeys(("ReduceL2", "ReduceSumSquare"), 2),
}
"""Operators that add many elements up, with the power they raise each to."""


@dataclass(frozen=True)
class Probe:
    """What a model gave on some batches."""

    peaks: dict[str, float]
    """Largest absolute value of tensors, in the order of the graph; NaN where one was NaN."""
    answers: list[NDArray[np.float32]]
    """The model's output for every batch."""

    def first_not_finite(self) -> str | None:
        """Return the first tensor that held NaN or Inf."""
        return next((name for name, peak in self.peaks.items() if not math.isfinite(peak)), None)


@dataclass(frozen=True)
class Islands:
    """What has to stay in FP32."""

    wide: frozenset[str]
    """Tensors too near FP16's limit."""
    sums: frozenset[str]
    """Outputs of reductions whose sum could overflow though input and output do not."""


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every tensor of a model."""
    types = {name: value.element_type for name, value in infer_values(model).items()}
    return {**types, **{tensor.name: tensor.data_type for tensor in model.graph.initializer}}


def float_values(model: onnx.ModelProto) -> list[str]:
    """Return the FP32 tensors that a model's nodes make, in the order of the graph."""
    types = element_types(model)
    made = [name for node in model.graph.node for name in node.output]
    return [name for name in made if types.get(name) == TensorProto.FLOAT]


def probe_values(
    model: onnx.ModelProto,
    names: Sequence[str],
    batches: Sequence[NDArray[Any]],
    progress: Progress = silent,
) -> Probe:
    """Run batches and note how large some FP32 tensors become; one batch is held at a time."""
    output = model.graph.output[0].name
    peaks = dict.fromkeys(names, 0.0)
    answers = []
    with open_probe(model, list(dict.fromkeys((*names, output)))) as run:
        for done, batch in enumerate(batches, 1):
            values = run(batch)
            answers.append(values[output])
            for name in names:
                # NaN must win: it is no small value.
                peaks[name] = float(np.maximum(peaks[name], np.abs(values[name]).max(initial=0.0)))
            progress(done, len(batches), "probed")
    return Probe(peaks, answers)


def find_islands(
    model: onnx.ModelProto, peaks: Mapping[str, float], size: tuple[int, int]
) -> Islands:
    """Return what has to stay in FP32, from the largest values of tensors.

    Args:
        model: the FP32 model.
        peaks: of its FP32 tensors, see :class:`Probe`.
        size: (height, width) that a graph of open size is used at.
    """
    wide = frozenset(name for name, peak in peaks.items() if not peak < RANGE_LIMIT)
    shapes = infer_values(model, {"batch": 1, "height": size[0], "width": size[1]})
    sums = set()
    for node in model.graph.node:
        if node.op_type not in _SUMS or node.input[0] not in peaks:
            continue
        if node.op_type == "AveragePool":
            count = math.prod(next(a.ints for a in node.attribute if a.name == "kernel_shape"))
        else:
            given = elements(shapes[node.output[0]].shape)
            count = elements(shapes[node.input[0]].shape) // given
        if not peaks[node.input[0]] ** _SUMS[node.op_type] * count <= SUM_LIMIT:
            sums.add(node.output[0])
    return Islands(wide, frozenset(sums))


def rehearse(half: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that computes in FP32 and rounds every FP16 value of another to FP16.

    Tensors keep their names and are FP32 where the other's are FP16.
    """
    types = element_types(half)
    result = onnx.ModelProto()
    result.CopyFrom(half)
    del result.graph.node[:], result.graph.value_info[:]
    for tensor in half.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            result.graph.node.append(_cast(tensor.name, f"{tensor.name}.wide", TensorProto.FLOAT))
    constants = {tensor.name for tensor in half.graph.initializer}
    for node in half.graph.node:
        copy = result.graph.node.add()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name in constants and types[name] == TensorProto.FLOAT16:
                copy.input[index] = f"{name}.wide"
        if node.op_type == "Cast" and types[node.output[0]] == TensorProto.FLOAT16:
            del copy.attribute[:]
            copy.attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
        for index, name in enumerate(node.output):
            if types.get(name) == TensorProto.FLOAT16:
                copy.output[index] = f"{name}.exact"
                result.graph.node.extend(_round(f"{name}.exact", name))
    return result


def _round(exact: str, name: str) -> Iterable[onnx.NodeProto]:
    narrow = f"{name}.narrow"
    yield _cast(exact, narrow, TensorProto.FLOAT16)
    yield _cast(narrow, name, TensorProto.FLOAT)


def _cast(taken: str, given: str, wanted: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [taken], [given], f"{given}.rounding", to=wanted)
