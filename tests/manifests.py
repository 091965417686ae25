"""Engine files of some bytes, with a manifest that fits them and this platform."""

from __future__ import annotations

from pathlib import Path

import onnx

from msfnet_runtime import EngineArtifact
from msfnet_runtime.files import sha256
from msfnet_runtime.preflight import this_platform
from tests.onnx_models import conv_model
from tests.specs import network_spec


def write_engine(folder: Path) -> EngineArtifact:
    """Write ``model.engine``, its manifest and the ONNX file it says it was built from."""
    path = folder / "model.engine"
    path.write_bytes(b"plan" * 100)
    onnx.save(conv_model(network_spec()), folder / "model.onnx")
    artifact = EngineArtifact(
        path=path,
        spec=network_spec(),
        flavour="tensorrt-rtx",
        version="1.0",
        architectures=("sm86", "sm89"),
        platform=this_platform(),
        onnx_file="model.onnx",
        onnx_sha256=sha256(folder / "model.onnx"),
        engine_sha256=sha256(path),
        bytes=path.stat().st_size,
        build_seconds=1.5,
        built="2026-01-02T03:04:05+00:00",
        options={},
        profiles=(),
        types={"float32": 1},
        blocks={"usf": "fp32"},
    )
    artifact.write()
    return artifact
