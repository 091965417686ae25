"""Measures FP16's effect on a model: ranges of values, emulated rounding, change of depth.

ONNX Runtime's CPU provider rounds FP16 weights and computes in FP32 between them, so that neither
an overflow nor the rounding of values shows when it runs an FP16 file. :func:`emulate_fp16` adds
the rounding to an FP32 graph as pairs of Casts, which the provider keeps: every value becomes
the nearest FP16 number, infinity included. Sums within an operator stay in FP32 there, as
convolutions and matrix products do in TensorRT; :func:`find_islands` keeps other sums that could
overflow out of FP16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from msfnet_calibration.blocks import find_homes
from msfnet_calibration.graph import cast, size_at, splice
from msfnet_calibration.ranges import open_probe
from msfnet_runtime import ModelSpec, MsfnetError
from msfnet_runtime.preprocess import to_metres
from msfnet_runtime.progress import Progress, silent

RANGE_LIMIT = 1e4
"""Tensors that exceed it on the probe frames stay in FP32."""

SUM_LIMIT = float(np.finfo(np.float16).max)
"""Reductions whose sum could exceed it, were all elements as large as the largest, stay in FP32.
That is the worst case already, hence FP16's full range."""

_SUMS = {
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceL1"), 1),
    **dict.fromkeys(("GlobalAveragePool", "AveragePool"), 1),
    **dict.fromkeys(("ReduceL2", "ReduceSumSquare"), 2),
}
"""Operators that add up many elements, and the power to which they raise each."""

Convert = Callable[[Collection[str] | None], ir.Model]
"""Returns a model with the blocks named in FP16; with None, all of them."""


@dataclass(frozen=True)
class Probe:
    """The values that a model computed on some batches."""

    peaks: dict[str, float]
    """Largest absolute value of tensors, in the order of the graph; NaN where one was NaN."""
    answers: list[NDArray[np.float32]]
    """The model's output for every batch."""

    def first_not_finite(self) -> str | None:
        """Return the first tensor that held NaN or Inf."""
        return next((name for name, peak in self.peaks.items() if not math.isfinite(peak)), None)


@dataclass(frozen=True)
class Islands:
    """The nodes that have to stay in FP32."""

    wide: frozenset[str]
    """Tensors too near FP16's limit."""
    sums: frozenset[str]
    """Outputs of reductions whose sum could overflow though input and output do not."""


def relative_changes(
    answers: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]], spec: ModelSpec
) -> NDArray[np.float64]:
    """Return (N, 2): median and 99th percentile of the relative change of each frame's depth.

    Args:
        answers: a model's output for N frames.
        expected: the FP32 model's.
        spec: of either; a network graph's output is turned into metres first.
    """
    changes = []
    for pair in zip(answers, expected, strict=True):
        new, old = (to_metres(v, spec) if spec.graph == "network" else v for v in pair)
        changes.append(np.percentile(np.abs(new - old) / old, (50, 99)))
    return np.array(changes, np.float64)


