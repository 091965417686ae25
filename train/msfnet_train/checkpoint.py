"""Reads and writes checkpoints: weights with everything needed to run or to resume them.

Training and all other stages use one format: a ``torch.save`` file of tensors and plain values
only (it is read with ``weights_only``). The network's weights are under ``state_dict`` as
``network.*``; recipe, spec and data fingerprint are under ``msfnet``.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from msfnet_runtime import ModelSpec, MsfnetError
from msfnet_runtime.files import atomic_path, sha256
from msfnet_train.network import MSFNet
from msfnet_train.recipe import Recipe

KEY = "msfnet"
"""Key of this project's part of the file."""

FORMAT = 1

_UNREADABLE = (
    *(RuntimeError, pickle.UnpicklingError, EOFError, struct.error),
    *(ValueError, KeyError, IndexError, AttributeError, TypeError, AssertionError),
)
"""Exceptions that unpickling arbitrary bytes raises."""

PREFIX = "network."
"""Prefix of the network's weights in ``state_dict``."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and its origin."""

    network: MSFNet
    """The network in evaluation mode, on the CPU."""
    spec: ModelSpec
    """Describes the network graph at the recipe's inference size."""
    recipe: Recipe
    """The recipe it was trained with."""


def describe(recipe: Recipe, data: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return everything that a checkpoint holds beside its weights.

    Args:
        recipe: the recipe of the training.
        data: fingerprint of the training data; None for weights that were not trained here.
    """
    spec = replace(recipe.spec(), git_revision=git_revision())
    return {
        "format": FORMAT,
        "recipe": recipe.to_dict(),
        "spec": spec.to_json(),
        "data": dict(data or {}),
    }


def save_checkpoint(path: str | os.PathLike[str], network: MSFNet, recipe: Recipe) -> None:
    """Write a network's weights with their recipe.

    Raises:
        MsfnetError: the file cannot be written.
    """
    weights = {PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    with atomic_path(path) as partial:
        torch.save({"state_dict": weights, KEY: describe(recipe)}, partial)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint written by training or :func:`save_checkpoint`.

    Raises:
        MsfnetError: the file is missing, corrupt, not an msfnet checkpoint, or of another format.
    """
    content = read_checkpoint(path)
    recipe = Recipe.from_dict(content[KEY]["recipe"], f"of {path}")
    network = MSFNet(replace(recipe.network, pretrained=False))
    weights = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in content["state_dict"].items()
        if name.startswith(PREFIX)
    }
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        raise MsfnetError(
            f"{path}: the weights do not fit the network its recipe describes; train again"
        ) from None
    spec = ModelSpec.from_json(content[KEY]["spec"])
    return Checkpoint(network.eval(), replace(spec, checkpoint_sha256=sha256(path)), recipe)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a checkpoint's content; only tensors and plain values are unpickled.

    Raises:
        MsfnetError: as :func:`load_checkpoint`.
    """
    try:
        content: dict[str, Any] = torch.load(Path(path), map_location="cpu", weights_only=True)
    except OSError as error:
        raise MsfnetError(f"cannot read {path}: {error.strerror}; check the path") from None
    except _UNREADABLE:
        raise MsfnetError(
            f"{path} is corrupt or not a checkpoint; name the .ckpt file of a training run, or "
            "copy it again"
        ) from None
    ours = content.get(KEY) if isinstance(content, dict) else None
    if not (isinstance(ours, dict) and isinstance(content.get("state_dict"), dict)):
        raise MsfnetError(f"{path} is not an msfnet checkpoint; make one with: msfnet train")
    if ours.get("format") != FORMAT:
        raise MsfnetError(
            f"{path} has checkpoint format {ours.get('format')}, but this version of msfnet reads "
            f"{FORMAT}; update msfnet or train again"
        )
    return content


def git_revision() -> str:
    """Return the commit of this code; an empty string outside its repository."""
    here = Path(__file__).resolve()
    try:
        for command in (["ls-files", "--error-unmatch", here.name], ["rev-parse", "HEAD"]):
            answer = subprocess.run(
                ["git", "-C", str(here.parent), *command],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer
