"""Specs for tests: one of each graph, small and plausible."""

from __future__ import annotations

from dataclasses import replace

from msfnet_runtime import ModelSpec, TensorSpec


def network_spec(height: int = 32, width: int = 64, **changes: object) -> ModelSpec:
    """Return the spec of a metric network graph with input (1, 3, height, width)."""
    spec = ModelSpec(
        graph="network",
        inputs=(TensorSpec("image", "float32", (1, 3, height, width)),),
        outputs=(
            TensorSpec("prediction", "float32", (1, 1, -(-height // 2), -(-width // 2)), "depth"),
        ),
        size=(height, width),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        depth_kind="metric",
        depth_range_m=(0.5, 80.0),
        dataset="test",
        encoder="none",
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


def deploy_spec(height: int = 48, width: int = 80, **changes: object) -> ModelSpec:
    """Return the spec of a deploy graph for frames of (height, width)."""
    spec = replace(
        network_spec(),
        graph="deploy",
        inputs=(TensorSpec("frame", "uint8", (1, height, width, 3)),),
        outputs=(TensorSpec("depth", "float32", (1, 1, height, width), "depth"),),
    )
    return replace(spec, **changes)  # type: ignore[arg-type]
