"""Casts between FP32 and FP16, put where a graph's nodes take another type than was made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_FLOAT_INPUTS: dict[str, tuple[int, ...]] = {"Resize": (0,)}
"""Inputs of type T; the others (Resize's scales) keep the type they have."""


def rename(nodes: Iterable[onnx.NodeProto], old: str, new: str) -> None:
    """Give a tensor another name wherever nodes take or make it."""
    for node in nodes:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


class Casts:
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
                rename(self._graph.node, name, half)
                label = f"{makers[name]}.fp32"
                casts.append(helper.make_node("Cast", [half], [name], label, to=TensorProto.FLOAT))
        return casts

    def drop_unused(self) -> None:
        """Remove the FP32 initialisers that nothing takes any more."""
        used = {name for node in self._graph.node for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
