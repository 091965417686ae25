"""Holds an engine's manifest against this machine before anything is deserialised.

TensorRT itself answers a foreign engine with an error code at best.
"""

from __future__ import annotations

import platform
import sys

from msfnet_runtime.artifacts import EngineArtifact
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import sha256


def this_platform() -> str:
    """Name the operating system and processor, as manifests do: ``linux-x86_64``."""
    return f"{sys.platform}-{platform.machine()}"


def preflight(artifact: EngineArtifact, version: str) -> None:
    """Check what can be checked without a GPU: platform, library version, the file itself.

    Raises:
        MsfnetError: what does not fit, and the command that rebuilds the engine.
    """
    again = rebuild_command(artifact)
    if artifact.platform != this_platform():
        raise MsfnetError(
            f"{artifact.path} was built for {artifact.platform}, this is {this_platform()}; {again}"
        )
    if artifact.version != version:
        raise MsfnetError(
            f"{artifact.path} was built by {artifact.flavour} {artifact.version}, "
            f"{version} is installed here; {again}"
        )
    if artifact.path.stat().st_size != artifact.bytes or (
        sha256(artifact.path) != artifact.engine_sha256
    ):
        raise MsfnetError(f"{artifact.path} is not the file its manifest describes; {again}")


def check_fixed(artifact: EngineArtifact) -> None:
    """Check that every dimension is a number: memory is reserved once.

    Raises:
        MsfnetError: one is not; with the way out.
    """
    for tensor in (*artifact.spec.inputs, *artifact.spec.outputs):
        if not all(isinstance(dimension, int) for dimension in tensor.shape):
            raise MsfnetError(
                f"{artifact.path} was built from a dynamic graph ({tensor.name} is "
                f"{'x'.join(map(str, tensor.shape))}), which msfnet runs as ONNX only; run the "
                ".onnx file, or export without --dynamic and build again"
            )


def check_architecture(artifact: EngineArtifact, architecture: str) -> None:
    """Check that the engine holds code for the GPU at hand (``sm86``).

    Raises:
        MsfnetError: it does not; with the command that adds it.
    """
    if architecture not in artifact.architectures:
        raise MsfnetError(
            f"{artifact.path} was built for {', '.join(artifact.architectures)}, this GPU is "
            f"{architecture}; {rebuild_command(artifact)} --arch {architecture}"
        )


def rebuild_command(artifact: EngineArtifact) -> str:
    """Return the words that say how to build an engine again."""
    return (
        f"rebuild it with `msfnet build MODEL.onnx {artifact.path.name} "
        f"--flavour {artifact.flavour}`"
    )
