"""The paper's own encoder, at the size of a small deployment; slow, because it is large."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from msfnet_export import build_engine, export_network
from msfnet_export.build_options import BuildOptions
from msfnet_train import MSFNet, NetworkConfig


@pytest.mark.slow
def test_senet154_exports_exactly_and_builds_for_two_architectures(tmp_path: Path) -> None:
    """135 M parameters at the paper's size: within 90 s and 8 GB, and TensorRT for RTX takes it."""
    resource = pytest.importorskip("resource", reason="only Unix tells memory use")
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    torch.manual_seed(0)
    network = MSFNet(NetworkConfig(encoder="legacy_senet154", pretrained=False))

    report = export_network(network, tmp_path / "senet154.onnx", size=(228, 304))
    engine = build_engine(
        report.artifact.path,
        tmp_path / "senet154.engine",
        options=BuildOptions(architectures=("sm86", "sm89")),
    )
    print(report.text(), engine)

    assert report.max_relative_difference < 1e-4
    assert report.seconds < 90
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8e6, "kB; counts the build as well"
    assert 130e6 < report.parameters < 140e6
    assert engine.architectures == ("sm86", "sm89")
