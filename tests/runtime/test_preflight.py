"""Tests that an engine that does not fit is refused before TensorRT or CUDA are used."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from msfnet_runtime import EngineArtifact, MsfnetError, open_engine
from msfnet_runtime.engines import tensorrt
from msfnet_runtime.files import sha256
from msfnet_runtime.preflight import check_architecture, check_files, preflight, rebuild_command
from msfnet_runtime.spec import METADATA_KEY
from tests.manifests import write_engine


@pytest.fixture
def artifact(tmp_path: Path) -> EngineArtifact:
    """Return an engine that fits."""
    return write_engine(tmp_path)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a library of version 1.0 and a GPU that must not be used."""

    def refuse(*_: object) -> None:
        pytest.fail("used too early")

    library = SimpleNamespace(__version__="1.0", Runtime=refuse, Logger=refuse)
    monkeypatch.setattr(tensorrt, "load_tensorrt", lambda _: library)
    monkeypatch.setattr(tensorrt, "open_device", refuse)
    monkeypatch.setattr("msfnet_runtime.cuda.device.open_device", refuse)


def truncate(artifact: EngineArtifact) -> None:
    """Remove the end of the engine."""
    artifact.path.write_bytes(artifact.path.read_bytes()[:-5])


def tamper(artifact: EngineArtifact) -> None:
    """Change one byte of the engine."""
    content = bytearray(artifact.path.read_bytes())
    content[37] ^= 1
    artifact.path.write_bytes(content)


def tamper_with_model(artifact: EngineArtifact) -> None:
    """Change one weight of the ONNX file."""
    path = artifact.path.with_name("model.onnx")
    content = bytearray(path.read_bytes())
    content[content.index(METADATA_KEY.encode()) - 40] ^= 1
    path.write_bytes(content)


def rewrite(**changes: object) -> Callable[[EngineArtifact], None]:
    """Return a fault: a manifest with other fields."""
    return lambda artifact: replace(artifact, **changes).write()  # type: ignore[arg-type]


def manifest(text: str) -> Callable[[EngineArtifact], None]:
    """Return a fault: a manifest with that text."""

    def write(artifact: EngineArtifact) -> None:
        artifact.sidecar(artifact.path).write_text(text, encoding="utf-8")

    return write


BUILD = "`msfnet build model.onnx model.engine --flavour tensorrt-rtx --arch sm86,sm89 --force`"

FAULTS: dict[str, tuple[Callable[[EngineArtifact], None], str]] = {
    "truncated": (truncate, f"it has 395 bytes instead of 400; rebuild it with {BUILD}"),
    "tampered": (tamper, f"its SHA-256 differs; rebuild it with {BUILD}"),
    "another model": (tamper_with_model, "model.onnx is not the file that model.engine was built"),
    "another platform": (rewrite(platform="win32-AMD64"), "was built for win32-AMD64, this is "),
    "another version": (
        rewrite(version="0.9"),
        f"was built by tensorrt-rtx 0.9, 1.0 is installed here; rebuild it with {BUILD}",
    ),
    "no weights": (
        rewrite(options={"strip_weights": True, "refit": True}),
        "contains no weights, and msfnet cannot restore them; rebuild it with `msfnet build "
        "model.onnx model.engine --flavour tensorrt-rtx --arch sm86,sm89 --refit --force`",
    ),
    "no JSON": (manifest("{"), "model.engine.json is not JSON"),
    "no object": (manifest("[1]"), "model.engine.json must be a table"),
    "empty": (manifest(""), "model.engine.json is not JSON"),
    "an older msfnet's": (manifest('{"path": "model.engine"}'), "build the engine again"),
    "a newer msfnet's": (rewrite(schema_version=99), "schema version 99, this msfnet reads 2"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("watched")
def test_an_engine_that_does_not_fit_is_refused_before_tensorrt_or_cuda_are_used(
    artifact: EngineArtifact, fault: str
) -> None:
    """The error is one line; library and device fail the test when they are called."""
    make, words = FAULTS[fault]
    make(artifact)

    with pytest.raises(MsfnetError) as caught:
        open_engine(artifact.path)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("watched")
def test_an_engine_that_fits_uses_the_gpu(artifact: EngineArtifact) -> None:
    """This also proves that the imitations of these tests are used."""
    with pytest.raises(pytest.fail.Exception, match="used too early"):
        open_engine(artifact.path)


def test_a_manifest_is_read_as_it_was_written(artifact: EngineArtifact) -> None:
    """It includes spec, architectures, options and profiles."""
    profile = ((1, 3, 32, 64), (2, 3, 32, 64), (8, 3, 64, 128))
    options = {"workspace_mib": 5, "refit": False, "profiles": [[[1, 32, 64]] * 3]}
    changed = replace(artifact, profiles=(profile,), options=options)
    changed.write()

    assert EngineArtifact.read(artifact.path) == changed


def test_every_field_of_a_manifest_is_required(artifact: EngineArtifact) -> None:
    """A manifest without one of its keys is refused."""
    path = artifact.sidecar(artifact.path)
    fields = json.loads(path.read_text())
    for name in set(fields) - {"path"}:
        path.write_text(json.dumps({key: fields[key] for key in fields if key != name}))
        with pytest.raises(MsfnetError, match="build the engine again"):
            EngineArtifact.read(artifact.path)


def test_an_engine_fits_without_its_model_beside(artifact: EngineArtifact) -> None:
    """A device has only the engine."""
    artifact.path.with_name("model.onnx").unlink()

    preflight(artifact, "1.0", "sm89")


def test_a_pipe_beside_an_engine_is_not_read_as_its_model(artifact: EngineArtifact) -> None:
    """Reading it would wait for ever."""
    model = artifact.path.with_name("model.onnx")
    model.unlink()
    os.mkfifo(model)

    check_files(artifact)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"onnx_file": "/etc/passwd"}, "onnx_file must be the name"),
        ({"onnx_file": ""}, "onnx_file must be the name"),
        ({"engine_sha256": "0"}, "engine_sha256 must be a SHA-256"),
        ({"build_seconds": None}, "build_seconds must be a finite"),
        ({"build_seconds": -1}, "build_seconds must be at least 0"),
        ({"built": "yesterday"}, "built must be an ISO date"),
        ({"architectures": ["sm86;id"]}, "architectures must be like sm86"),
        ({"platform": "linux\x1b[31m"}, r"platform must be one line .*\\x1b"),
        ({"options": {"profiles": [5]}}, r"options\.profiles\[0\]"),
        ({"profiles": [[[1, 0], [2, 2], [3, 3]]]}, "a size of a profile must be 1 to"),
        ({"types": {"float32": "\n"}}, "types.float32"),
        ({"bytes": 10**30}, "bytes"),
        ({"schema_version": "2\x1b[31m"}, "schema_version .* whole number"),
    ],
)
def test_values_that_no_build_writes_are_refused(
    artifact: EngineArtifact, changes: dict[str, object], words: str
) -> None:
    """The error is one line that names the field and the way out."""
    manifest = artifact.sidecar(artifact.path)
    values = json.loads(manifest.read_text(encoding="utf-8")) | changes
    manifest.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(MsfnetError, match=f"{words}.*build the engine again"):
        EngineArtifact.read(artifact.path)


