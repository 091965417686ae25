"""FP16 models that are valid under strong typing, with FP32 islands where FP16 would fail.

FP16 reaches from the first convolution to the last: what lies before (cast, resize, normalise)
and behind (clamp, reciprocal, resize back) stays in FP32, and so do InstanceNormalization, every
tensor that comes too near FP16's limit of 65504 on real or random frames, and reductions whose
sum could exceed it.

The judge is a rehearsal (:mod:`msfnet_calibration.probe`), which rounds every value as a GPU
does; ONNX Runtime's CPU provider, given the FP16 file, computes in FP32.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from msfnet_calibration.blocks import find_homes
from msfnet_calibration.casts import Casts, rename
from msfnet_calibration.change import Change, Judge
from msfnet_calibration.onnx_files import atomic_model, load_model, save_model
from msfnet_calibration.probe import Islands, element_types
from msfnet_runtime import Frame, ModelSpec, MsfnetError, OnnxArtifact, open_engine
from msfnet_runtime.artifacts import refuse_cpu_form
from msfnet_runtime.onnx_metadata import read_onnx_spec
from msfnet_runtime.preprocess import prepare
from msfnet_runtime.progress import Progress, silent

ISLANDS = frozenset({"InstanceNormalization"})
"""Operators that stay in FP32 wherever they are: their statistics overflow or lose all digits."""

CORE = frozenset({"Conv", "MatMul", "Gemm", "ConvTranspose"})
"""Operators that FP16 is for; it spans from the first of them to the last."""

MAX_MEDIAN_CHANGE = 0.01
"""Largest median relative change of depth that a conversion may cause."""

QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear"})

QUANTIZED_OPSET = 19
"""The first in which QuantizeLinear and DequantizeLinear take FP16. From 18 to it, operators got
types and attributes only: models of ours mean the same in both."""


def convert_fp16(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    frames: Sequence[Frame] = (),
    max_change: float = MAX_MEDIAN_CHANGE,
    progress: Progress = silent,
) -> OnnxArtifact:
    """Write the FP16 form of an FP32 model; inputs and outputs keep their types.

    Args:
        source: an FP32 ONNX file made by msfnet, either graph.
        target: the ONNX file to write; may be the source.
        frames: frames to probe ranges and compare depth on; random images if left out.
        max_change: largest median relative change of depth, of any frame, to allow.
        progress: called after every frame, in FP32 and in FP16.

    Raises:
        MsfnetError: not an FP32 model; or, by the block at fault, values that are not finite in
            FP32 or FP16, or depth whose median changes by more than allowed.
    """
    model, spec = load_model(source), read_onnx_spec(source)
    refuse_cpu_form(spec, source)
    if spec.precision != "fp32":
        raise MsfnetError(f"{source} is {spec.precision} already; convert the fp32 model")
    batches = [prepare(image, spec) for image in _probe_images(frames, spec)]
    images = f"{len(batches)} {'' if frames else 'random '}image{'s' * (len(batches) > 1)}"
    judge = Judge(model, spec, batches, images, progress)
    islands = judge.islands

    def convert(blocks: Collection[str] | None) -> onnx.ModelProto:
        return to_fp16(model, islands.wide, blocks=blocks, keep_nodes=islands.sums)

    change = judge.measure(convert, max_change)
    noted = spec.with_note("fp16", _describe(model, islands, change, images))
    with atomic_model(target) as partial:
        save_model(convert(None), partial, replace(noted, precision="fp16"))
        with open_engine(partial) as engine:
            engine.infer(batches[0])
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


def _describe(model: onnx.ModelProto, islands: Islands, change: Change, images: str) -> str:
    """Return the spec's note: what was measured, and what stays in FP32 for which reason."""
    homes = find_homes(model)
    kept = kept_in_fp32(model, islands.wide, islands.sums)
    where: dict[str, dict[str, None]] = {}
    for node in model.graph.node:
        if node.output[0] in kept:
            where.setdefault(kept[node.output[0]], {})[homes[node.name]] = None
    reasons = [f"{reason} in {', '.join(blocks)}" for reason, blocks in where.items()]
    return (
        f"depth changes by {change.median:.1e} at the median and {change.p99:.1e} at the 99th "
        f"percentile of the worst of {images}; in fp32: {'; '.join(reasons) or 'no island'}"
    )


