"""The two graphs of a model: the network alone, and all between a frame and metric depth."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from msfnet_runtime import ModelSpec, TensorSpec
from msfnet_train.recipe import IMAGENET_MEAN, IMAGENET_STD


class DeployGraph(nn.Module):
    """Frame (1, H, W, 3) uint8 RGB to depth (1, 1, H, W) float32 metres.

    The arithmetic of :mod:`msfnet_runtime.preprocess`, inside the graph: cast, transpose, resize,
    normalise, network, clamp, reciprocal for inverse depth, resize back. The cast comes first:
    TensorRT does not transpose uint8.

    Args:
        network: the lowered network.
        spec: of the deploy graph.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values).mul(255).reshape(1, 3, 1, 1))

    def forward(self, frame: Tensor) -> Tensor:
        """Return the depth of one frame."""
        image = frame.to(torch.float32).permute(0, 3, 1, 2)
        frame_size = (int(image.shape[-2]), int(image.shape[-1]))
        prediction = self.network((_resize(image, self.spec.size) - self.mean) / self.std)
        depth = prediction.clamp(*self.spec.prediction_range)
        if self.spec.depth_kind == "inverse":
            depth = self.spec.inverse_scale / depth
        return _resize(depth, frame_size)


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
        outputs=(TensorSpec("depth", "float32", (1, 1, height, width)),),
    )


def default_spec(network: nn.Module) -> ModelSpec:
    """Return the spec of a network about which nothing else is known: metric, 0.1 to 100 m."""
    config = getattr(network, "config", None)
    return ModelSpec(
        graph="network",
        inputs=(),
        outputs=(),
        size=(0, 0),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        depth_kind="metric",
        depth_range_m=(0.1, 100.0),
        dataset="unknown",
        encoder=str(getattr(config, "encoder", "unknown")),
    )
