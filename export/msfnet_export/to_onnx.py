"""Exports networks to ONNX; a graph that differs from PyTorch is not written."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from msfnet_calibration.fp16 import checked_fp16, write_fp16
from msfnet_calibration.graph import count_operators, count_parameters
from msfnet_calibration.onnx_files import atomic_model, onnx_path, write_model
from msfnet_export.export_options import (
    DEFAULTS,
    Dynamic,
    ExportOptions,
    FloatPrecision,
    Pass,
    RunsOn,
    Verify,
    Weights,
)
from msfnet_export.graphs import at_frame_size, default_spec, with_dynamic
from msfnet_export.parity import (
    TOLERANCE,
    BlockParity,
    Parity,
    compare_blocks,
    compare_with_pytorch,
)
from msfnet_export.tracing import OPSET, trace
from msfnet_runtime import Frame, ModelSpec, MsfnetError, OnnxArtifact
from msfnet_runtime.files import check_outputs
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.spec import Graph
from msfnet_train.checkpoint import load_checkpoint
from msfnet_train.recipe import at_size

MIN_SIDE = 32
"""Pixels: the encoder's last stage is at stride 32."""


@dataclass(frozen=True)
class ExportReport:
    """The result of an export: the file, and its difference from PyTorch."""

    artifact: OnnxArtifact
    parity: Parity
    """The difference of the FP32 graph from PyTorch."""
    blocks: tuple[BlockParity, ...]
    """The differences of its blocks, in running order; empty unless verified ``deep``."""
    parameters: int
    macs: int
    """Multiply-accumulates for one image at the spec's size."""
    operators: Mapping[str, int]
    seconds: float
    """The time of the whole export, comparison included."""

    @property
    def max_relative_difference(self) -> float:
        """The largest difference of the FP32 graph from PyTorch."""
        return self.parity.difference

    def text(self) -> str:
        """Return the report in a few lines."""
        spec = self.artifact.spec
        inputs = "x".join(str(side) for side in spec.inputs[0].shape)
        operators = ", ".join(f"{name} {count}" for name, count in self.operators.items())
        facts = [f"{name}: {text}" for name, text in spec.precision_facts().items()]
        blocks = [f"  {block.name:<20}{block.difference:.1e}" for block in self.blocks]
        return "\n".join(
            [
                f"{self.artifact.path}: {spec.graph} graph, {spec.precision}, input {inputs} "
                f"{spec.inputs[0].dtype}, {self.parameters / 1e6:.2f} M parameters, "
                f"{self.macs / 1e9:.3f} GMAC, "
                f"{self.artifact.bytes / 1e6:.1f} MB, {self.seconds:.1f} s",
                f"PyTorch parity (fp32): {self.parity.text()}",
                *blocks,
                *facts,
                f"operators: {operators}",
            ]
        )


