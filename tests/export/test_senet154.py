"""The paper's own encoder, at the size of a small deployment; slow, because it is large."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from msfnet_export import build_engine, export_network
from msfnet_train import MSFNet, NetworkConfig


@pytest.mark.slow
def test_senet154_exports_exactly_and_builds_for_two_architectures(tmp_path: Path) -> None:
    """135 M parameters at 224x320: within 1e-4 of PyTorch, and TensorRT for RTX takes it."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    torch.manual_seed(0)
    network = MSFNet(NetworkConfig(encoder="legacy_senet154", pretrained=False))

    report = export_network(network, tmp_path / "senet154.onnx", size=(224, 320))
    engine = build_engine(
        report.artifact.path, tmp_path / "senet154.engine", architectures=("sm86", "sm89")
    )
    print(report.text(), engine)

    assert report.max_relative_difference < 1e-4
    assert 130e6 < report.parameters < 140e6
    assert engine.architectures == ("sm86", "sm89")
