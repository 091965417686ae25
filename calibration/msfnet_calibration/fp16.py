"""FP16 models that are valid under strong typing, with FP32 islands where FP16 would fail.

FP16 reaches from the first convolution to the last: what lies before (cast, resize, normalise)
and behind (clamp, reciprocal, resize back) stays in FP32, and so do InstanceNormalization, every
tensor that comes too near FP16's limit of 65504 on real or random frames, and reductions whose
sum could exceed it.

Whether a conversion is good enough is measured by emulation (:mod:`msfnet_calibration.fp16_check`),
which rounds every value as a GPU does; ONNX Runtime's CPU provider computes an FP16 file in FP32.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from msfnet_calibration.blocks import find_homes
from msfnet_calibration.fp16_check import FP16Evaluator, Islands
from msfnet_calibration.graph import FLOATS, add_constant, as_dtype, cast, constant, drop_unused
from msfnet_calibration.onnx_files import atomic_model, load_fp32, onnx_path, write_model
from msfnet_runtime import Frame, ModelSpec, OnnxArtifact, open_engine
from msfnet_runtime.files import check_outputs
from msfnet_runtime.precision_records import DepthChange, Fp32Island
from msfnet_runtime.preprocess import prepare
from msfnet_runtime.progress import Progress, silent

ISLANDS = frozenset({"InstanceNormalization"})
"""Operators that stay in FP32 wherever they are: their statistics overflow or lose all digits."""

CORE = frozenset({"Conv", "MatMul", "Gemm", "ConvTranspose"})
"""Operators that gain by FP16; it reaches from the first of them to the last."""

MAX_MEDIAN_CHANGE = 0.01
"""Largest median relative change of depth that a conversion may cause."""

QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear"})

QUANTIZED_OPSET = 19
"""The first opset in which QuantizeLinear and DequantizeLinear accept FP16. Between 18 and 19,
operators only gained types and attributes: our models mean the same in both."""

_FLOAT_INPUTS: dict[str, tuple[int, ...]] = {"Resize": (0,)}
"""Inputs that have the node's float type; the others (Resize's scales) keep the type they have."""


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
        target: the ONNX file to write, another than the source.
        frames: frames to probe ranges and compare depth on; random images if left out.
        max_change: largest median relative change of depth, of any frame, to allow.
        progress: called after every frame, in FP32 and in FP16.

    Raises:
        MsfnetError: not an FP32 model, or the target is the source; or, by the block at fault,
            values that are not finite in FP32 or FP16, or depth whose median changes by more than
            allowed.
    """
    check_outputs([onnx_path(target)], inputs=[source], force=True)
    model, spec = load_fp32(source, "convert")
    half, spec = checked_fp16(model, spec, frames, max_change=max_change, progress=progress)
    with atomic_model(target) as partial:
        write_fp16(half, partial, spec)
    return OnnxArtifact.read(target)


def checked_fp16(
    model: ir.Model,
    spec: ModelSpec,
    frames: Sequence[Frame] = (),
    *,
    max_change: float = MAX_MEDIAN_CHANGE,
    progress: Progress = silent,
) -> tuple[ir.Model, ModelSpec]:
    """Return the FP16 form of an FP32 model and its spec, which says what was measured.

    Requires: the type and shape of every value are known. Arguments and errors are those of
    :func:`convert_fp16`.
    """
    batches = [prepare(image, spec) for image in _probe_images(frames, spec)]
    images = f"{len(batches)} {'' if frames else 'random '}image{'s' * (len(batches) > 1)}"
    evaluator = FP16Evaluator(model, spec, batches, images, progress)
    islands = evaluator.islands

    def convert(blocks: Collection[str] | None) -> ir.Model:
        return to_fp16(model, islands.wide, blocks=blocks, keep_nodes=islands.sums)

    median, p99 = evaluator.measure(convert, max_change)
    spec = replace(
        spec,
        precision="fp16",
        change=DepthChange(median, p99, len(batches), random=not frames),
        islands=_describe_islands(model, islands),
    )
    return convert(None), spec