def export_network(
    network: nn.Module,
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int],
    graph: Graph = "network",
    spec: ModelSpec | None = None,
    frame_size: tuple[int, int] | None = None,
    precision: FloatPrecision = "fp32",
    dynamic: Collection[Dynamic] = (),
    without: Collection[Pass] = (),
    runs_on: RunsOn = "any",
    weights: Weights = "inside",
    frames: Sequence[Frame] = (),
    verify: Verify = "output",
    progress: Progress = silent,
) -> ExportReport:
    """Export a network, checked against PyTorch; a graph that differs is not written.

    Args:
        network: (N, 3, H, W) float32, normalised, to (N, 1, ceil(H/2), ceil(W/2)); left as it is.
        path: the ``.onnx`` file to write.
        size: (height, width) of the network's input, pixels, 32 or more.
        graph: ``network``, the network alone; ``deploy``, from a uint8 RGB frame
            (1, H', W', 3) to metres (1, 1, H', W').
        spec: of the network; metric depth from 0.1 to 100 m if left out.
        frame_size: (height, width) of a deploy graph's frames; ``size`` if left out.
        precision: ``fp16`` converts the checked FP32 graph, see :func:`convert_fp16`.
        dynamic: ``batch``, and for network graphs ``size``, to leave them open; sides are then
            multiples of 32.
        without: passes to leave out, see :mod:`msfnet_export.lowering`.
        runs_on: ``cpu`` spends fewer GMAC on the decoder; such a graph is FP32 and of
            one size, and neither calibrated nor built by TensorRT.
        weights: ``beside``: in a separate file, which ONNX Runtime maps into memory instead of
            copying it; over 1.9 GB they always are.
        frames: real frames to compare on, besides random images, and to probe FP16 on.
        verify: ``deep`` compares every block, and names the first that differs.
        progress: called after every step.

    Raises:
        MsfnetError: a size below 32, a frame size for a network graph, the network cannot be
            exported, cannot be dynamic, the graph differs from PyTorch by more than 1e-4, FP16
            fails its own check, or the file cannot be written.
    """
    started = time.perf_counter()
    target = onnx_path(path)
    if min(size) < MIN_SIDE or min(frame_size or size) < MIN_SIDE:
        raise MsfnetError(
            f"size {size} is too small; both sides need {MIN_SIDE} pixels or more", parameter="size"
        )
    if frame_size and graph == "network":
        raise MsfnetError(
            "a network graph takes a normalised batch, not frames; leave the frame size out",
            parameter="frame_size",
        )
    if precision not in ("fp32", "fp16"):
        raise MsfnetError(f"an export is fp32 or fp16, not {precision!r}; calibrate makes int8")
    if runs_on == "cpu" and (dynamic or precision != "fp32"):
        raise MsfnetError(
            "a graph for CPUs has one size and is fp32; leave out dynamic and fp16, or the target"
        )
    if weights not in ("inside", "beside"):
        raise MsfnetError(
            f"weights lie inside the file or beside it, not {weights!r}", parameter="weights"
        )
    reference = copy.deepcopy(network).cpu().eval()
    network_spec = at_size(spec or default_spec(network, size), size)
    network_spec.check_supported()
    network_spec = replace(network_spec, opset=OPSET, layout=runs_on)
    if graph == "deploy":
        graph_spec = with_dynamic(at_frame_size(network_spec, frame_size or size), dynamic)
    else:
        graph_spec = with_dynamic(network_spec, dynamic)
    with atomic_model(target) as partial:
        progress(0, 3, "tracing")
        model, names = trace(reference, graph_spec, without, runs_on)
        write_model(model, partial, graph_spec, beside=weights == "beside")
        progress(1, 3, "comparing with PyTorch")
        parity, blocks = _verify(reference, partial, network_spec, frames, names, verify)
        progress(2, 3, f"writing {precision}")
        if precision == "fp16":
            model, half_spec = checked_fp16(model, graph_spec, frames)
            write_fp16(model, partial, half_spec, beside=weights == "beside")
    progress(3, 3, "done")
    artifact = OnnxArtifact.read(target)
    return ExportReport(
        artifact=artifact,
        parity=parity,
        blocks=blocks,
        parameters=count_parameters(model),
        macs=sum(block.macs for block in artifact.spec.blocks),
        operators=count_operators(model),
        seconds=time.perf_counter() - started,
    )


def _verify(
    network: nn.Module,
    path: Path,
    spec: ModelSpec,
    frames: Sequence[Frame],
    names: Sequence[str],
    verify: Verify,
) -> tuple[Parity, tuple[BlockParity, ...]]:
    """Compare with PyTorch.

    Raises:
        MsfnetError: the graph differs; with ``deep``, the first block that does is named.
    """
    parity = compare_with_pytorch(network, path, spec, frames)
    blocks = tuple(compare_blocks(network, path, spec, names)) if verify == "deep" else ()
    first = next((block for block in blocks if not block.difference < TOLERANCE), None)
    if parity.difference < TOLERANCE and first is None:
        return parity, blocks
    where = "" if verify == "deep" else "; verify deep to find the block"
    if first is not None:
        where = f"; {first.name} is the first block that differs, by {first.difference:.1e}"
    elif blocks:
        where = f"; no block differs, so the cause is behind {blocks[-1].name}"
    raise MsfnetError(
        f"the exported graph differs from PyTorch by {parity.difference:.1e} (relative; "
        f"{TOLERANCE:.0e} is allowed){where}; it was not written"
    )


def export_checkpoint(
    checkpoint: str | os.PathLike[str],
    path: str | os.PathLike[str],
    options: ExportOptions = DEFAULTS,
    *,
    frames: Sequence[Frame] = (),
    progress: Progress = silent,
) -> ExportReport:
    """Export a checkpoint.

    Args:
        checkpoint: as training writes it.
        path: the ``.onnx`` file to write.
        options: of the export.
        frames: real frames to compare on, besides random images.
        progress: called after every step.

    Raises:
        MsfnetError: the checkpoint cannot be read, is the file to write, or as
            :func:`export_network`.
    """
    check_outputs([onnx_path(path)], inputs=[checkpoint], force=True)
    if Path(checkpoint).suffix == ".onnx":
        raise MsfnetError(
            f"{checkpoint} is an ONNX file already; name the .ckpt file of a training run"
        )
    loaded = load_checkpoint(checkpoint)
    chosen = replace(options, size=options.size or loaded.spec.size)
    return export_network(
        loaded.network, path, spec=loaded.spec, frames=frames, progress=progress, **vars(chosen)
    )
