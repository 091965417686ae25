"""Tests of the counter of zero channel minima, which shows whether EDA works as Eq. 2 means."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msfnet_train import MSFNet, NetworkConfig
from msfnet_train.module import ZeroMinimum
from msfnet_train.run import describe_zero_minimum


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


def test_the_minimum_is_zero_after_a_relu_and_not_after_the_projection(
    rng: np.random.Generator,
) -> None:
    """EDA on raw stage 3 equals CBAM-S and the report says so; the default does not."""
    images = torch.from_numpy(rng.normal(size=(2, 3, 64, 96)).astype(np.float32))

    literal, default = (share_of(network(eda_input=i), images) for i in ("stage", "projection"))

    assert literal is not None
    assert default is not None
    assert literal > 0.9
    assert default == 0
    assert "acts as CBAM-S" in describe_zero_minimum(literal)
    assert "CBAM-S" not in describe_zero_minimum(default)


def test_the_share_equals_numpys_on_the_same_features(rng: np.random.Generator) -> None:
    """Several forward passes of different sizes are counted together."""
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
def test_nothing_is_counted_without_eda(rng: np.random.Generator, attention: str) -> None:
    """Nor outside the ``with`` block."""
    images = torch.from_numpy(rng.normal(size=(1, 3, 64, 64)).astype(np.float32))
    counter, net = ZeroMinimum(), network()
    with counter.watch(net):
        pass
    net(images)

    assert share_of(network(attention=attention), images) is None
    assert counter.share is None
