"""Models that cannot be opened say why, before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from msfnet_runtime import EngineArtifact, MsfnetError, open_engine
from msfnet_runtime.files import sha256
from msfnet_runtime.preflight import check_architecture, preflight, this_platform
from tests.onnx_models import conv_model
from tests.specs import network_spec


@pytest.fixture
def engine_artifact(tmp_path: Path) -> EngineArtifact:
    """Return an engine file of some bytes with a manifest that fits it and this platform."""
    path = tmp_path / "model.engine"
    path.write_bytes(b"plan" * 100)
    artifact = EngineArtifact(
        path=path,
        spec=network_spec(),
        flavour="tensorrt-rtx",
        version="1.0",
        architectures=("sm86", "sm89"),
        platform=this_platform(),
        onnx_file="model.onnx",
        onnx_sha256="0" * 64,
        engine_sha256=sha256(path),
        bytes=path.stat().st_size,
        build_seconds=1.5,
        built="2026-01-02T03:04:05+00:00",
        options={},
        profiles=(),
        types={"float32": 1},
        blocks={},
    )
    artifact.write()
    return artifact


def test_a_manifest_comes_back_as_it_was_written(engine_artifact: EngineArtifact) -> None:
    """Spec, architectures and hashes included."""
    assert EngineArtifact.read(engine_artifact.path) == engine_artifact


def test_an_engine_without_its_manifest_is_refused(tmp_path: Path) -> None:
    """A bare plan cannot be trusted."""
    (tmp_path / "bare.engine").write_bytes(b"plan")

    with pytest.raises(MsfnetError, match=r"no manifest bare\.engine\.json"):
        open_engine(tmp_path / "bare.engine")


def test_a_fitting_engine_passes_the_preflight(engine_artifact: EngineArtifact) -> None:
    """Same platform, same version, same bytes."""
    preflight(engine_artifact, "1.0")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"platform": "win32-AMD64"}, "built for win32-AMD64"),
        ({"version": "0.9"}, r"built by tensorrt-rtx 0\.9, 1\.0 is installed"),
        ({"engine_sha256": "1" * 64}, "not the file its manifest describes"),
        ({"bytes": 5}, "not the file its manifest describes"),
    ],
)
def test_an_engine_for_elsewhere_is_refused_with_the_way_out(
    engine_artifact: EngineArtifact, change: dict[str, object], words: str
) -> None:
    """Platform, library version, tampering; each with the command that rebuilds it."""
    foreign = replace(engine_artifact, **change)  # type: ignore[arg-type]

    with pytest.raises(MsfnetError, match=words + r".*msfnet build"):
        preflight(foreign, "1.0")


def test_a_gpu_of_another_architecture_is_refused(engine_artifact: EngineArtifact) -> None:
    """The line names both and the option that adds it."""
    with pytest.raises(MsfnetError, match=r"sm86, sm89, this GPU is sm75.*--arch sm86,sm89,sm75"):
        check_architecture(engine_artifact, "sm75")


def test_an_engine_of_a_dynamic_graph_is_refused_with_the_way_out(
    engine_artifact: EngineArtifact,
) -> None:
    """Before any library or GPU is asked for."""
    spec = engine_artifact.spec
    shape = ("batch", 3, "height", "width")
    open_spec = replace(spec, inputs=(replace(spec.inputs[0], shape=shape),))
    replace(engine_artifact, spec=open_spec).write()

    with pytest.raises(MsfnetError, match=r"image is batchx3xheightxwidth.*without --dynamic"):
        open_engine(engine_artifact.path)


def test_an_unknown_kind_of_file_is_told_what_is_known(tmp_path: Path) -> None:
    """Suffixes decide."""
    (tmp_path / "model.tflite").write_bytes(b"x")

    with pytest.raises(MsfnetError, match=r"\.onnx or \.engine"):
        open_engine(tmp_path / "model.tflite")


def test_an_unknown_or_absent_provider_is_refused(tmp_path: Path) -> None:
    """A typo lists the choices."""
    onnx.save(conv_model(network_spec()), tmp_path / "model.onnx")

    with pytest.raises(MsfnetError, match="choose one of cpu, cuda, tensorrt"):
        open_engine(tmp_path / "model.onnx", provider="gpu")


def test_a_provider_that_does_not_load_is_never_replaced_silently(tmp_path: Path) -> None:
    """Without a GPU, asking for CUDA is an error, not a slower answer."""
    onnx.save(conv_model(network_spec()), tmp_path / "model.onnx")
    try:
        engine = open_engine(tmp_path / "model.onnx", provider="cuda")
    except MsfnetError as error:
        assert "CUDAExecutionProvider" in str(error)
        return
    with engine:
        assert "CUDAExecutionProvider" in engine.describe()