def test_weights_in_a_separate_file_belong_to_the_model(artifact: EngineArtifact) -> None:
    """A change of the weights is found, although the ONNX file is the same."""
    model, weights = (artifact.path.with_name(name) for name in ("model.onnx", "model.data"))
    weights.write_bytes(b"weights")
    spec = replace(artifact.spec, weights_file="model.data")
    whole = replace(artifact, spec=spec, onnx_sha256=sha256(model, weights))
    check_files(whole)

    weights.write_bytes(b"Weights")

    with pytest.raises(MsfnetError, match=r"model\.onnx is not the file"):
        check_files(whole)


@pytest.mark.parametrize(
    ("built", "installed", "loads"),
    [
        ("10.8.0", "10.8.0", True),
        ("10.8.0", "10.13.2.6", True),
        ("10.13.2.6", "11.4.1", True),
        ("10.13.0", "10.8.0", False),
        ("11.0", "10.14", False),
        ("11.1", "12.0", False),
        ("9.3", "10.1", False),
    ],
)
def test_version_compatible_engines_load_as_documented(
    artifact: EngineArtifact, built: str, installed: str, loads: bool
) -> None:
    """Later versions of the same major load, and 11 for 10; without the flag only the same."""
    engine = replace(artifact, flavour="tensorrt", version=built)
    compatible = replace(engine, options={"version_compatible": True})

    for candidate, fits in ((engine, built == installed), (compatible, loads)):
        if fits:
            preflight(candidate, installed)
        else:
            with pytest.raises(MsfnetError, match=f"built by tensorrt {built}, {installed} is"):
                preflight(candidate, installed)


def test_a_gpu_of_another_architecture_is_refused(artifact: EngineArtifact) -> None:
    """The message names both; its command adds the new one."""
    with pytest.raises(
        MsfnetError, match=r"sm86, sm89, this GPU is sm75.*--arch sm86,sm89,sm75 --force`$"
    ):
        preflight(artifact, "1.0", "sm75")


@pytest.mark.parametrize(
    ("architecture", "fits"),
    [("sm75", False), ("sm80", True), ("sm87", True), ("sm90", True), ("sm120", True)],
)
def test_hardware_compatible_engines_run_on_ampere_and_later(
    artifact: EngineArtifact, architecture: str, fits: bool
) -> None:
    """Architectures are compared as numbers: 120 comes after 80."""
    options = {"hardware_compatibility": "ampere-plus"}
    engine = replace(artifact, flavour="tensorrt", architectures=("sm86",), options=options)

    if fits:
        check_architecture(engine, architecture)
    else:
        with pytest.raises(MsfnetError, match="built for sm86 and later, this GPU is sm75"):
            check_architecture(engine, architecture)


def test_the_command_quotes_names_and_keeps_every_option(artifact: EngineArtifact) -> None:
    """A shell can parse it; TensorRT builds for the local GPU, so no list is named."""
    options = {
        "workspace_mib": 512,
        "optimization_level": 0,
        "timing_cache": "my cache.bin",
        "version_compatible": True,
        "hardware_compatibility": "ampere-plus",
        "profiles": [[[1, 32, 32], [1, 64, 96], [8, 96, 128]]],
        "refit": False,
        "strip_weights": None,
    }
    engine = replace(artifact, flavour="tensorrt", onnx_file="my model.onnx", options=options)

    command = rebuild_command(engine).split("`")[1]

    assert shlex.split(command)[2:4] == ["my model.onnx", "model.engine"]
    assert command.endswith(
        " --flavour tensorrt --profile 1x32x32:1x64x96:8x96x128 --workspace 512 "
        "--optimization-level 0 --timing-cache 'my cache.bin' --version-compatible "
        "--hardware-compatibility ampere-plus --force"
    )
