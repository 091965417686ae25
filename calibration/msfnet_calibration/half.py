"""FP16 models that are valid under strong typing, with FP32 islands where FP16 would fail.

FP16 reaches from the first convolution to the last: what lies before (cast, resize, normalise)
and behind (clamp, reciprocal, resize back) stays in FP32, and so do InstanceNormalization and
every tensor that comes too near FP16's limit of 65504 on real or random frames.

The probe decides, not the converted model's answer: ONNX Runtime's CPU provider rounds FP16
weights and then computes in FP32, so that an overflow shows on a GPU only.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from msfnet_calibration.onnx_files import (
    atomic_model,
    load_model,
    save_model,
    write_scratch,
)
from msfnet_calibration.shapes import infer_values
from msfnet_runtime import Frame, ModelSpec, MsfnetError, OnnxArtifact, open_engine
from msfnet_runtime.onnx_metadata import read_onnx_spec
from msfnet_runtime.preprocess import prepare, to_metres
from msfnet_runtime.progress import Progress, silent

ISLANDS = frozenset({"InstanceNormalization"})
"""Operators that stay in FP32 wherever they are: their statistics overflow or lose all digits."""

CORE = frozenset({"Conv", "MatMul", "Gemm", "ConvTranspose"})
"""Operators that FP16 is for; it spans from the first of them to the last."""

RANGE_LIMIT = 1e4
"""Tensors that exceed it on the probe frames stay in FP32."""

MAX_MEDIAN_CHANGE = 0.01
"""Largest median relative change of depth that a conversion may cause."""

_FLOAT_INPUTS: dict[str, tuple[int, ...]] = {"Resize": (0,)}
"""Inputs of type T; the others (Resize's scales) keep the type they have."""


def convert_fp16(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    frames: Sequence[Frame] = (),
    progress: Progress = silent,
) -> OnnxArtifact:
    """Write the FP16 form of an FP32 model; inputs and outputs keep their types.

    Args:
        source: an FP32 ONNX file made by msfnet, either graph.
        target: the ONNX file to write; may be the source.
        frames: frames to probe ranges and compare depth on; random images if left out.
        progress: called after every probed frame.

    Raises:
        MsfnetError: not an FP32 model, or FP16 gives depth that is not finite or whose median
            changes by more than 1 %.
    """
    model, spec = load_model(source), read_onnx_spec(source)
    if spec.precision != "fp32":
        raise MsfnetError(f"{source} is {spec.precision} already; convert the fp32 model")
    batches = [prepare(image, spec) for image in _probe_images(frames, spec)]
    peaks = probe_ranges(model, batches, progress)
    islands = {name for name, peak in peaks.items() if not peak < RANGE_LIMIT}
    half = to_fp16(model, islands)
    with open_engine(source) as engine:
        reference = [engine.infer(batch) for batch in batches]
    with atomic_model(target) as partial:
        save_model(half, partial, replace(spec, precision="fp16"))
        change = _median_change(partial, batches, reference)
        probed = f"{len(batches)} {'' if frames else 'random '}images"
        noted = spec.with_note(
            "fp16",
            f"median depth change {change:.1e} on {probed}, {len(islands)} wide tensors kept",
        )
        save_model(half, partial, replace(noted, precision="fp16"))
    return OnnxArtifact.read(target)


def _probe_images(frames: Sequence[Frame], spec: ModelSpec) -> Iterable[NDArray[np.uint8]]:
    if frames:
        return [frame.image for frame in frames]
    rng = np.random.default_rng(0)
    shape = (*spec.size, 3) if spec.graph == "network" else spec.inputs[0].shape[1:]
    return [
        rng.integers(0, 256, tuple(int(side) for side in shape), np.uint8),
        np.full(tuple(int(side) for side in shape), 255, np.uint8),
    ]


def _median_change(
    path: Path, batches: Sequence[NDArray[Any]], reference: Sequence[NDArray[np.float32]]
) -> float:
    """Return the worst image's median relative change of depth; refuse what is not depth."""
    worst = 0.0
    with open_engine(path) as engine:
        for batch, expected in zip(batches, reference, strict=True):
            answer = engine.infer(batch)
            if not np.isfinite(answer).all():
                raise MsfnetError("FP16 depth is not finite; keep this model in fp32")
            new, old = (
                to_metres(values, engine.spec) if engine.spec.graph == "network" else values
                for values in (answer, expected)
            )
            worst = max(worst, float(np.median(np.abs(new - old) / old)))
    if worst > MAX_MEDIAN_CHANGE:
        raise MsfnetError(
            f"FP16 changes depth by {worst:.1%} at the median ({MAX_MEDIAN_CHANGE:.0%} is "
            "allowed); keep this model in fp32"
        )
    return worst


def probe_ranges(
    model: onnx.ModelProto, batches: Sequence[NDArray[Any]], progress: Progress = silent
) -> dict[str, float]:
    """Return the largest absolute value of every float tensor between the nodes, over batches."""
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    types = _element_types(model)
    outputs = {output.name for output in probe.graph.output}
    names = [
        name
        for node in probe.graph.node
        for name in node.output
        if types.get(name) == TensorProto.FLOAT
    ]
    probe.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
        if name not in outputs
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.onnx"
        write_scratch(probe, path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    peaks = dict.fromkeys(names, 0.0)
    for done, batch in enumerate(batches, 1):
        answers = session.run(names, {model.graph.input[0].name: batch})
        for name, answer in zip(names, answers, strict=True):
            # NaN must win: it is no small value.
            peaks[name] = float(np.maximum(peaks[name], np.abs(answer).max(initial=0.0)))
        progress(done, len(batches), "probed")
    return peaks


def to_fp16(model: onnx.ModelProto, keep: Iterable[str] = ()) -> onnx.ModelProto:
    """Return the model with FP16 between its first and last convolutions.

    Args:
        model: an FP32 model whose constants are initialisers.
        keep: tensors that must stay in FP32; the nodes that make or take them do, too.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    half_nodes = _half_nodes(result, set(keep))
    writer = _Casts(result, _element_types(model))
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        nodes.extend(writer.retype(node, node.name in half_nodes))
    nodes.extend(writer.finish())
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend(nodes)
    writer.drop_unused()
    return result


def _half_nodes(model: onnx.ModelProto, keep: set[str]) -> set[str]:
    """Return the nodes between the first and the last of :data:`CORE`, islands left out."""
    behind = _reach(model.graph.node, lambda node: (node.input, node.output))
    before = _reach(list(model.graph.node)[::-1], lambda node: (node.output, node.input))
    return {
        node.name
        for node in model.graph.node
        if node.name in behind & before
        and node.op_type not in ISLANDS
        and not keep & {*node.input, *node.output}
    }


def _reach(
    nodes: Iterable[onnx.NodeProto],
    ends: Callable[[onnx.NodeProto], tuple[Iterable[str], Iterable[str]]],
) -> set[str]:
    """Return the core nodes and all that lie behind one, in the order given."""
    reached_tensors: set[str] = set()
    reached_nodes: set[str] = set()
    for node in nodes:
        taken, given = ends(node)
        if node.op_type in CORE or reached_tensors & set(taken):
            reached_nodes.add(node.name)
            reached_tensors |= set(given)
    return reached_nodes


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every tensor of a model."""
    types = {name: value.element_type for name, value in infer_values(model).items()}
    return {**types, **{tensor.name: tensor.data_type for tensor in model.graph.initializer}}


class _Casts:
    """Gives every node inputs of its own float type; makes each converted tensor once."""

    def __init__(self, model: onnx.ModelProto, types: dict[str, int]) -> None:
        self._graph = model.graph
        self._types = dict(types)
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._inputs = {value.name for value in model.graph.input}
        self._outputs = {output.name for output in model.graph.output}
        self._converted: dict[tuple[str, int], str] = {}

    def retype(self, node: onnx.NodeProto, half: bool) -> list[onnx.NodeProto]:
        """Return the node and the casts it needs in front."""
        wanted = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        casts: list[onnx.NodeProto] = []
        typed = _FLOAT_INPUTS.get(node.op_type, range(len(node.input)))
        for index in typed:
            name = node.input[index]
            if self._is_float(name) and self._types[name] != wanted:
                node.input[index] = self._convert(name, wanted, node.name, casts)
        for name in node.output:
            if half and self._is_float(name):
                self._types[name] = TensorProto.FLOAT16
        return [*casts, node]

    def _is_float(self, name: str) -> bool:
        return self._types.get(name) in (TensorProto.FLOAT, TensorProto.FLOAT16)

    def _convert(self, name: str, wanted: int, taker: str, casts: list[onnx.NodeProto]) -> str:
        """Return the name of a tensor in another type; casts of the input belong to its taker."""
        if (name, wanted) not in self._converted:
            suffix = "fp16" if wanted == TensorProto.FLOAT16 else "fp32"
            new = self._converted[name, wanted] = f"{name}.{suffix}"
            if name in self._initializers:
                self._add_initializer(new, numpy_helper.to_array(self._initializers[name]), wanted)
            else:
                label = f"{taker}.{suffix}" if name in self._inputs else new
                casts.append(helper.make_node("Cast", [name], [new], label, to=wanted))
        return self._converted[name, wanted]

    def _add_initializer(self, name: str, values: NDArray[Any], wanted: int) -> None:
        dtype = helper.tensor_dtype_to_np_dtype(wanted)
        limits = np.finfo(np.float16)
        # Beyond FP16's range a weight saturates; the comparison of depth is the judge of it.
        converted = np.clip(values, limits.min, limits.max).astype(dtype)
        self._graph.initializer.append(numpy_helper.from_array(converted, name))

    def finish(self) -> list[onnx.NodeProto]:
        """Return casts that give graph outputs made in FP16 their FP32 type back."""
        casts = []
        makers = {name: node.name for node in self._graph.node for name in node.output}
        for name in sorted(self._outputs):
            if self._types[name] == TensorProto.FLOAT16:
                half = f"{name}.fp16"
                self._rename(name, half)
                label = f"{makers[name]}.fp32"
                casts.append(helper.make_node("Cast", [half], [name], label, to=TensorProto.FLOAT))
        return casts

    def _rename(self, old: str, new: str) -> None:
        for node in self._graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == old:
                        names[index] = new

    def drop_unused(self) -> None:
        """Remove the FP32 initialisers that nothing takes any more."""
        used = {name for node in self._graph.node for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
