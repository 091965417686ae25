"""``msfnet triton`` as a user types it."""

from __future__ import annotations

import shlex
from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from msfnet.__main__ import run
from tests.onnx_models import conv_model
from tests.specs import network_spec


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a model and a file that is in the way."""
    onnx.save(conv_model(network_spec()), tmp_path / "good.onnx")
    (tmp_path / "file").write_text("in the way of a folder")
    (tmp_path / "notes.txt").write_text("no model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_option_lands_in_the_configuration(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under the name and the version that were asked for; one line says where."""
    command = (
        "triton good.onnx models --name depth --version 3 --instances 2 --gpus 1,2 --no-warmup"
    )
    assert run(shlex.split(command)) == 0

    text = (folder / "models/depth/config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    (group,) = config.instance_group
    assert (config.name, group.count, list(group.gpus)) == ("depth", 2, [1, 2])
    assert not config.model_warmup
    assert (folder / "models/depth/3/model.onnx").exists()
    assert capsys.readouterr().out.startswith("models/depth: onnxruntime_onnx, fixed batch")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("triton none.onnx models", "none.onnx"),
        ("triton notes.txt models", ".onnx"),
        ("triton good.onnx file", "file"),
        ("triton good.onnx file/models", "file/models"),
        ("triton good.onnx models --gpus one", "are not whole numbers"),
        ("triton good.onnx models --preferred-batch-sizes 4,x", "are not whole numbers"),
        ("triton good.onnx models --preferred-batch-sizes 4,8", "(--preferred-batch-sizes)"),
        ("triton good.onnx models --max-batch-size 4", "(--max-batch-size)"),
        ("triton good.onnx models --max-queue-delay-us 5", "(--max-queue-delay-us)"),
        ("triton good.onnx models --name a/b", "a/b"),
        ("triton good.onnx models --kind cpu --gpus 0", "--gpus"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, command: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Status 1, or 2 for a value that cannot be read, and nothing is made."""
    before = sorted(folder.rglob("*"))

    assert run(shlex.split(command)) == (2 if words == "are not whole numbers" else 1)

    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: ")
    assert words in printed.err
    assert "fault in msfnet" not in printed.err
    assert sorted(folder.rglob("*")) == before


def test_a_model_is_replaced_only_when_asked(folder: Path) -> None:
    """``--force`` says so."""
    assert run(["triton", "good.onnx", "models"]) == 0
    assert run(["triton", "good.onnx", "models"]) == 1
    assert run(["triton", "good.onnx", "models", "--force", "--version", "2"]) == 0

    assert sorted(path.name for path in (folder / "models/good").iterdir()) == [
        *("2", "README.md", "config.pbtxt", "warmup"),
    ]
