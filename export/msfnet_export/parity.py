"""Compares an exported graph with PyTorch: on random and real frames, at sizes, by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

from msfnet_calibration.onnx_files import load_model
from msfnet_calibration.ranges import open_probe
from msfnet_export.graphs import STEP
from msfnet_export.tracing import recorded
from msfnet_runtime import Frame, ModelSpec, MsfnetError, open_engine, preprocess
from msfnet_runtime.onnx_metadata import read_onnx_spec
from msfnet_runtime.words import counted
from msfnet_train.recipe import at_size

TOLERANCE = 1e-4
"""Largest relative difference from PyTorch that an FP32 export may show."""

RANDOM_IMAGES = 3

_BATCHES = (2, 3)
"""Batch sizes, besides one, at which a dynamic batch is compared."""


@dataclass(frozen=True)
class Parity:
    """The largest difference of a graph from PyTorch, and the images it was measured on."""

    difference: float
    """The largest |difference| over |prediction|, or over the smallest prediction that stands for
    a depth within the model's range where the prediction lies below that."""
    random_images: int
    frames: int
    """Real frames."""
    shapes: tuple[tuple[int, ...], ...]
    """The shapes of the inputs compared, each once."""

    def text(self) -> str:
        """Return the comparison in one line."""
        shapes = ", ".join("x".join(map(str, shape)) for shape in self.shapes)
        frames = f" and {counted(self.frames, 'frame')}" if self.frames else ""
        return (
            f"max relative difference {self.difference:.1e} over {self.random_images} random "
            f"images{frames}, input {shapes}"
        )


@dataclass(frozen=True)
class BlockParity:
    """The difference of one block's value from PyTorch's."""

    name: str
    difference: float
    """Largest |difference| over the block's largest |value|."""


def compare_with_pytorch(
    network: nn.Module, path: Path, spec: ModelSpec, frames: Sequence[Frame] = ()
) -> Parity:
    """Compare an ONNX file with PyTorch on random images and on frames.

    A deploy graph is compared with the runtime's own preparation and finishing around PyTorch. A
    dynamic graph is run at several sizes and batches.

    Args:
        network: in evaluation mode.
        path: the exported file.
        spec: of the network graph.
        frames: real frames to compare on as well.
    """
    worst = 0.0
    shapes: dict[tuple[int, ...], None] = {}
    with open_engine(path) as engine, torch.inference_mode():
        for images, at in _cases(engine.spec, spec, frames):
            prepared = engine.spec if engine.spec.graph == "deploy" else at
            batch = np.concatenate([preprocess.prepare(image, prepared) for image in images])
            inputs = np.concatenate([preprocess.prepare(image, at) for image in images])
            raw = network(torch.from_numpy(inputs)).numpy()
            try:
                answer = engine.infer(batch)
            except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no base class
                raise MsfnetError(
                    f"the exported graph does not run at {batch.shape}: "
                    f"{' '.join(str(error).split())[:200]}; it was not written"
                ) from None
            worst = max(worst, _case(answer, raw, images, engine.spec, at))
            shapes[batch.shape] = None
    return Parity(worst, RANDOM_IMAGES, len(frames), tuple(shapes))


def _case(
    answer: NDArray[np.float32],
    raw: NDArray[np.float32],
    images: Sequence[NDArray[np.uint8]],
    graph_spec: ModelSpec,
    spec: ModelSpec,
) -> float:
    """Return the difference of one batch."""
    if graph_spec.graph == "network":
        return relative_difference(answer, raw, spec.prediction_range[0])
    depth = [
        preprocess.finish(one[None], image.shape[:2], spec)[0]
        for one, image in zip(raw, images, strict=True)
    ]
    return relative_difference(answer[:, 0], np.stack(depth), spec.depth_range_m[0])


def _cases(
    graph_spec: ModelSpec, spec: ModelSpec, frames: Sequence[Frame]
) -> Iterator[tuple[list[NDArray[np.uint8]], ModelSpec]]:
    """Yield the images of every batch, and the network's spec at their size."""
    deploy = graph_spec.graph == "deploy"
    size = preprocess.frame_size(graph_spec) if deploy else spec.size
    for seed in range(RANDOM_IMAGES):
        yield [random_image(size, seed)], spec
    for frame in frames:
        yield [preprocess.resize_bilinear(frame.image, size)], spec
    if "height" in graph_spec.inputs[0].shape:
        for other in other_sizes(size):
            yield [random_image(other, 0)], at_size(spec, other)
    if "batch" in graph_spec.inputs[0].shape:
        for count in _BATCHES:
            yield [random_image(size, seed) for seed in range(count)], spec


def other_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return sizes at which a graph of dynamic size is compared: larger, smaller, upright."""
    height, width = size
    return [(height + STEP, width + 2 * STEP), (2 * STEP, 3 * STEP), (5 * STEP, 3 * STEP)]


def relative_difference(
    answer: NDArray[np.float32], reference: NDArray[np.float32], smallest: float
) -> float:
    """Return the largest |difference| over |reference|, at least ``smallest`` in the range.

    NaN on either side, and another shape, are an infinite difference.
    """
    if answer.shape != reference.shape:
        return float("inf")
    if not (np.isfinite(answer).all() and np.isfinite(reference).all()):
        return float("inf")
    size = np.abs(reference.astype(np.float64))
    floor = min(smallest, float(size.max())) or 1.0
    return float((np.abs(answer - reference.astype(np.float64)) / np.maximum(size, floor)).max())


def compare_blocks(
    network: nn.Module, path: Path, spec: ModelSpec, names: Sequence[str]
) -> list[BlockParity]:
    """Compare the value of every block with PyTorch's, on one random image, in running order.

    Args:
        network: in evaluation mode.
        path: the exported file.
        spec: of the network graph.
        names: the values an export keeps, see :func:`msfnet_export.tracing.trace`.
    """
    model, graph_spec = load_model(path), read_onnx_spec(path)
    values = ir.convenience.create_value_mapping(model.graph)
    kept = [name for name in names if name in values]
    deploy = graph_spec.graph == "deploy"
    image = random_image(preprocess.frame_size(graph_spec) if deploy else spec.size, 0)
    with open_probe(model, kept) as run:
        answers = run(preprocess.prepare(image, graph_spec))
    with recorded(network) as reference, torch.inference_mode():
        network(torch.from_numpy(preprocess.prepare(image, spec)))
        expected = {name: value.numpy() for name, value in reference.items()}
    return [BlockParity(name, _block_difference(answers[name], expected[name])) for name in kept]


def _block_difference(answer: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Return the largest |difference| over the largest |reference|."""
    return relative_difference(answer, reference, float(np.abs(reference).max()))


def random_image(size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8: noise of many scales, with the spectrum of photographs."""
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
