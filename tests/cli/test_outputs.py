"""Outputs of every command: inputs and existing files are kept."""

from __future__ import annotations

import stat
from pathlib import Path

import onnx
import pytest

from msfnet.__main__ import run
from tests.onnx_models import conv_model
from tests.specs import network_spec

COMMANDS = {
    "evaluate --json": "evaluate {model} --data {data} --protocol indoor --json {out}",
    "evaluate --csv": "evaluate {model} --data {data} --protocol indoor --csv {out}",
    "evaluate --sheet": "evaluate {model} --data {data} --protocol indoor --sheet {out}",
    "bench --json": "bench {model} --json {out}",
    "bench --markdown": "bench {model} --markdown {out}",
    "bench --report": "bench {model} --report {out}",
    "latency --json": "latency {model} --json {out}",
    "inspect --json": "inspect {model} --json {out}",
    "inspect --plot": "inspect {model} --plot {out}",
    "data check --json": "data check {data} --list {model} --json {out}",
    "data check --sheet": "data check {data} --list {model} --sheet {out}",
    "export": "export {model} {out} --data {data}",
    "calibrate": "calibrate {model} {out} --data {data}",
    "build": "build {model} {out}",
    "build --timing-cache": "build model.onnx {out} --timing-cache {model}",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, with a model, data and a result of earlier work."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name in ("model.onnx", "model.png", "data/0001.png", "earlier.txt", "earlier.png"):
        Path(name).write_text(f"content of {name}")
    return tmp_path


def suffix(command: str, usual: str) -> str:
    """Return that of pictures for a command that draws one."""
    return ".png" if command.endswith(("--sheet", "--plot")) else usual


def check_kept(capsys: pytest.CaptureFixture[str], line: str, *nouns: str) -> None:
    """Assert that a command ends with one line of error and changes nothing."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}

    assert run(line.split()) == 1

    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1, error
    assert all(noun in error[0] for noun in nouns), error
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("force", ["", " --force"])
def test_an_input_is_never_an_output(
    capsys: pytest.CaptureFixture[str], command: str, force: str
) -> None:
    """Not even by force."""
    model = f"model{suffix(command, '.onnx')}"
    line = COMMANDS[command].format(model=model, data="data", out=f"./{model}")
    check_kept(capsys, line + force, model, "read")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", COMMANDS)
def test_an_existing_file_is_kept(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """The error names the option that replaces it, before the model is opened."""
    earlier = f"earlier{suffix(command, '.txt')}"
    line = COMMANDS[command].format(model="model.onnx", data="data", out=earlier)
    check_kept(capsys, line, earlier, "--force")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "line",
    [
        "evaluate model.onnx --data data --protocol indoor --json a --csv ./a",
        "bench model.onnx --json a.json --report a.html",
        "inspect model.onnx --json a.png --plot a.png",
        "build model.onnx a.engine --timing-cache a.engine",
    ],
)
def test_two_outputs_are_not_one_file(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """The JSON beside a page counts."""
    check_kept(capsys, line, "path")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", ["evaluate --csv", "bench --markdown"])
def test_only_json_goes_to_standard_output(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Nothing writes a file that is named ``-``."""
    check_kept(capsys, COMMANDS[command].format(model="model.onnx", data="data", out="-"), "--json")


@pytest.mark.usefixtures("folder")
def test_pictures_of_the_data_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """By force too."""
    line = "evaluate model.onnx --data data --protocol indoor --sheet data/0001.png --force"
    check_kept(capsys, line, "data/0001.png")


def test_a_result_goes_into_a_pipe_or_device(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither becomes a file; a replaced file keeps its mode."""
    (folder / "earlier.txt").chmod(0o640)
    onnx.save(conv_model(network_spec()), folder / "model.onnx")

    assert run(["inspect", "model.onnx", "--json", "/dev/null"]) == 0
    assert run(["inspect", "model.onnx", "--json", "earlier.txt", "--force"]) == 0

    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert stat.S_IMODE((folder / "earlier.txt").stat().st_mode) == 0o640
    assert (folder / "earlier.txt").read_text().startswith("{")
    capsys.readouterr()
