"""Reads and writes checkpoints: weights with everything needed to run or to resume them.

Training and all other stages use one format: a ``torch.save`` file of tensors and plain values
only (it is read with ``weights_only``). The network's weights are under ``state_dict`` as
``network.*``; recipe, spec and data fingerprint are under ``msfnet``.
"""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from msfnet_runtime import ModelSpec, MsfnetError
from msfnet_runtime.files import atomic_path, cannot_write, existing_file, sha256
from msfnet_runtime.typed import build
from msfnet_train.network import MSFNet
from msfnet_train.pretrained import UNREADABLE
from msfnet_train.recipe import Recipe

KEY = "msfnet"
"""Key of this project's part of the file."""

FORMAT = 1

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
    write_checkpoint(path, {"state_dict": weights, KEY: describe(recipe)})


def write_checkpoint(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all.

    Raises:
        MsfnetError: the file cannot be written.
    """
    try:
        with atomic_path(path) as partial, partial.open("wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        if cause := _system_error(error):
            raise cannot_write(Path(path), cause) from None
        raise


def _system_error(error: BaseException | None) -> OSError | None:
    """Return the system's error that PyTorch's writer answered with one of its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint written by training or :func:`save_checkpoint`.

    Raises:
        MsfnetError: the file is missing, corrupt, not an msfnet checkpoint, or of another format.
    """
    content = read_checkpoint(path)
    recipe = content.recipe
    weights = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in content.weights.items()
        if name.startswith(PREFIX)
    }
    config = replace(recipe.network, pretrained=False)
    with torch.device("meta"):  # shapes alone: a recipe must not reserve what the file cannot fill
        expected = {name: tensor.shape for name, tensor in MSFNet(config).state_dict().items()}
    if expected != {name: tensor.shape for name, tensor in weights.items()}:
        raise MsfnetError(
            f"{path}: the weights do not fit the network its recipe describes; train again"
        )
    network = MSFNet(config)
    network.load_state_dict(weights)
    spec = replace(content.spec, checkpoint_sha256=sha256(path))
    return Checkpoint(network.eval(), spec, recipe)


@dataclass(frozen=True)
class CheckpointContent:
    """What a checkpoint file holds, read and checked."""

    weights: Mapping[str, torch.Tensor]
    """``state_dict``."""
    recipe: Recipe
    spec: ModelSpec
    data: Mapping[str, Any]
    """Fingerprint of the training data; empty for weights that were not trained here."""
    epochs: int
    """Finished epochs; 0 for weights that were not trained here."""


@dataclass(frozen=True)
class _Description:
    """This project's part of the file."""

    format: int
    recipe: Mapping[str, Any]
    spec: str
    data: Mapping[str, Any]


def read_checkpoint(path: str | os.PathLike[str]) -> CheckpointContent:
    """Read a checkpoint; only tensors and plain values are unpickled, and no network is built.

    Raises:
        MsfnetError: as :func:`load_checkpoint`.
    """
    source = os.fspath(path)
    content = _load(path)
    ours = content.get(KEY) if isinstance(content, dict) else None
    weights = content.get("state_dict") if isinstance(content, dict) else None
    if not (isinstance(ours, dict) and isinstance(weights, dict)):
        raise MsfnetError(f"{path} is not an msfnet checkpoint; make one with: msfnet train")
    if ours.get("format") != FORMAT:
        raise MsfnetError(
            f"{path} has checkpoint format {ours.get('format')}, but this version of msfnet reads "
            f"{FORMAT}; update msfnet or train again"
        )
    if not all(isinstance(name, str) and _is_weight(value) for name, value in weights.items()):
        raise MsfnetError(f"{path} has weights that are not tensors with names; train again")
    described = build(_Description, ours, source)
    epoch = content.get("epoch", -1)
    return CheckpointContent(
        weights,
        Recipe.from_dict(described.recipe, f"of {path}"),
        ModelSpec.from_json(described.spec),
        described.data,
        epoch + 1 if isinstance(epoch, int) else 0,
    )


def _is_weight(value: object) -> bool:
    """Return whether a value is a tensor whose real numbers are in the file."""
    return (
        isinstance(value, torch.Tensor)
        and value.device.type == "cpu"
        and value.layout == torch.strided
        and not value.is_complex()
    )


def _load(path: str | os.PathLike[str]) -> Any:
    """Return what is pickled in a file.

    PyTorch stores its values as they are; a compressed file could fill the memory.
    """
    existing = existing_file(path, "checkpoint")
    try:
        with zipfile.ZipFile(existing) as file:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist()):
                raise zipfile.BadZipFile
        return torch.load(existing, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise MsfnetError(f"cannot read {path}: {error.strerror}; check the path") from None
    except (zipfile.BadZipFile, *UNREADABLE):
        raise MsfnetError(
            f"{path} is corrupt or not a checkpoint; name the .ckpt file of a training run, or "
            "copy it again"
        ) from None


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