def to_fp16(
    model: onnx.ModelProto,
    keep: Iterable[str] = (),
    *,
    blocks: Collection[str] | None = None,
    keep_nodes: Collection[str] = (),
) -> onnx.ModelProto:
    """Return the model with FP16 between its first and last convolutions.

    A QuantizeLinear has the type of the node before it, a DequantizeLinear that of the nodes
    behind, and is doubled where those differ; a model with one in FP16 is of opset 19.

    Args:
        model: an FP32 model whose constants are initialisers, Q/DQ pairs allowed.
        keep: tensors that must stay in FP32; the nodes that make or take them do, too.
        blocks: only nodes of these become FP16, see :mod:`msfnet_calibration.blocks`.
        keep_nodes: outputs of further nodes that must stay in FP32; other nodes may take them
            in FP16.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    half = _half_nodes(result, set(keep), blocks, keep_nodes)
    if _place_quantized(result, half):
        version = next(entry for entry in result.opset_import if not entry.domain)
        version.version = max(version.version, QUANTIZED_OPSET)
    writer = Casts(result, element_types(result))
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        nodes.extend(writer.retype(node, node.output[0] in half))
    nodes.extend(writer.finish())
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend(nodes)
    writer.drop_unused()
    return result


def kept_in_fp32(
    model: onnx.ModelProto, keep: Iterable[str], keep_nodes: Collection[str] = ()
) -> dict[str, str]:
    """Return the nodes between the first and last convolutions that cannot be FP16, and why.

    They are named by their first output; arguments are those of :func:`to_fp16`.
    """
    wide, makers = set(keep), {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    span, kept = _span(model), {}
    for node in model.graph.node:
        name = node.output[0]
        dequantized = [
            makers[n] for n in node.input if n in makers and makers[n].op_type == "DequantizeLinear"
        ]
        before = [makers[n.input[0]].input[0] for n in dequantized if n.input[0] in makers]
        if name not in span or node.op_type in QUANTIZED:
            continue
        if node.op_type in ISLANDS:
            kept[name] = node.op_type
        elif name in keep_nodes:
            kept[name] = "sums that could overflow"
        elif wide & {*node.input, *node.output, *before}:
            kept[name] = "wide values"
        elif not all(_holds_scale(n, constants) for n in dequantized):
            kept[name] = "small scales"
    return kept


def _half_nodes(
    model: onnx.ModelProto,
    keep: set[str],
    blocks: Collection[str] | None,
    keep_nodes: Collection[str],
) -> set[str]:
    """Return the first outputs of the nodes that become FP16, but for Q/DQ."""
    homes = find_homes(model)
    kept = kept_in_fp32(model, keep, keep_nodes)
    return {
        node.output[0]
        for node in model.graph.node
        if node.op_type not in QUANTIZED and (blocks is None or homes[node.name] in blocks)
    } & _span(model) - kept.keys()


def _place_quantized(model: onnx.ModelProto, half: set[str]) -> bool:
    """Add the Q/DQ nodes that become FP16 to the others; tell whether there are any."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    before = len(half)
    for node in model.graph.node:
        nodes.append(node)
        name = node.output[0]
        if node.op_type == "QuantizeLinear":
            if node.input[0] in half and _holds_scale(node, constants):
                half.add(name)
        elif node.op_type == "DequantizeLinear":
            takers = [other for other in model.graph.node if name in other.input]
            halves = [other for other in takers if other.output[0] in half]
            if 0 < len(halves) < len(takers):
                second = onnx.NodeProto()
                second.CopyFrom(node)
                second.name, second.output[0] = f"{node.name}.fp16", f"{name}.fp16"
                nodes.append(second)
                rename(halves, name, second.output[0])
            if halves:
                half.add(nodes[-1].output[0])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return len(half) > before


def _holds_scale(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Tell whether FP16 holds a Q/DQ node's scales as normal numbers, without losing digits."""
    if node.input[1] not in constants:
        return False
    scales = numpy_helper.to_array(constants[node.input[1]])
    limits = np.finfo(np.float16)
    return bool(np.all((scales >= limits.tiny) & (scales <= limits.max)))


def _span(model: onnx.ModelProto) -> set[str]:
    """Return the first outputs of the nodes between the first and the last of :data:`CORE`."""
    behind = _reach(model.graph.node, lambda node: (node.input, node.output))
    before = _reach(list(model.graph.node)[::-1], lambda node: (node.output, node.input))
    return behind & before


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
            reached_nodes.add(node.output[0])
            reached_tensors |= set(given)
    return reached_nodes