class FP16Evaluator:
    """Compares FP16 forms of a model with the model in FP32.

    Args:
        model: the FP32 model, its types and shapes known.
        spec: its spec.
        batches: prepared frames.
        images: what the batches are, for error messages: ``2 random images``.
        progress: called after every batch and every block.

    Raises:
        MsfnetError: values are not finite in FP32 already.
    """

    def __init__(
        self,
        model: ir.Model,
        spec: ModelSpec,
        batches: Sequence[NDArray[Any]],
        images: str,
        progress: Progress = silent,
    ) -> None:
        self._spec, self._batches, self._images = spec, batches, images
        self._progress = progress
        self._homes = {
            str(value.name): home
            for node, home in find_homes(model).items()
            for value in node.outputs
        }
        self._names = float_values(model)
        self._full = probe_values(model, self._names, batches, progress)
        self._refuse_not_finite(self._full, "fp32 already; train again or take another checkpoint")
        self.islands = find_islands(model, self._full.peaks, spec.size)

    def measure(self, convert: Convert, max_change: float) -> tuple[float, float]:
        """Return the largest change of depth on any image: of the medians, of the percentiles.

        Args:
            convert: returns the model with the blocks named in FP16, all of them for None.
            max_change: largest median relative change to allow.

        Raises:
            MsfnetError: values are not finite, or the change is more than allowed.
        """
        if not max_change > 0:
            raise MsfnetError(
                f"the allowed change of depth is {max_change}; use a share above 0 such as 0.01"
            )
        half = emulate_fp16(convert(None))
        probe = probe_values(half, self._names, self._batches, self._progress)
        self._refuse_not_finite(probe, "fp16; keep this model in fp32")
        changes = relative_changes(probe.answers, self._full.answers, self._spec)
        median, p99 = changes.max(axis=0)
        if median > max_change:
            block, alone = self._worst_block(convert, int(changes[:, 0].argmax()))
            raise MsfnetError(
                f"FP16 changes depth by {_percent(median)} at the median of an "
                f"image ({_percent(max_change)} is allowed), most of it in {block} "
                f"({_percent(alone)} alone); keep this model in fp32"
            )
        return float(median), float(p99)

    def _refuse_not_finite(self, probe: Probe, where: str) -> None:
        name = probe.first_not_finite()
        if name is not None:
            raise MsfnetError(f"{self._homes[name]} gives NaN or Inf on {self._images} in {where}")

    def _worst_block(self, convert: Convert, index: int) -> tuple[str, float]:
        """Return the block that, alone in FP16, changes an image's depth most, and by how much."""
        blocks = list(dict.fromkeys(self._homes.values()))
        moved = {}  # median relative change by block
        for done, block in enumerate(blocks, 1):
            probe = probe_values(emulate_fp16(convert({block})), (), [self._batches[index]])
            expected = [self._full.answers[index]]
            moved[block] = float(relative_changes(probe.answers, expected, self._spec)[0, 0])
            self._progress(done, len(blocks), "blocks measured")
        worst = max(moved, key=lambda block: moved[block])
        return worst, moved[worst]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def float_values(model: ir.Model) -> list[str]:
    """Return the names of the FP32 tensors that a model's nodes make, in the order of the graph."""
    made = [value for node in model.graph for value in node.outputs]
    return [str(value.name) for value in made if value.dtype == ir.DataType.FLOAT]


def probe_values(
    model: ir.Model,
    names: Sequence[str],
    batches: Sequence[NDArray[Any]],
    progress: Progress = silent,
) -> Probe:
    """Run batches one at a time and return how large some FP32 tensors become."""
    output = str(model.graph.outputs[0].name)
    peaks = dict.fromkeys(names, 0.0)
    answers = []
    with open_probe(model, list(dict.fromkeys((*names, output)))) as run:
        for done, batch in enumerate(batches, 1):
            values = run(batch)
            answers.append(values[output])
            for name in names:
                # NaN must win, which it does not when compared with max().
                peaks[name] = float(np.maximum(peaks[name], np.abs(values[name]).max(initial=0.0)))
            progress(done, len(batches), "frames measured")
    return Probe(peaks, answers)


def find_islands(model: ir.Model, peaks: Mapping[str, float], size: tuple[int, int]) -> Islands:
    """Return what has to stay in FP32, from the largest values of tensors.

    Args:
        model: the FP32 model, its types and shapes known.
        peaks: of its FP32 tensors, see :class:`Probe`.
        size: (height, width) that a graph of open size is used at.
    """
    wide = frozenset(name for name, peak in peaks.items() if not peak < RANGE_LIMIT)
    sums = set()
    for node in model.graph:
        source, result = node.inputs[0], node.outputs[0]
        if node.op_type not in _SUMS or source is None:
            continue
        peak = peaks.get(str(source.name), 0.0)
        if node.op_type == "AveragePool":
            count = math.prod(node.attributes["kernel_shape"].as_ints())
        else:
            count = size_at(source, size) // size_at(result, size)
        if not peak ** _SUMS[node.op_type] * count <= SUM_LIMIT:
            sums.add(str(result.name))
    return Islands(wide, frozenset(sums))


def emulate_fp16(half: ir.Model) -> ir.Model:
    """Return a model that computes in FP32 and rounds every FP16 value of an FP16 model.

    Requires: types and shapes are known. Ensures: tensors keep their names and are FP32 where the
    other model's are FP16.
    """
    half_type, full_type, result = ir.DataType.FLOAT16, ir.DataType.FLOAT, half.clone()
    nodes = list(result.graph)
    for value in list(result.graph.initializers.values()):
        if value.dtype == half_type:
            splice(value, [cast(value, full_type, f"{value.name}.wide", f"{value.name}.rounding")])
    for node in nodes:
        for value in node.outputs:
            if value.dtype != half_type:
                continue
            if node.op_type == "Cast":
                node.attributes["to"] = ir.AttrInt64("to", full_type)
            name = str(value.name)
            value.name, value.type = f"{name}.exact", ir.TensorType(full_type)
            narrow = cast(value, half_type, f"{name}.narrow", f"{name}.narrow.rounding")
            wide = cast(narrow.outputs[0], full_type, name, f"{name}.rounding")
            splice(value, [narrow, wide])
    return result
