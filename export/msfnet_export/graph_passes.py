"""Passes over the exported graph: constants, batch norm, names. Each rewrites the model given."""

from __future__ import annotations

import ast
from collections import Counter

import numpy as np
import onnx
from onnx import helper, numpy_helper

from msfnet_calibration.shapes import infer_values, skeleton
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


def mark_scopes(model: onnx.ModelProto) -> None:
    """Name every node after its module, as long as the exporter's notes are there.

    Ensures: a node's name is ``module:number``. The wrapper's and the deploy graph's own
    ``network`` are left out, so that both graphs use the same names.
    """
    for number, node in enumerate(model.graph.node):
        notes = {entry.key: entry.value for entry in node.metadata_props}
        scopes = ast.literal_eval(notes.get(_SCOPES, "['', '']"))
        node.name = f"{_module(scopes)}:{number}"


def _module(scopes: list[str]) -> str:
    name = scopes[-2] if len(scopes) > 1 else ""
    while name == "network" or name.startswith("network."):
        name = name.removeprefix("network").removeprefix(".")
    return name.replace("eda.pooling", "eda")


def cast_constants(model: onnx.ModelProto) -> None:
    """Replace CastLike by Cast.

    Requires: nothing. Ensures: constants no longer hang on values that are known at run time
    only, so that they can be folded.
    """
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    infos = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    types.update({info.name: info.type.tensor_type.elem_type for info in infos})
    for node in model.graph.node:
        if node.op_type == "CastLike" and types.get(node.input[1]):
            node.op_type = "Cast"
            node.attribute.append(helper.make_attribute("to", types[node.input[1]]))
            del node.input[1:]


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and remove what does nothing, by onnxsim.

    Requires: nothing. Ensures: equal answers, which the parity gate checks. The weights of
    convolutions are left out of its sight: it has nothing to do with them, and half a gigabyte
    takes its time.
    """
    import onnxsim

    bare, weights = skeleton(model)
    simplified, _ = onnxsim.simplify(bare, skip_fuse_bn=True)
    inputs = [value for value in simplified.graph.input if value.name not in weights]
    del simplified.graph.input[:]
    simplified.graph.input.extend(inputs)
    simplified.graph.initializer.extend(weights.values())
    return _without_constant_nodes(simplified)


def _without_constant_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn Constant nodes into initialisers."""
    kept = []
    for node in model.graph.node:
        if node.op_type == "Constant":
            model.graph.initializer.append(_constant(node))
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def _constant(node: onnx.NodeProto) -> onnx.TensorProto:
    """Return the value of a Constant node, which comes in several spellings."""
    (attribute,) = node.attribute
    if attribute.name == "value":
        tensor: onnx.TensorProto = attribute.t
    else:
        dtype = np.float32 if "float" in attribute.name else np.int64
        values = np.asarray(helper.get_attribute_value(attribute), dtype)
        tensor = numpy_helper.from_array(values)
    tensor.name = node.output[0]
    return tensor


