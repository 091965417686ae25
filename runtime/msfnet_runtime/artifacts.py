"""Describes model files: ONNX files and TensorRT engines with their specs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import existing_file, sha256
from msfnet_runtime.onnx_metadata import read_onnx_spec
from msfnet_runtime.spec import ModelSpec, current_schema
from msfnet_runtime.typed import (
    build,
    check_name,
    check_range,
    check_sha256,
    check_values,
    read_json,
    write_json,
)

Flavour = Literal["tensorrt", "tensorrt-rtx"]

ENGINE_SCHEMA = 2
"""Version of the manifest's fields; it changes when a field changes."""

ShapeRange = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Smallest, most frequent and largest shape of an input."""


@dataclass(frozen=True)
class OnnxArtifact:
    """An ONNX file with its spec."""

    path: Path
    spec: ModelSpec
    bytes: int
    """Size on disk, including a separate file of weights."""

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> OnnxArtifact:
        """Describe an existing ONNX file.

        Raises:
            MsfnetError: the file or its weights are missing, or it is not an ONNX file with a
                spec.
        """
        spec, file = read_onnx_spec(path), Path(path)
        files = model_files(file, spec)
        if not files[-1].exists():
            raise MsfnetError(f"{file} needs {files[-1].name} beside it; copy both")
        existing_file(files[-1], "weights")
        return cls(file, spec, sum(each.stat().st_size for each in files))

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file, followed by its file of weights if it has one."""
        return sha256(*model_files(self.path, self.spec))


def model_files(path: Path, spec: ModelSpec) -> tuple[Path, ...]:
    """Return the files of an ONNX model: itself, and the file beside it that holds its weights."""
    return (path, path.with_name(spec.weights_file)) if spec.weights_file else (path,)


@dataclass(frozen=True)
class EngineArtifact:
    """A TensorRT engine and the facts that decide whether a machine can load it.

    Stored beside the engine as ``<engine>.json``, because TensorRT cannot report them before it
    loads an engine.
    """

    path: Path
    spec: ModelSpec
    flavour: Flavour
    version: str
    """Version of the TensorRT that built it; other versions need a flag to load it."""
    architectures: tuple[str, ...]
    """Compute capabilities it was built for (``sm86``)."""
    platform: str
    """Operating system and processor it was built on, such as ``linux-x86_64``."""
    onnx_file: str
    """Name of the ONNX file it was built from."""
    onnx_sha256: str
    """As :attr:`OnnxArtifact.sha256`."""
    engine_sha256: str
    bytes: int
    build_seconds: float
    built: str
    """ISO date and time of the build, UTC."""
    options: Mapping[str, Any]
    """The builder's options except the architectures, as JSON values."""
    profiles: tuple[ShapeRange, ...]
    """Shapes of the input that a dynamic engine accepts; empty for a static one."""
    types: Mapping[str, int]
    """Number of values of each type in the parsed network: ``{"float32": 3, "int8": 2}``."""
    blocks: Mapping[str, str]
    """Precision by block, as :attr:`msfnet_runtime.spec.Block.precision`."""
    schema_version: int = ENGINE_SCHEMA

    def __post_init__(self) -> None:
        """Refuse values that no build writes."""
        check_values(self)
        check_name("onnx_file", self.onnx_file)
        check_sha256("onnx_sha256", self.onnx_sha256)
        check_sha256("engine_sha256", self.engine_sha256)
        check_range("bytes", self.bytes, 0)
        check_range("build_seconds", self.build_seconds, 0)
        for architecture in self.architectures:
            if not re.fullmatch("sm[0-9]{2,3}[a-z]?", architecture):
                raise MsfnetError(f"architectures must be like sm86, not {architecture!r}")
        try:
            datetime.fromisoformat(self.built)
        except ValueError:
            raise MsfnetError(f"built must be an ISO date and time, not {self.built!r}") from None
        listed = self.options.get("profiles", ())
        profiles = build(tuple[ShapeRange, ...], listed, "the manifest", "options.profiles")
        for shape in (size for profile in (*self.profiles, *profiles) for size in profile):
            for size in shape:
                check_range("a size of a profile", size, 1, 1e6)

    @staticmethod
    def sidecar(engine: Path) -> Path:
        """Return the path of an engine's manifest."""
        return engine.with_name(engine.name + ".json")

    def write(self) -> None:
        """Write the manifest beside the engine, whole or not at all."""
        write_json(self.sidecar(self.path), replace(self, path=Path(self.path.name)))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> EngineArtifact:
        """Read the manifest of an engine.

        Raises:
            MsfnetError: engine or manifest are missing, or the manifest cannot be read.
        """
        engine = existing_file(path, "engine")
        manifest = cls.sidecar(engine)
        if not manifest.exists():
            raise MsfnetError(
                f"{engine} has no manifest {manifest.name}; build it with `msfnet build`, "
                "which writes both"
            )
        try:
            fields = read_json(manifest, dict[str, Any])
            version = build(int, fields.get("schema_version"), str(manifest), "schema_version")
            if version != ENGINE_SCHEMA:
                raise MsfnetError(
                    f"{manifest} has schema version {version}, this msfnet reads {ENGINE_SCHEMA}"
                )
            spec = build(dict[str, Any], fields.get("spec"), str(manifest), "spec")
            fields["spec"] = current_schema(spec, f"the spec in {manifest}")
            return replace(build(cls, fields, str(manifest)), path=engine)
        except MsfnetError as error:
            raise MsfnetError(f"{error}; build the engine again") from None


def refuse_cpu_layout(spec: ModelSpec, path: str | os.PathLike[str]) -> None:
    """Refuse a graph that is laid out for CPUs.

    Raises:
        MsfnetError: the graph has that layout.
    """
    if spec.layout == "cpu":
        raise MsfnetError(f"{path} was exported for CPUs; export it again for all targets")