def write_fp16(model: ir.Model, path: Path, spec: ModelSpec, *, beside: bool = False) -> None:
    """Write an FP16 model with :func:`msfnet_calibration.onnx_files.write_model`; run it once."""
    write_model(model, path, spec, beside=beside)
    with open_engine(path) as engine:
        engine.infer(prepare(_probe_images((), spec)[0], spec))


def _probe_images(frames: Sequence[Frame], spec: ModelSpec) -> Sequence[NDArray[np.uint8]]:
    if frames:
        return [frame.image for frame in frames]
    rng = np.random.default_rng(0)
    sides = (*spec.size, 3) if spec.graph == "network" else spec.inputs[0].shape[1:]
    shape = tuple(int(side) for side in sides)
    return [rng.integers(0, 256, shape, np.uint8), np.full(shape, 255, np.uint8)]


def _describe_islands(model: ir.Model, islands: Islands) -> tuple[Fp32Island, ...]:
    """Return what stays in FP32 for which reason, for the spec."""
    homes = find_homes(model)
    where: dict[str, dict[str, None]] = {}
    for node, reason in kept_in_fp32(model, islands.wide, islands.sums).items():
        where.setdefault(reason, {})[homes[node]] = None
    return tuple(Fp32Island(reason, tuple(blocks)) for reason, blocks in where.items())


def to_fp16(
    model: ir.Model,
    keep: Collection[str] = (),
    *,
    blocks: Collection[str] | None = None,
    keep_nodes: Collection[str] = (),
) -> ir.Model:
    """Return the model with FP16 between its first and last convolutions.

    A QuantizeLinear gets the type of the node before it, a DequantizeLinear that of the nodes
    behind it, and is doubled where those differ; a model with one in FP16 gets opset 19.

    Requires: an FP32 model whose types and shapes are known and whose constants are initialisers;
    Q/DQ pairs are allowed. Ensures: every node's inputs have one float type.

    Args:
        model: left as it is.
        keep: tensors that must stay in FP32; the nodes that make or take them do, too.
        blocks: only nodes of these become FP16, see :mod:`msfnet_calibration.blocks`.
        keep_nodes: outputs of further nodes that must stay in FP32; other nodes may take them
            in FP16.
    """
    result = model.clone()
    homes = find_homes(result)
    half = {
        node
        for node in _span(result.graph) - kept_in_fp32(result, keep, keep_nodes).keys()
        if node.op_type not in QUANTIZED and (blocks is None or homes[node] in blocks)
    }
    if quantized := _quantized_in(half, result.graph):
        opsets = result.graph.opset_imports
        opsets[""] = max(opsets[""], QUANTIZED_OPSET)
    casts = _Casts(result.graph)
    for node in list(result.graph):
        casts.retype(node, ir.DataType.FLOAT16 if node in half | quantized else ir.DataType.FLOAT)
    casts.restore_outputs()
    drop_unused(result)
    return result


def kept_in_fp32(
    model: ir.Model, keep: Collection[str], keep_nodes: Collection[str] = ()
) -> dict[ir.Node, str]:
    """Return the nodes between the first and last convolutions that cannot be FP16, and why.

    Arguments are those of :func:`to_fp16`.
    """
    span, kept = _span(model.graph), {}
    for node in model.graph:
        if node not in span or node.op_type in QUANTIZED:
            continue
        dequantized = [n for n in node.predecessors() if n.op_type == "DequantizeLinear"]
        before = [n.inputs[0] for pair in dequantized for n in pair.predecessors()]
        if node.op_type in ISLANDS:
            kept[node] = node.op_type
        elif node.outputs[0].name in keep_nodes:
            kept[node] = "sums that could overflow"
        elif any(v and v.name in keep for v in (*node.inputs, *node.outputs, *before)):
            kept[node] = "wide values"
        elif not all(map(_holds_scale, dequantized)):
            kept[node] = "small scales"
    return kept


