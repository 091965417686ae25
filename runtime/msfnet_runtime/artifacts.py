"""Model files that a stage has made, as values: where they are and what they hold."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import atomic_path, sha256
from msfnet_runtime.onnx_metadata import existing_file, read_onnx_spec
from msfnet_runtime.spec import ModelSpec

Flavour = Literal["tensorrt", "tensorrt-rtx"]

EXTERNAL_DATA = "external_data"
"""The spec's note that names the file beside an ONNX file that holds its weights."""

RUNS_ON_CPU = "for CPUs"
"""Name of the note in the spec of a graph whose operators are laid out for processors."""

ENGINE_SCHEMA = 2
"""Of an engine's manifest; it changes whenever a field does."""

ShapeRange = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Smallest, most frequent and largest shape of an input."""


@dataclass(frozen=True)
class OnnxArtifact:
    """An ONNX file with its spec."""

    path: Path
    spec: ModelSpec
    sha256: str
    """Of the file's bytes, followed by those of its weights where they have a file of their own."""
    bytes: int
    """Size on disk, weights in a file of their own included."""

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> OnnxArtifact:
        """Describe an existing ONNX file.

        Raises:
            MsfnetError: the file is missing, no ONNX file, carries no spec, or its weights are
                missing.
        """
        spec = read_onnx_spec(path)
        file = Path(path)
        weights = file.with_name(spec.notes.get(EXTERNAL_DATA, file.name))
        if not weights.exists():
            raise MsfnetError(f"{file} needs {weights.name} beside it; copy both")
        parts = list(dict.fromkeys((file, weights)))
        return cls(file, spec, sha256(*parts), sum(part.stat().st_size for part in parts))


@dataclass(frozen=True)
class EngineArtifact:
    """A TensorRT engine with all that is needed to tell whether it fits a machine.

    Stored beside the engine as ``<engine>.json``: TensorRT itself has no call that answers
    "will this engine load here".
    """

    path: Path
    spec: ModelSpec
    flavour: Flavour
    version: str
    """Version of the TensorRT that built it; only the same version is sure to load it."""
    architectures: tuple[str, ...]
    """Compute capabilities it was built for (``sm86``)."""
    platform: str
    """Operating system and processor it was built on, e.g. ``linux-x86_64``."""
    onnx_file: str
    """Name of the ONNX file it was built from."""
    onnx_sha256: str
    """As :attr:`OnnxArtifact.sha256`."""
    engine_sha256: str
    bytes: int
    build_seconds: float
    built: str
    """When, as an ISO date and time in UTC."""
    options: Mapping[str, Any]
    """What the builder was asked for, architectures apart, as JSON knows it."""
    profiles: tuple[ShapeRange, ...]
    """Shapes of the input that a dynamic engine takes; empty for a static one."""
    types: Mapping[str, int]
    """How many values of each type the parsed network computes: ``{"float32": 3, "int8": 2}``."""
    blocks: Mapping[str, str]
    """Precision by block, as :attr:`msfnet_runtime.blocks.Block.precision`."""
    schema_version: int = ENGINE_SCHEMA

    @staticmethod
    def sidecar(engine: Path) -> Path:
        """Return the path of an engine's manifest."""
        return engine.with_name(engine.name + ".json")

    def write(self) -> None:
        """Write the manifest beside the engine, whole or not at all."""
        fields = {**asdict(self), "path": self.path.name, "spec": json.loads(self.spec.to_json())}
        with atomic_path(self.sidecar(self.path)) as partial:
            partial.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> EngineArtifact:
        """Read the manifest that lies beside an engine.

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
            fields = cast(dict[str, Any], json.loads(manifest.read_text(encoding="utf-8")))
            version = fields.get("schema_version", 1)
            if version != ENGINE_SCHEMA:
                raise MsfnetError(
                    f"{manifest} has schema version {version}, this msfnet reads {ENGINE_SCHEMA}; "
                    "build the engine again"
                )
            fields["path"] = engine
            fields["spec"] = ModelSpec.from_json(json.dumps(fields["spec"]))
            fields["architectures"] = tuple(fields["architectures"])
            fields["profiles"] = tuple(
                tuple(tuple(shape) for shape in profile) for profile in fields["profiles"]
            )
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MsfnetError(
                f"{manifest} cannot be read ({error}); build the engine again"
            ) from None


def refuse_cpu_form(spec: ModelSpec, path: str | os.PathLike[str]) -> None:
    """Refuse a graph laid out for CPUs where another form or machine is to be served.

    Raises:
        MsfnetError: it is one.
    """
    if RUNS_ON_CPU in spec.notes:
        raise MsfnetError(f"{path} was exported for CPUs; export it again without --target cpu")
