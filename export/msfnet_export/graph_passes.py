"""Passes over the exported graph: constants, batch norm, names.

Each edits the model in place, but for :func:`simplify`, and returns ``onnx_ir``'s ``PassResult``.
"""

from __future__ import annotations

import ast
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import PassResult
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, LiftConstantsToInitializersPass

from msfnet_calibration.graph import (
    add_constant,
    bare_proto,
    constant,
    drop_unused,
    infer_shapes,
)
from msfnet_runtime import TensorSpec

_SCOPES = "pkg.torch.onnx.name_scopes"
"""Where PyTorch's exporter notes the modules a node comes from."""

_WORDS = {
    "DepthToSpace": "shuffle",
    "Mul": "multiply",
    "ReduceMax": "maximum",
    "ReduceMean": "mean",
    "ReduceMin": "minimum",
    "Sub": "subtract",
}
"""What an operator is called in the name of a node; others by their own name."""

_ROLES = {
    "Conv": ("", "weight", "bias"),
    "InstanceNormalization": ("", "weight", "bias"),
    "BatchNormalization": ("", "weight", "bias", "mean", "variance"),
    "ReduceMax": ("", "axes"),
    "ReduceMean": ("", "axes"),
    "ReduceMin": ("", "axes"),
    "Resize": ("", "", "scales", "sizes"),
    "Slice": ("", "starts", "ends", "axes", "steps"),
}
"""What constants are called, by the operator that takes them and their place."""


def mark_scopes(model: ir.Model) -> PassResult:
    """Name every node after its module.

    Requires: the exporter's notes. Ensures: a node's name is ``module:number``. The wrapper's and
    the deploy graph's own ``network`` are left out, so that both graphs use the same names.
    """
    for number, node in enumerate(model.graph):
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "['', '']"))
        node.name = f"{_module(scopes)}:{number}"
    return PassResult(model, modified=True)


def _module(scopes: list[str]) -> str:
    name = scopes[-2] if len(scopes) > 1 else ""
    while name == "network" or name.startswith("network."):
        name = name.removeprefix("network").removeprefix(".")
    return name.replace("eda.pooling", "eda")


def cast_constants(model: ir.Model) -> PassResult:
    """Replace CastLike by Cast.

    Requires: nothing. Ensures: constants no longer depend on values that are known at run time
    only, so that they can be folded.
    """
    modified = False
    for node in model.graph:
        like = node.inputs[1] if node.op_type == "CastLike" else None
        if like is not None and like.dtype is not None:
            node.op_type, modified = "Cast", True
            node.attributes.add(ir.AttrInt64("to", like.dtype))
            node.resize_inputs(1)
    return PassResult(model, modified)


def split_at_once(model: ir.Model) -> PassResult:
    """Replace a sequence of slices, and the nodes that pick from it, by one Split.

    Requires: constant sizes and places, as PyTorch's exporter writes them. Ensures: equal answers,
    and no sequence, whose shapes cannot be inferred.
    """
    sequences = [node for node in model.graph if node.op_type == "SplitToSequence"]
    split = [node for node in sequences if _split_at_once(model.graph, node)]
    drop_unused(model)
    return PassResult(model, modified=bool(split))


def _split_at_once(graph: ir.Graph, sequence: ir.Node) -> bool:
    """Replace one sequence if its sizes and places are constant, and tell whether they are."""
    source, axis = sequence.inputs[0], sequence.attributes.get_int("axis", 0)
    picks = [use.node for use in sequence.outputs[0].uses()]
    places = [_number(pick.inputs[1]) for pick in picks if pick.op_type == "SequenceAt"]
    side = source.shape[axis] if source is not None and source.shape is not None else None
    sizes = _split_sizes(sequence, side) if isinstance(side, int) else None
    found = [int(place) for place in places if place is not None]
    if sizes is None or len(found) < len(picks):
        return False
    lengths = add_constant(graph, f"{sequence.outputs[0].name}.sizes", sizes)
    split = ir.node("Split", [source, lengths], {"axis": axis}, num_outputs=len(sizes))
    split.name = sequence.name
    split.metadata_props.update(sequence.metadata_props)
    graph.insert_before(sequence, split)
    for pick, place in zip(picks, found, strict=True):
        piece = split.outputs[place]
        piece.name = pick.outputs[0].name
        piece.type, piece.shape = pick.outputs[0].type, pick.outputs[0].shape
        pick.outputs[0].replace_all_uses_with(piece, replace_graph_outputs=True)
        graph.remove(pick, safe=True)
    return True


