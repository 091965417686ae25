"""Compares an engine's manifest with this machine before the engine is deserialised.

TensorRT reports an engine of another machine by an error code at most. This module does not use
TensorRT or CUDA: the caller passes what is installed.
"""

from __future__ import annotations

import platform
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from msfnet_runtime.artifacts import EngineArtifact, model_files
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import sha256


def this_platform() -> str:
    """Return operating system and processor in the form of manifests: ``linux-x86_64``."""
    return f"{sys.platform}-{platform.machine()}"


def preflight(artifact: EngineArtifact, version: str, architecture: str | None = None) -> None:
    """Check everything that can be checked before the engine is deserialised.

    Args:
        artifact: the engine's manifest.
        version: version of the installed library of the engine's flavour.
        architecture: compute capability of the GPU (``sm86``); None skips the check.

    Raises:
        MsfnetError: the engine does not fit; with the command that rebuilds it.
    """
    if artifact.platform != this_platform():
        raise _unfit(artifact, f"was built for {artifact.platform}, this is {this_platform()}")
    if not _loads(artifact, version):
        built = f"{artifact.flavour} {artifact.version}"
        raise _unfit(artifact, f"was built by {built}, {version} is installed here")
    if architecture is not None:
        check_architecture(artifact, architecture)
    if artifact.options.get("strip_weights"):
        fault = "contains no weights, and msfnet cannot restore them"
        raise _unfit(artifact, fault, strip_weights=False)
    check_files(artifact)


def check_files(artifact: EngineArtifact) -> None:
    """Check that the engine is complete, and its ONNX file unchanged if it is beside it.

    Raises:
        MsfnetError: one of them differs from the manifest; with the command that rebuilds the
            engine.
    """
    differs = "is not the file that its manifest describes"
    size = artifact.path.stat().st_size
    if size != artifact.bytes:
        raise _unfit(artifact, f"{differs}: it has {size} bytes instead of {artifact.bytes}")
    if sha256(artifact.path) != artifact.engine_sha256:
        raise _unfit(artifact, f"{differs}: its SHA-256 differs")
    model = artifact.path.with_name(artifact.onnx_file)
    files = model_files(model, artifact.spec)
    if all(file.is_file() for file in files) and sha256(*files) != artifact.onnx_sha256:
        raise MsfnetError(
            f"{model} is not the file that {artifact.path.name} was built from: its SHA-256 "
            f"differs; {rebuild_command(artifact)}"
        )


def _unfit(artifact: EngineArtifact, fault: str, **changes: Any) -> MsfnetError:
    """Return the error of an engine that does not fit, with :func:`rebuild_command`."""
    return MsfnetError(f"{artifact.path} {fault}; {rebuild_command(artifact, **changes)}")


def _loads(artifact: EngineArtifact, version: str) -> bool:
    """Return whether a version of the same flavour loads the engine.

    Without the version-compatible flag only the same version does. With it, according to NVIDIA's
    documentation of TensorRT 11.4, later versions of the same major do, and 11 those of 10.
    """
    if artifact.version == version:
        return True
    if not artifact.options.get("version_compatible"):
        return False
    built, installed = _numbers(artifact.version), _numbers(version)
    majors = built[:1], installed[:1]
    return built <= installed and (majors[0] == majors[1] or majors == ((10,), (11,)))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def check_architecture(artifact: EngineArtifact, architecture: str) -> None:
    """Check that the engine runs on a GPU of this architecture (``sm86``).

    Raises:
        MsfnetError: it does not; with the command that adds the architecture.
    """
    if architecture in artifact.architectures:
        return
    ampere_plus = artifact.options.get("hardware_compatibility") == "ampere-plus"
    if ampere_plus and _numbers(architecture) >= (80,):
        return
    wanted = (*artifact.architectures, architecture)
    built = ", ".join(artifact.architectures) + (" and later" if ampere_plus else "")
    fault = f"was built for {built}, this GPU is {architecture}"
    raise _unfit(artifact, fault, architectures=wanted)


def rebuild_command(artifact: EngineArtifact, **changes: Any) -> str:
    """Return the advice to rebuild an engine, with the command for the engine's folder.

    Args:
        artifact: the engine's manifest.
        changes: ``architectures`` and options to build with instead of the recorded ones.
    """
    architectures = changes.pop("architectures", artifact.architectures)
    words = ["msfnet", "build", artifact.onnx_file, artifact.path.name]
    words += ["--flavour", artifact.flavour]
    if artifact.flavour == "tensorrt-rtx":  # the other flavour builds for the local GPU
        words += ["--arch", ",".join(architectures)]
    words += _arguments({**artifact.options, **changes})
    return f"rebuild it with `{shlex.join([*words, '--force'])}`"


_OPTIONS = (
    "workspace_mib",
    "optimization_level",
    "timing_cache",
    "version_compatible",
    "hardware_compatibility",
    "refit",
    "strip_weights",
)
"""The manifest's options that have an option of the command line, besides the profiles."""


def _arguments(options: Mapping[str, Any]) -> Iterator[str]:
    for profile in options.get("profiles", ()):
        yield "--profile"
        yield ":".join("x".join(map(str, images)) for images in profile)
    for name in _OPTIONS:
        value = options.get(name)
        if value is not None and value is not False:
            yield "--" + name.removesuffix("_mib").replace("_", "-")
            yield from () if value is True else (str(value),)
