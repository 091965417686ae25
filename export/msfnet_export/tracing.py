"""Traces a network to ONNX; nodes are named after the modules they come from."""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from msfnet_export.export_options import Pass, RunsOn
from msfnet_export.graph_passes import (
    cast_constants,
    clear_origin,
    fold_batch_norm,
    mark_scopes,
    name_all,
    open_dimensions,
    simplify,
    split_at_once,
)
from msfnet_export.graphs import DeployGraph
from msfnet_export.lowering import lower
from msfnet_export.modules import hooked
from msfnet_runtime import ModelSpec, MsfnetError

OPSET = 18
"""The operator set of the ONNX files; ONNX Runtime 1.15 and TensorRT 10 read it."""


def trace(
    network: nn.Module,
    spec: ModelSpec,
    without: Collection[Pass] = (),
    runs_on: RunsOn = "any",
) -> tuple[ir.Model, tuple[str, ...]]:
    """Return the ONNX graph of a network, and of what surrounds it in a deploy graph.

    Args:
        network: in evaluation mode, on the CPU.
        spec: of the graph.
        without: passes to leave out.
        runs_on: ``cpu``: with the passes for processors.

    Returns:
        The model, and the names of the values that :func:`recorded` would record, in order.

    Raises:
        MsfnetError: PyTorch cannot export the network, or it cannot serve several sizes.
    """
    any_size = "height" in spec.inputs[0].shape
    example = torch.zeros(1, 3, *spec.size)
    module = lower(network, example, without=without, any_size=any_size, runs_on=runs_on)
    body = module
    if spec.graph == "deploy":
        module = DeployGraph(module, spec).eval()
    shape = [1 if isinstance(side, str) else side for side in spec.inputs[0].shape]
    if spec.graph == "network":
        shape[2:] = spec.size
    example = torch.zeros(shape, dtype=getattr(torch, spec.inputs[0].dtype))
    with recorded(body) as values:
        with torch.inference_mode():
            module(example)
        names = tuple(values)
        model = _export(_Recorded(module, values), example, spec, names)
    split_at_once(model)
    mark_scopes(model)
    cast_constants(model)
    model = simplify(model).model
    if "batch-norm" not in without:
        fold_batch_norm(model)
    del model.graph.outputs[1:]
    name_all(model, {*names, spec.inputs[0].name, spec.outputs[0].name})
    open_dimensions(model, spec.inputs[0])
    clear_origin(model)
    return model, names


class _Recorded(nn.Module):
    """A network that returns its blocks' values, too."""

    def __init__(self, network: nn.Module, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.network = network
        self._values = values

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Return the network's prediction and every recorded value."""
        self._values.clear()
        prediction = self.network(batch)
        return (prediction, *self._values.values())


@contextmanager
def recorded(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that fills with the blocks' values whenever the network runs.

    The names are the modules', and ``encoder.stage1`` to ``encoder.stage5``.
    """
    values: dict[str, Tensor] = {}

    def record(name: str, features: Tensor, output: Any) -> None:
        if isinstance(output, Tensor):
            values[name] = output
        else:
            values.update({f"{name}.stage{i}": stage for i, stage in enumerate(output, 1)})

    with hooked(network, block_modules(network), record):
        yield values


def block_modules(network: nn.Module) -> list[str]:
    """Return the modules whose values an export keeps by name: MSFNet's blocks."""
    whole = [name for name, _ in network.named_children() if name in ("encoder", "eda")]
    parts = [
        f"{parent}.{name}"
        for parent in ("usf", "decoder")
        if isinstance(getattr(network, parent, None), nn.Module)
        for name, _ in network.get_submodule(parent).named_children()
        if name not in ("pool", "head")  # the identity, and the prediction itself
    ]
    return whole + parts


def _export(
    module: nn.Module, example: Tensor, spec: ModelSpec, names: tuple[str, ...]
) -> ir.Model:
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.inputs[0].name],
                output_names=[spec.outputs[0].name, *names],
                external_data=False,
                optimize=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MsfnetError(f"PyTorch cannot export this network: {reason}") from None
    assert program is not None
    return program.model
