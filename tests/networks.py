"""A light MSFNet with seeded weights, and its exports, made once per test run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from msfnet_export import ExportReport, export_network
from msfnet_train import MSFNet, NetworkConfig
from tests.specs import network_spec

NETWORK_SIZE = (76, 100)
"""Neither side is a multiple of 32: pooling ratios are fractions."""

DEPLOY_SIZE = (64, 96)
FRAME_SIZE = (97, 131)

FORBIDDEN = {
    *("ArgMax", "ArgMin", "TopK", "Gather", "GatherND", "Where", "Transpose"),
    *("NonZero", "Loop", "If", "Shape", "Expand", "Identity", "BatchNormalization"),
}
"""What a careless export of pooling, shuffles and minima leaves in the graph."""


def light_network(**changes: object) -> MSFNet:
    """Return an MSFNet in evaluation mode whose answers lie around 5, norms' statistics moved."""
    torch.manual_seed(2026)
    config = NetworkConfig(
        encoder="mobilenetv3_small_100",
        pretrained=False,
        decoder_width=0.125,
        usf_width=8,
        usf_output=16,
        **changes,  # type: ignore[arg-type]
    )
    network = MSFNet(config)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    torch.nn.init.constant_(network.decoder.head.bias, 5.0)  # type: ignore[arg-type]
    return network.eval()


class Strided(nn.Module):
    """The smallest network: one strided convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 1, 3, stride=2, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 1, H/2, W/2)."""
        output: Tensor = self.conv(image)
        return output


@dataclass(frozen=True)
class Exports:
    """A network and what its exports reported."""

    network: MSFNet
    plain: ExportReport
    """``network`` graph at :data:`NETWORK_SIZE`."""
    deploy: ExportReport
    """``deploy`` graph at :data:`DEPLOY_SIZE` for frames of :data:`FRAME_SIZE`, inverse depth."""


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Export the light network both ways."""
    folder: Path = tmp_path_factory.mktemp("exports")
    network = light_network()
    spec = network_spec(depth_kind="inverse", inverse_scale=10.0, depth_range_m=(0.1, 10.0))
    return Exports(
        network,
        export_network(network, folder / "network.onnx", size=NETWORK_SIZE, spec=spec),
        export_network(
            network,
            folder / "deploy.onnx",
            size=DEPLOY_SIZE,
            graph="deploy",
            frame_size=FRAME_SIZE,
            spec=spec,
        ),
    )