def _quantized_in(half: Collection[ir.Node], graph: ir.Graph) -> set[ir.Node]:
    """Return the Q/DQ nodes that become FP16, doubled where both precisions use their value."""
    found: set[ir.Node] = set()
    for node in list(graph):
        if node.op_type == "QuantizeLinear":
            if node.inputs[0] and node.inputs[0].producer() in half and _holds_scale(node):
                found.add(node)
        elif node.op_type == "DequantizeLinear":
            consumers = node.outputs[0].consumers()
            halves = [consumer for consumer in consumers if consumer in half]
            if halves:
                found.add(node if len(halves) == len(consumers) else _double(node, halves))
    return found


def _double(node: ir.Node, consumers: Collection[ir.Node]) -> ir.Node:
    """Return a copy of a DequantizeLinear that some of its consumers use in its place."""
    value, attributes = node.outputs[0], list(node.attributes.values())
    output = ir.val(f"{value.name}.fp16", type=value.type, shape=value.shape)
    name = f"{node.name}.fp16"
    copy = ir.Node("", node.op_type, node.inputs, attributes, outputs=[output], name=name)
    node.append(copy)
    for use in value.uses():
        if use.node in consumers:
            use.node.replace_input_with(use.idx, output)
    return copy


def _holds_scale(node: ir.Node) -> bool:
    """Tell whether FP16 holds a Q/DQ node's scales as normal numbers, without losing digits."""
    scales, limits = constant(node.inputs[1]), np.finfo(np.float16)
    if scales is None:
        return False
    return bool(np.all((scales >= limits.tiny) & (scales <= limits.max)))


def _span(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes between the first and the last of :data:`CORE`, those included."""
    behind = _reach(graph, ir.Node.predecessors)
    return behind & _reach(reversed(graph), ir.Node.successors)


def _reach(
    nodes: Iterable[ir.Node], neighbours: Callable[[ir.Node], Iterable[ir.Node]]
) -> set[ir.Node]:
    """Return the core nodes and all that depend on one, for nodes in the order of ``nodes``."""
    reached: set[ir.Node] = set()
    for node in nodes:
        if node.op_type in CORE or not reached.isdisjoint(neighbours(node)):
            reached.add(node)
    return reached


class _Casts:
    """Gives every node inputs of its own float type; makes each converted tensor once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._converted: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def retype(self, node: ir.Node, wanted: ir.DataType) -> None:
        """Put the casts that a node needs in front of it, and give its outputs their type.

        Requires: the nodes before it have been retyped.
        """
        for index in _FLOAT_INPUTS.get(node.op_type, range(len(node.inputs))):
            value = node.inputs[index]
            if value is not None and value.dtype in FLOATS and value.dtype != wanted:
                node.replace_input_with(index, self._convert(value, wanted, node))
        for value in node.outputs:
            if value.dtype in FLOATS and wanted == ir.DataType.FLOAT16:
                value.type = ir.TensorType(wanted)

    def _convert(self, value: ir.Value, wanted: ir.DataType, consumer: ir.Node) -> ir.Value:
        """Return a tensor in another type; a cast of the input gets its consumer's name."""
        key = value, wanted
        if key not in self._converted:
            suffix = "fp16" if wanted == ir.DataType.FLOAT16 else "fp32"
            name, numbers = f"{value.name}.{suffix}", constant(value)
            if numbers is not None:
                self._converted[key] = add_constant(self._graph, name, as_dtype(numbers, wanted))
            else:
                label = f"{consumer.name}.{suffix}" if value.is_graph_input() else name
                node = cast(value, wanted, name, label)
                self._graph.insert_before(consumer, node)
                self._converted[key] = node.outputs[0]
        return self._converted[key]

    def restore_outputs(self) -> None:
        """Give graph outputs made in FP16 their FP32 type back."""
        for index, value in enumerate(self._graph.outputs):
            maker = value.producer()
            if value.dtype == ir.DataType.FLOAT16 and maker is not None:
                name = str(value.name)
                value.name = f"{name}.fp16"
                node = cast(value, ir.DataType.FLOAT, name, f"{maker.name}.fp32")
                self._graph.append(node)
                self._graph.outputs[index] = node.outputs[0]