def fold_batch_norm(model: onnx.ModelProto) -> None:
    """Fold every batch norm that follows a convolution into it.

    Requires: the convolution's value goes nowhere else, and both have constant weights.
    Ensures: equal answers; the convolution takes the batch norm's place, in float64 arithmetic.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    convolutions = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(output.name for output in graph.output)
    folded = []
    for norm in graph.node:
        conv = convolutions.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if conv is None or uses[norm.input[0]] > 1:
            continue
        if all(name in constants for name in (*conv.input[1:], *norm.input[1:])):
            _fold(graph, conv, norm, constants)
            folded.append(norm)
    for norm in folded:
        graph.node.remove(norm)
    drop_unused(graph)


def _fold(
    graph: onnx.GraphProto,
    conv: onnx.NodeProto,
    norm: onnx.NodeProto,
    constants: dict[str, onnx.TensorProto],
) -> None:
    weight, *rest = (numpy_helper.to_array(constants[n]) for n in conv.input[1:])
    scale, shift, mean, variance = (
        numpy_helper.to_array(constants[n]).astype(np.float64) for n in norm.input[1:]
    )
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
    factor = scale / np.sqrt(variance + epsilon)
    bias = rest[0].astype(np.float64) if rest else 0.0
    folded = {
        "weight": weight * factor.reshape(-1, *[1] * (weight.ndim - 1)),
        "bias": (bias - mean) * factor + shift,
    }
    del conv.input[1:]
    for role, values in folded.items():
        tensor = numpy_helper.from_array(values.astype(weight.dtype), f"{norm.output[0]}.{role}")
        graph.initializer.append(tensor)
        conv.input.append(tensor.name)
    conv.output[0] = norm.output[0]


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove constants that nothing takes."""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def name_all(model: onnx.ModelProto, keep: set[str]) -> None:
    """Name nodes, values and constants after the modules they come from.

    Requires: nodes named by :func:`mark_scopes`. Ensures: every name is used once; a node is
    called as its module where it is the module's only one, else ``module.operator``; its value
    as itself, except for those in ``keep``; a constant as the first node that takes it, and its
    role there.
    """
    graph = model.graph
    homes = [node.name.partition(":")[0] for node in graph.node]
    parents = {".".join(words[:i]) for words in map(_split, homes) for i in range(len(words))}
    alone = {home for home, count in Counter(homes).items() if count == 1} - parents - {""}
    node_names: set[str] = set()
    value_names = set(keep)
    renamed: dict[str, str] = {}
    constants = {tensor.name for tensor in graph.initializer}
    for node, home in zip(graph.node, homes, strict=True):
        word = _WORDS.get(node.op_type, node.op_type.lower())
        node.name = _unused(home if home in alone else f"{home}.{word}".lstrip("."), node_names)
        for name in node.output:
            if name and name not in keep:
                renamed[name] = _unused(node.name, value_names)
        for place, name in enumerate(node.input):
            if name in constants and name not in renamed:
                role = dict(enumerate(_ROLES.get(node.op_type, ()))).get(place) or "constant"
                renamed[name] = _unused(f"{node.name}.{role}", value_names)
    rename_values(graph, renamed)


def _split(name: str) -> list[str]:
    return name.split(".")


def _unused(name: str, taken: set[str]) -> str:
    """Return the name, numbered if it is taken, and take it."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}.{number}"
    taken.add(free)
    return free


def rename_values(graph: onnx.GraphProto, renamed: dict[str, str]) -> None:
    """Give values and constants other names wherever they occur; forget noted shapes."""
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = renamed.get(name, name)
    for tensor in graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    del graph.value_info[:]


def resize_by_factors(model: onnx.ModelProto) -> None:
    """Let every Resize name factors instead of a size, which would name the batch as well.

    Requires: fixed shapes. Ensures: equal answers within rounding, for any batch: a factor is the
    ratio of two sides, rounded up so that the product is never a pixel short.
    """
    values = infer_values(model)
    for node in model.graph.node:
        if node.op_type == "Resize" and len(node.input) == 4:
            before, after = (
                [int(side) for side in values[name].shape]
                for name in (node.input[0], node.output[0])
            )
            factors = [_factor(b, a) for b, a in zip(before, after, strict=True)]
            del node.input[1:]
            node.input.extend(["", f"{node.name}.factors"])
            model.graph.initializer.append(
                numpy_helper.from_array(np.array(factors, np.float32), node.input[2])
            )
    drop_unused(model.graph)


def _factor(before: int, after: int) -> np.float32:
    ratio = np.float32(after / before)
    return ratio if before * float(ratio) >= after else np.nextafter(ratio, np.float32(np.inf))


def open_dimensions(model: onnx.ModelProto, tensor: TensorSpec) -> None:
    """Give the input the symbols of its spec.

    Requires: no constant of the graph depends on the size; the parity gate runs several sizes.
    Ensures: batch, height and width are read from the input.
    """
    if tensor.shape[0] == "batch":
        resize_by_factors(model)
    for dimension, side in zip(
        model.graph.input[0].type.tensor_type.shape.dim, tensor.shape, strict=True
    ):
        if isinstance(side, str):
            dimension.dim_param = side


def keep_own_words(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what the exporter notes about its own source lines, paths of this machine included."""
    graph = model.graph
    for part in (*graph.node, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for info in (*graph.value_info, *graph.input, *graph.output):
        info.ClearField("metadata_props")
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    graph.name = "msfnet"
    model.producer_name, model.producer_version = "msfnet", ""
    return model
