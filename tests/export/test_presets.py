"""The presets export at the size they were measured at, and are as small as documented."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import pytest
import torch

from msfnet_export import export_network
from msfnet_export.parity import random_image
from msfnet_runtime import open_engine
from msfnet_runtime.preprocess import prepare
from msfnet_train import MSFNet
from msfnet_train.network import PRESETS

SIZE = (192, 256)
"""The size that docs/measurements.md measures the presets at."""

MOST_MACS: Mapping[str, float] = MappingProxyType({"lite": 0.78e9, "nano": 0.28e9})
"""Multiplications at :data:`SIZE` that docs/measurements.md states, rounded up."""


def count_macs(path: Path) -> int:
    """Count the MACs of an ONNX file's convolutions from weights and inferred shapes."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    kernels = {tensor.name: tensor.dims for tensor in graph.initializer}
    grids = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    assert {node.op_type for node in graph.node}.isdisjoint({"Gemm", "MatMul", "ConvTranspose"})
    return sum(
        prod(grids[node.output[0]]) * prod(kernels[node.input[1]][1:])
        for node in graph.node
        if node.op_type == "Conv"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MOST_MACS))
def test_a_preset_exports_as_small_as_documented(tmp_path: Path, name: str) -> None:
    """Equal to PyTorch on an image that the export has not compared; GMAC as documented."""
    torch.manual_seed(0)
    network = MSFNet(replace(PRESETS[name], pretrained=False)).eval()

    report = export_network(network, tmp_path / "model.onnx", size=SIZE)

    macs = count_macs(report.artifact.path)
    assert report.macs == macs
    assert 0.9 * MOST_MACS[name] < macs < MOST_MACS[name]
    image = prepare(random_image(SIZE, seed=79), report.artifact.spec)
    with open_engine(report.artifact.path) as engine, torch.inference_mode():
        answer, expected = engine.infer(image), network(torch.from_numpy(image)).numpy()
    assert answer.shape == (1, 1, 96, 128)
    assert answer.std() > 0
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
