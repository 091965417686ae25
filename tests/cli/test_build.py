"""``msfnet build``: its options on the command line, Ctrl-C, and the command a refusal names."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from msfnet.__main__ import run
from msfnet.inspection import describe_model
from msfnet_runtime import EngineArtifact
from msfnet_runtime.preflight import rebuild_command
from tests.networks import Exports
from tests.onnx_models import conv_model
from tests.specs import network_spec
from tests.tensorrt_types import needs_rtx

ALL = "sm75,sm80,sm86,sm89,sm120,sm121"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a static and a dynamic model, the smallest ones."""
    spec = network_spec()
    onnx.save(conv_model(spec), tmp_path / "fixed.onnx")
    fields = json.loads(spec.to_json())
    fields["inputs"][0]["shape"] = ["batch", 3, "height", "width"]
    fields["outputs"][0]["shape"] = ["batch", 1, "rows", "columns"]
    onnx.save(conv_model(spec.from_json(json.dumps(fields))), tmp_path / "open.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


REFUSED = {
    "fixed.onnx out.engine --optimization-level 3": "tensorrt-rtx has no optimisation levels",
    "fixed.onnx out.engine --timing-cache t.bin": "tensorrt-rtx has no timing cache",
    "fixed.onnx out.engine --version-compatible": "no version-compatible engines",
    "fixed.onnx out.engine --hardware-compatibility ampere-plus": "name the architectures",
    "fixed.onnx out.engine --profile 1x32x64:1x32x64:1x32x64": "(--profile)",
    "open.onnx out.engine --profile 1x32x64:2x32x64:1x32x64": "batch 1:2:1 does not grow",
    "open.onnx out.engine --profile 1x32x64:1x228x304:1x320x320": "not a multiple of 32",
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_cannot_be_had_is_one_line(
    folder: Path, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Status 1, nothing on standard output, no file."""
    assert run(["build", *shlex.split(command)]) == 1

    captured = capfd.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert captured.err.startswith("error: ")
    assert REFUSED[command] in captured.err
    assert sorted(path.name for path in folder.iterdir()) == ["fixed.onnx", "open.onnx"]


@needs_rtx
@pytest.mark.parametrize(
    "options",
    [
        "fixed.onnx out.engine --arch sm89,sm86",
        "open.onnx out.engine --arch sm86 --workspace 700 --profile 1x32x32:1x64x96:4x96x128 "
        "--profile 1x64x96:2x64x96:8x64x96",
    ],
)
def test_the_command_a_refusal_names_rebuilds_the_very_engine(folder: Path, options: str) -> None:
    """Run as it stands; all but times is the same (engines of two profiles vary in a few bytes)."""
    assert run(["build", *shlex.split(options)]) == 0
    first = EngineArtifact.read(folder / "out.engine")
    content = first.path.read_bytes()
    first.path.write_bytes(content[:-1])

    program, *words = shlex.split(rebuild_command(first).split("`")[1])
    assert program == "msfnet"
    assert run(words) == 0

    second = EngineArtifact.read(folder / "out.engine")
    assert second.bytes == len(content)
    for name in ("options", "profiles", "architectures", "onnx_file", "onnx_sha256", "types"):
        assert getattr(second, name) == getattr(first, name)


@needs_rtx
def test_inspect_shows_the_manifest(folder: Path) -> None:
    """Options and results are shown; options that were not set are left out."""
    profile = "--profile 1x32x32:1x64x96:4x96x128"
    assert (
        run(shlex.split(f"build open.onnx out.engine --arch sm86 --workspace 700 {profile}")) == 0
    )

    facts = dict(describe_model(folder / "out.engine").rows)

    assert facts["from ONNX file"] == "open.onnx"
    assert facts["values by type"] == "float32 1"
    assert facts["workspace mib"] == "700"
    assert facts["profiles"] == "1x3x32x32:1x3x64x96:4x3x96x128"
    assert facts["built"].startswith(EngineArtifact.read(folder / "out.engine").built)
    assert "refit" not in facts


@needs_rtx
@pytest.mark.parametrize("name", ["out.engine", "fixed.onnx"])
def test_inspect_finds_a_changed_file(
    folder: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The engine's own, or the model's that lies beside it; with the command that rebuilds."""
    assert run(shlex.split("build fixed.onnx out.engine --arch sm86")) == 0
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 3] ^= 1
    (folder / name).write_bytes(content)
    capfd.readouterr()

    assert run(["inspect", "out.engine"]) == 1

    line = capfd.readouterr().err
    assert name in line
    assert line.count("\n") == 1
    assert "`msfnet build fixed.onnx out.engine --flavour tensorrt-rtx --arch sm86 --force`" in line


@needs_rtx
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is not a signal there")
def test_ctrl_c_ends_a_build_with_one_line_and_no_file(exports: Exports, tmp_path: Path) -> None:
    """The signal is sent while a separate process builds 8 profiles, which takes seconds."""
    from msfnet_export import export_network

    model = tmp_path / "model.onnx"
    export_network(exports.network, model, size=(64, 96), dynamic=("batch", "size"))
    before = sorted(path.name for path in tmp_path.iterdir())
    profiles = [f"--profile=1x64x96:1x224x320:{count}x480x640" for count in range(1, 9)]
    command = [sys.executable, "-m", "msfnet", "build", str(model), str(tmp_path / "model.engine")]

    with subprocess.Popen(
        [*command, "--arch", ALL, *profiles],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("build: ")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert (out, err) == ("", "stopped\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
