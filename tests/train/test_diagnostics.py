"""Does EDA's channel minimum carry anything?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msfnet_train import MSFNet, NetworkConfig
from msfnet_train.diagnostics import ZeroMinimum, minimum_sentence


def network(**changes: object) -> MSFNet:
    """Return an untrained light network in evaluation mode."""
    torch.manual_seed(5)
    config = NetworkConfig(
        **{"encoder": "resnet18", "pretrained": False, "decoder_width": 0.0625, **changes}  # type: ignore[arg-type]
    )
    return MSFNet(config).eval()


def share_of(net: MSFNet, images: torch.Tensor) -> float | None:
    """Return the share of zero minima over the images."""
    counter = ZeroMinimum()
    with torch.no_grad(), counter.watch(net):
        net(images)
    return counter.share


def test_a_relu_hides_the_minimum_and_the_projection_shows_it(rng: np.random.Generator) -> None:
    """The literal reading collapses into CBAM-S; the default does not."""
    images = torch.from_numpy(rng.normal(size=(2, 3, 64, 96)).astype(np.float32))

    literal, default = (share_of(network(eda_input=i), images) for i in ("stage", "projection"))

    assert literal is not None
    assert default is not None
    assert literal > 0.9
    assert default == 0
    assert "acts as CBAM-S" in minimum_sentence(literal)
    assert "CBAM-S" not in minimum_sentence(default)


def test_the_share_is_that_of_the_pools_input(rng: np.random.Generator) -> None:
    """Counted over several passes, against NumPy on the very features."""
    net = network(eda_input="stage")
    assert net.eda is not None
    seen: list[np.ndarray] = []
    handle = net.encoder.register_forward_hook(lambda m, i, out: seen.append(out[2].numpy().copy()))
    counter = ZeroMinimum()
    with torch.no_grad(), counter.watch(net):
        for size in ((1, 3, 64, 96), (2, 3, 96, 64)):
            net(torch.from_numpy(rng.normal(size=size).astype(np.float32)))
    handle.remove()

    zero = [features.min(axis=1).ravel() == 0 for features in seen]
    assert counter.share == pytest.approx(np.concatenate(zero).mean())


@pytest.mark.parametrize("attention", ["cbam_s", "none"])
def test_without_eda_there_is_no_minimum(rng: np.random.Generator, attention: str) -> None:
    """And nothing is counted outside the block."""
    images = torch.from_numpy(rng.normal(size=(1, 3, 64, 64)).astype(np.float32))
    counter, net = ZeroMinimum(), network()
    with counter.watch(net):
        pass
    net(images)

    assert share_of(network(attention=attention), images) is None
    assert counter.share is None
