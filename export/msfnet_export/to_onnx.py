"""Exports networks to ONNX, and refuses to write a graph that differs from PyTorch."""

from __future__ import annotations

import copy
import io
import os
import time
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from msfnet_calibration.onnx_files import (
    count_operators,
    count_parameters,
    load_model,
    onnx_path,
    save_model,
)
from msfnet_export.graphs import DeployGraph, at_frame_size, default_spec
from msfnet_export.lowering import lower
from msfnet_export.precision import convert_fp16
from msfnet_runtime import ModelSpec, MsfnetError, OnnxArtifact, open_engine, preprocess
from msfnet_runtime.files import atomic_path
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.spec import Graph
from msfnet_train.checkpoint import load_checkpoint
from msfnet_train.recipe import at_size

OPSET = 18
"""Of the ONNX files; ONNX Runtime 1.15 and TensorRT 10 read it."""

TOLERANCE = 1e-4
"""Largest relative difference from PyTorch that an FP32 export may show."""

PARITY_IMAGES = 3

MIN_SIDE = 32
"""Pixels: the encoder's last stage is at stride 32."""


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote and how far it is from PyTorch."""

    artifact: OnnxArtifact
    max_relative_difference: float
    """Of the FP32 graph from PyTorch, over random images of the graph's size: the largest
    |difference| over |prediction|, or over the smallest prediction that stands for a depth within
    the model's range where the prediction lies below that."""
    images: int
    """How many images were compared."""
    parameters: int
    operators: Mapping[str, int]
    seconds: float
    """Of the whole export, comparison included."""

    def text(self) -> str:
        """Return the report in a few lines."""
        spec = self.artifact.spec
        inputs = "x".join(str(side) for side in spec.inputs[0].shape)
        operators = ", ".join(f"{name} {count}" for name, count in self.operators.items())
        notes = [f"{key}: {value}" for key, value in spec.notes.items() if key == "fp16"]
        return "\n".join(
            [
                f"{self.artifact.path}: {spec.graph} graph, {spec.precision}, input {inputs} "
                f"{spec.inputs[0].dtype}, {self.parameters / 1e6:.2f} M parameters, "
                f"{self.artifact.bytes / 1e6:.1f} MB, {self.seconds:.1f} s",
                f"PyTorch parity (fp32): max relative difference "
                f"{self.max_relative_difference:.1e} over {self.images} random images",
                *notes,
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
    precision: Literal["fp32", "fp16"] = "fp32",
    progress: Progress = silent,
) -> ExportReport:
    """Export a network at one input size, checked against PyTorch on random images.

    Args:
        network: (N, 3, H, W) float32, normalised, to (N, 1, ceil(H/2), ceil(W/2)); left as it is.
        path: the ``.onnx`` file to write.
        size: (height, width) of the network's input, pixels, 32 or more.
        graph: ``network``, the network alone; ``deploy``, from a uint8 RGB frame
            (1, H', W', 3) to metres (1, 1, H', W').
        spec: of the network; metric depth from 0.1 to 100 m if left out.
        frame_size: (height, width) of a deploy graph's frames; ``size`` if left out.
        precision: ``fp16`` converts the checked FP32 graph, see :func:`convert_fp16`.
        progress: called after every step.

    Raises:
        MsfnetError: a size below 32, the network cannot be exported, the graph differs from
            PyTorch by more than 1e-4, FP16 fails its own check, or the file cannot be written.
    """
    started = time.perf_counter()
    target = onnx_path(path)
    if min(size) < MIN_SIDE or min(frame_size or size) < MIN_SIDE:
        raise MsfnetError(f"size {size} is too small; both sides need {MIN_SIDE} pixels or more")
    if precision not in ("fp32", "fp16"):
        raise MsfnetError(f"an export is fp32 or fp16, not {precision!r}; calibrate makes int8")
    reference = copy.deepcopy(network).cpu().eval()
    network_spec = at_size(spec or default_spec(network), size)
    graph_spec = (
        network_spec if graph == "network" else at_frame_size(network_spec, frame_size or size)
    )
    with atomic_path(target) as partial:
        progress(0, 3, "tracing")
        save_model(_trace(reference, graph_spec), partial, graph_spec)
        progress(1, 3, "comparing with PyTorch")
        difference = compare_with_pytorch(reference, partial, network_spec)
        if not difference < TOLERANCE:
            raise MsfnetError(
                f"the exported graph differs from PyTorch by {difference:.1e} (relative; "
                f"{TOLERANCE:.0e} is allowed); it was not written"
            )
        progress(2, 3, f"writing {precision}")
        if precision == "fp16":
            convert_fp16(partial, partial)
        model = load_model(partial)
    progress(3, 3, "done")
    return ExportReport(
        artifact=OnnxArtifact.read(target),
        max_relative_difference=difference,
        images=PARITY_IMAGES,
        parameters=count_parameters(model),
        operators=count_operators(model),
        seconds=time.perf_counter() - started,
    )


def export_checkpoint(
    checkpoint: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    frame_size: tuple[int, int] | None = None,
    graph: Graph = "deploy",
    precision: Literal["fp32", "fp16"] = "fp32",
    progress: Progress = silent,
) -> ExportReport:
    """Export a checkpoint; ``size`` is its recipe's inference size if left out.

    Raises:
        MsfnetError: the checkpoint cannot be read, or as :func:`export_network`.
    """
    loaded = load_checkpoint(checkpoint)
    return export_network(
        loaded.network,
        path,
        size=size or loaded.spec.size,
        graph=graph,
        spec=loaded.spec,
        frame_size=frame_size,
        precision=precision,
        progress=progress,
    )


def _trace(network: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
    """Return the ONNX graph of a network, with the rest of the deploy graph where asked."""
    import onnxsim

    module = lower(network, torch.zeros(1, 3, *spec.size))
    if spec.graph == "deploy":
        module = DeployGraph(module, spec).eval()
    shape = tuple(int(side) for side in spec.inputs[0].shape)
    example = torch.zeros(shape, dtype=getattr(torch, spec.inputs[0].dtype))
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.inputs[0].name],
                output_names=[spec.outputs[0].name],
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MsfnetError(f"PyTorch cannot export this network: {reason}") from None
    assert program is not None
    simplified, equal = onnxsim.simplify(program.model_proto)
    if not equal:
        raise MsfnetError("simplifying the graph changed its answer; report this network")
    return _plain(simplified)


def _plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what the exporter notes about its own source lines, paths of this machine included."""
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for info in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        info.ClearField("metadata_props")
    for tensor in model.graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")
    model.graph.ClearField("metadata_props")
    model.graph.ClearField("doc_string")
    model.graph.name = "msfnet"
    model.producer_name, model.producer_version = "msfnet", ""
    return model


def compare_with_pytorch(
    network: nn.Module, path: Path, spec: ModelSpec, images: int = PARITY_IMAGES
) -> float:
    """Return how far an ONNX file is from PyTorch, relatively, at worst, on random images.

    A deploy graph is held against the runtime's own preparation and finishing around PyTorch.

    Args:
        network: in evaluation mode.
        path: the exported file.
        spec: of the network graph.
        images: how many.
    """
    worst = 0.0
    with open_engine(path) as engine, torch.inference_mode():
        deploy = engine.spec.graph == "deploy"
        size = preprocess.frame_size(engine.spec) if deploy else spec.size
        for seed in range(images):
            image = random_image(size, seed)
            raw = network(torch.from_numpy(preprocess.prepare(image, spec))).numpy()
            answer = engine.infer(preprocess.prepare(image, engine.spec))
            if deploy:
                raw = preprocess.finish(raw, image.shape[:2], spec)[0]
                worst = max(worst, _relative(answer[0, 0], raw, spec.depth_range_m[0]))
            else:
                worst = max(worst, _relative(answer, raw, spec.prediction_range[0]))
    return worst


def _relative(
    answer: NDArray[np.float32], reference: NDArray[np.float32], smallest: float
) -> float:
    """Return the largest |difference| over |reference|, at least ``smallest`` in the range.

    NaN on either side counts as infinitely far.
    """
    if not (np.isfinite(answer).all() and np.isfinite(reference).all()):
        return float("inf")
    size = np.abs(reference.astype(np.float64))
    floor = min(smallest, float(size.max())) or 1.0
    return float((np.abs(answer - reference.astype(np.float64)) / np.maximum(size, floor)).max())


def random_image(size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8: noise of many scales, as rough and as smooth as photographs are."""
    import cv2

    rng = np.random.default_rng(seed)
    height, width = size
    image = np.zeros((height, width, 3))
    for cells in (2, 5, 16, 64):
        coarse = rng.normal(size=(cells, 2 * cells, 3))
        field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        image += np.asarray(field, np.float64) / cells**0.4
    image += 0.1 * rng.normal(size=image.shape)
    return np.clip(128 + 50 * image, 0, 255).astype(np.uint8)
