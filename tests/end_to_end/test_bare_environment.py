"""The runtime needs numpy, OpenCV, typer and ONNX Runtime, and nothing else, on 3.10 and 3.11."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

from tests.onnx_models import conv_model
from tests.specs import network_spec

ROOT = Path(__file__).parents[2]
FORBIDDEN = ("torch", "torchvision", "timm", "onnx", "onnxscript", "onnxsim", "lightning")


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a command that must succeed; return what it printed."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, cwd=cwd, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def interpreter(version: str) -> str | None:
    """Find a Python of that version, on the path or among pyenv's."""
    pyenv = sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python"))
    for candidate in (shutil.which(f"python{version}"), *map(str, pyenv)):
        if (
            candidate
            and not subprocess.run(
                [candidate, "-c", "import venv, ensurepip"], capture_output=True, check=False
            ).returncode
        ):
            return candidate
    return None


def test_the_runtime_imports_none_of_the_heavy_libraries(tmp_path: Path) -> None:
    """Every module of the runtime, and the engine builder, with those imports made impossible."""
    script = f"""
import importlib, pkgutil, sys
for name in {FORBIDDEN!r}:
    sys.modules[name] = None
import msfnet_runtime, msfnet_export.build_engine
for module in pkgutil.walk_packages(msfnet_runtime.__path__, "msfnet_runtime."):
    importlib.import_module(module.name)
"""
    run(sys.executable, "-c", script, cwd=tmp_path)


def test_the_export_room_opens_without_torch(tmp_path: Path) -> None:
    """A device that builds engines has no torch."""
    run(
        sys.executable,
        "-c",
        "import sys; import msfnet_export; assert 'torch' not in sys.modules",
        cwd=tmp_path,
    )


def test_help_answers_in_under_half_a_second(tmp_path: Path) -> None:
    """The best of five, since the machine may be busy; nothing heavy is imported for it."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        run(sys.executable, "-m", "msfnet", "--help", cwd=tmp_path)
        seconds.append(time.perf_counter() - start)

    assert min(seconds) < 0.5, seconds


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.11"])
def test_a_wheel_in_a_clean_environment_streams_depth(tmp_path: Path, version: str) -> None:
    """Installed with ONNX Runtime alone, the command turns generated frames into PNG depth."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=ROOT)
    wheel = next(tmp_path.glob("msfnet-*.whl"))
    run(python, "-m", "venv", tmp_path / "env")
    bin_folder = tmp_path / "env/bin"
    run(bin_folder / "python", "-m", "pip", "install", "-q", wheel, "onnxruntime")
    onnx.save(conv_model(network_spec()), tmp_path / "model.onnx")

    installed = run(bin_folder / "python", "-m", "pip", "list", "--format=freeze").lower()
    run(bin_folder / "python", "-c", "import msfnet_runtime", cwd=tmp_path)
    source = "synthetic:street?frames=5&size=96x160"
    run(bin_folder / "msfnet", "stream", "model.onnx", source, "--out", "depth", cwd=tmp_path)

    assert not {line.split("==")[0] for line in installed.split()} & set(FORBIDDEN)
    assert len(list((tmp_path / "depth").glob("*.png"))) == 5
