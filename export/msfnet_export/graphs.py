"""The two graphs of a model: the network alone, and everything from frame to metric depth."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from msfnet_export.export_options import Dynamic
from msfnet_runtime import ModelSpec, MsfnetError, TensorSpec
from msfnet_train.pretrained import normalisation

STEP = 32
"""Pixels: sides of inputs of a graph of dynamic size are multiples of it."""


class DeployGraph(nn.Module):
    """Frame (N, H, W, 3) uint8 RGB to depth (N, 1, H, W) float32 metres.

    The arithmetic of :mod:`msfnet_runtime.preprocess`, inside the graph.

    Args:
        network: the lowered network.
        spec: of the deploy graph.
    """

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.prepare = Prepare(spec)
        self.network = network
        self.finish = Finish(spec)

    def forward(self, frame: Tensor) -> Tensor:
        """Return the depth of the frames."""
        depth: Tensor = self.finish(self.network(self.prepare(frame)))
        return depth


class Prepare(nn.Module):
    """Cast, transpose, resize, normalise. The cast comes first: TensorRT transposes no uint8."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.size = spec.size
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values).mul(255).reshape(1, 3, 1, 1))

    def forward(self, frame: Tensor) -> Tensor:
        """Map (N, H, W, 3) uint8 to (N, 3, h, w) float32, normalised."""
        image = frame.to(torch.float32).permute(0, 3, 1, 2)
        return (_resize(image, self.size) - self.mean) / self.std


class Finish(nn.Module):
    """Clamp, reciprocal for inverse depth, resize back."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        height, width = spec.inputs[0].shape[1:3]
        self.frame_size = int(height), int(width)

    def forward(self, prediction: Tensor) -> Tensor:
        """Map (N, 1, h/2, w/2) raw to (N, 1, H, W) metres."""
        depth = prediction.clamp(*self.spec.prediction_range)
        if self.spec.depth_kind == "inverse":
            depth = self.spec.inverse_scale / depth
        return _resize(depth, self.frame_size)


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image.shape[-2:]) == size:
        return image
    return functional.interpolate(image, size=size, mode="bilinear", align_corners=False)


def at_frame_size(spec: ModelSpec, size: tuple[int, int]) -> ModelSpec:
    """Return the spec of the deploy graph for frames of (height, width) pixels."""
    height, width = size
    return replace(
        spec,
        graph="deploy",
        inputs=(TensorSpec("frame", "uint8", (1, height, width, 3)),),
        outputs=(TensorSpec("depth", "float32", (1, 1, height, width), "depth"),),
    )


def with_dynamic(spec: ModelSpec, dynamic: Collection[Dynamic]) -> ModelSpec:
    """Return the spec of a graph whose batch, or height and width, are symbols.

    Raises:
        MsfnetError: an unknown word, or a size that this graph cannot leave open.
    """
    for word in dynamic:
        if word not in ("batch", "size"):
            raise MsfnetError(
                f"unknown dynamic dimension {word!r}; choose batch, size or both",
                parameter="dynamic",
            )
    if "size" in dynamic and spec.graph == "deploy":
        raise MsfnetError(
            "a deploy graph brings every frame to one network size, so its size cannot be "
            "dynamic; export the network graph",
            parameter="graph",
        )
    if "size" in dynamic and any(side % STEP for side in spec.size):
        raise MsfnetError(
            f"a graph of dynamic size takes multiples of {STEP}, not {spec.size[0]}x"
            f"{spec.size[1]}: elsewhere pooling ratios are fractions; choose another size",
            parameter="size",
        )
    (source,), (result,) = spec.inputs, spec.outputs
    before, after = list(source.shape), list(result.shape)
    if "batch" in dynamic:
        before[0] = after[0] = "batch"
    if "size" in dynamic:
        before[2:], after[2:] = ["height", "width"], ["height/2", "width/2"]
    return replace(
        spec,
        inputs=(replace(source, shape=tuple(before)),),
        outputs=(replace(result, shape=tuple(after)),),
    )


def default_spec(network: nn.Module, size: tuple[int, int]) -> ModelSpec:
    """Return the spec of a network without one: metric depth, 0.1 to 100 m.

    Args:
        network: the network.
        size: (height, width) of its input, pixels.
    """
    encoder = str(getattr(getattr(network, "config", None), "encoder", "unknown"))
    mean, std = normalisation(encoder)
    return ModelSpec(
        graph="network",
        inputs=(),
        outputs=(),
        size=size,
        mean=mean,
        std=std,
        depth_kind="metric",
        depth_range_m=(0.1, 100.0),
        dataset="unknown",
        encoder=encoder,
    )