def _split_sizes(sequence: ir.Node, side: int) -> NDArray[np.int64] | None:
    """Return the sizes of a sequence's slices along an axis of ``side``; None if unknown."""
    asked = _number(sequence.inputs[1]) if len(sequence.inputs) > 1 else None
    if asked is None or asked.ndim:
        return asked
    step = int(asked)
    return np.array([min(step, side - start) for start in range(0, side, step)], np.int64)


def _number(value: ir.Value | None) -> NDArray[np.int64] | None:
    """Return whole numbers that are an initialiser, or a Constant node's; None for others."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else np.asarray(tensor.numpy(), np.int64)


def simplify(model: ir.Model) -> PassResult:
    """Fold constants and remove what does nothing, by onnxsim, which needs protobuf.

    Requires: nothing. Ensures: equal answers, which the parity gate checks; constants are
    initialisers. The weights of convolutions stay outside: onnxsim does nothing with them, and
    half a gigabyte takes long.
    """
    import onnxsim

    bare, weights = bare_proto(model)
    with _muted():
        simplified = ir.from_proto(onnxsim.simplify(bare, skip_fuse_bn=True)[0])
    graph = simplified.graph
    for value in [value for value in graph.inputs if value.name in weights]:
        graph.inputs.remove(value)
        value.const_value = weights[str(value.name)]
        graph.register_initializer(value)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(simplified)
    return PassResult(simplified, modified=True)


@contextmanager
def _muted() -> Iterator[None]:
    """Keep what a compiled library writes to standard output and error from the user."""
    try:
        kept = {number: os.dup(number) for number in (1, 2)}
    except OSError:  # one is closed: nothing to keep quiet
        yield
        return
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - a device, not a path of the user's
        for number in kept:
            os.dup2(nothing.fileno(), number)
    try:
        yield
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


def fold_batch_norm(model: ir.Model) -> PassResult:
    """Fold every batch norm that follows a convolution into it.

    Requires: the convolution's value goes nowhere else, and both have constant weights.
    Ensures: equal answers; the convolution takes the batch norm's place, in float64 arithmetic.
    """
    norms = [node for node in model.graph if node.op_type == "BatchNormalization"]
    folded = [norm for norm in norms if _fold(model.graph, norm)]
    drop_unused(model)
    return PassResult(model, modified=bool(folded))


def _fold(graph: ir.Graph, norm: ir.Node) -> bool:
    """Fold one batch norm if its convolution allows it, and tell whether it does."""
    (value, *parameters), result = norm.inputs, norm.outputs[0]
    conv = value.producer() if value is not None else None
    if conv is None or conv.op_type != "Conv" or conv.outputs[0].is_graph_output():
        return False
    numbers = [constant(parameter) for parameter in (*conv.inputs[1:], *parameters)]
    found = [array for array in numbers if array is not None]
    if len(conv.outputs[0].uses()) > 1 or len(found) < len(numbers):
        return False
    weight, *bias = found[:-4]
    scale, shift, mean, variance = (array.astype(np.float64) for array in found[-4:])
    factor = scale / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
    before = bias[0].astype(np.float64) if bias else 0.0
    folded: dict[str, NDArray[np.float64]] = {
        "weight": weight * factor.reshape(-1, *[1] * (weight.ndim - 1)),
        "bias": (before - mean) * factor + shift,
    }
    conv.resize_inputs(3)
    for place, (role, values) in enumerate(folded.items(), 1):
        name = f"{result.name}.{role}"
        conv.replace_input_with(place, add_constant(graph, name, values.astype(weight.dtype)))
    result.replace_all_uses_with(conv.outputs[0], replace_graph_outputs=True)
    conv.outputs[0].name = result.name
    graph.remove(norm, safe=True)
    return True


def name_all(model: ir.Model, keep: set[str]) -> PassResult:
    """Name nodes, values and constants after the modules they come from.

    Requires: nodes named by :func:`mark_scopes`. Ensures: every name is used once; a node is
    called as its module where it is the module's only one, else ``module.operator``; its value
    as itself, except for those in ``keep``; a constant as the first node that takes it, and its
    role there.
    """
    homes = [str(node.name).partition(":")[0] for node in model.graph]
    parents = {".".join(words[:i]) for words in map(_split, homes) for i in range(len(words))}
    alone = {home for home, count in Counter(homes).items() if count == 1} - parents - {""}
    node_names: set[str] = set()
    value_names = set(keep)
    renamed: dict[ir.Value, str] = {}
    for node, home in zip(model.graph, homes, strict=True):
        word = _WORDS.get(node.op_type, node.op_type.lower())
        node.name = _unused(home if home in alone else f"{home}.{word}".lstrip("."), node_names)
        for value in node.outputs:
            if value.name and value.name not in keep:
                renamed[value] = _unused(node.name, value_names)
        roles = dict(enumerate(_ROLES.get(node.op_type, ())))
        for place, taken in enumerate(node.inputs):
            if taken is not None and taken.is_initializer() and taken not in renamed:
                role = roles.get(place) or "constant"
                renamed[taken] = _unused(f"{node.name}.{role}", value_names)
    ir.convenience.rename_values(list(renamed), list(renamed.values()))
    return PassResult(model, modified=True)


def _split(name: str) -> list[str]:
    return name.split(".")


def _unused(name: str, used: set[str]) -> str:
    """Return the name, numbered if it is used already, and add it to the used ones."""
    number, free = 1, name
    while free in used:
        number += 1
        free = f"{name}.{number}"
    used.add(free)
    return free


def resize_by_factors(model: ir.Model) -> PassResult:
    """Let every Resize name factors instead of a size, which would name the batch as well.

    Requires: fixed shapes. Ensures: equal answers within rounding, for any batch: a factor is the
    ratio of two sides, rounded up so that the product is never a pixel short.
    """
    infer_shapes(model)
    for node in model.graph:
        source, result = node.inputs[0], node.outputs[0]
        if node.op_type != "Resize" or len(node.inputs) != 4 or source is None:
            continue
        assert source.shape is not None
        assert result.shape is not None
        pairs = zip(source.shape.numpy(), result.shape.numpy(), strict=True)
        factors = np.array([_factor(before, after) for before, after in pairs], np.float32)
        node.resize_inputs(3)
        node.replace_input_with(1, None)
        node.replace_input_with(2, add_constant(model.graph, f"{node.name}.factors", factors))
    return drop_unused(model)


def _factor(before: int, after: int) -> np.float32:
    ratio = np.float32(after / before)
    return ratio if before * float(ratio) >= after else np.nextafter(ratio, np.float32(np.inf))


def open_dimensions(model: ir.Model, tensor: TensorSpec) -> PassResult:
    """Give the input the symbols of its spec.

    Requires: no constant of the graph depends on the size; the parity gate runs several sizes.
    Ensures: batch, height and width are read from the input.
    """
    if tensor.shape[0] == "batch":
        resize_by_factors(model)
    model.graph.inputs[0].shape = ir.Shape(tensor.shape)
    return PassResult(model, modified=any(isinstance(side, str) for side in tensor.shape))


def clear_origin(model: ir.Model) -> PassResult:
    """Drop what the exporter notes about its own source lines, paths of this machine included."""
    ClearMetadataAndDocStringPass()(model)
    model.graph.metadata_props.clear()
    for value in ir.convenience.create_value_mapping(model.graph).values():
        value.metadata_props.clear()
        value.doc_string = None
    model.graph.name, model.producer_name, model.producer_version = "msfnet", "msfnet", None
    return PassResult(model, modified=True)
