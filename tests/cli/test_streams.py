"""What the command prints where: encodings, closed and full streams, hostile names, JSON lines."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest

from msfnet import __version__
from msfnet.__main__ import run
from msfnet.cli.console import progress, say
from msfnet.messages import collected, note, printable
from tests.onnx_models import conv_model
from tests.specs import network_spec

MAIN = "import sys; from msfnet.__main__ import main; main()"

NOT_UTF8 = os.fsdecode(b"mod\xe8le.onnx")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a model whose name few encodings hold; work beside it."""
    monkeypatch.chdir(tmp_path)
    onnx.save(conv_model(network_spec()), tmp_path / "模型.onnx")
    return Path("模型.onnx")


def shell(line: str, environment: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell in which ``msfnet`` is the command."""
    function = f"msfnet() {{ '{sys.executable}' -c '{MAIN}' \"$@\"; }}; "
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run(
        ["bash", "-c", function + line],
        env=settings,
        capture_output=True,
        text=True,
        encoding="latin-1",
        check=False,
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk"])
def test_every_encoding_shows_every_name(model: Path, encoding: str) -> None:
    """Characters that it lacks are escaped."""
    settings = {"PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}

    done = shell(f"msfnet inspect '{model}'", settings)

    assert (done.returncode, done.stderr) == (0, "")
    shown = done.stdout.encode("latin-1").decode(encoding)
    assert ("模型.onnx" if encoding == "gbk" else r"\u6a21\u578b.onnx") in shown


def test_every_help_can_be_shown(model: Path) -> None:
    """Under an encoding without the signs that it uses."""
    done = shell("msfnet bench --help", {"PYTHONUTF8": "0", "PYTHONIOENCODING": "cp850"})

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_no_encoding_holds_is_shown(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its bytes; what cannot open it says so."""
    model.rename(NOT_UTF8)

    assert run(["inspect", NOT_UTF8]) == 0
    assert r"mod\udce8le.onnx" in capsys.readouterr().out
    assert run(["latency", NOT_UTF8]) == 1
    assert "UTF-8; rename it" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("msfnet inspect M > /dev/full", 1),
        ("msfnet --help > /dev/full", 1),
        ("msfnet inspect M >&-", 0),
        ("msfnet inspect none.onnx 2>&-", 1),
        ("msfnet inspect none.onnx 2> /dev/full", 1),
        (
            "msfnet data synthesize a --layout nyu --scenes 1 --frames 1 --size 32x32 2> /dev/full",
            0,
        ),
        ("msfnet inspect M <&- >&- 2>&- --json out.json", 0),
        ("(msfnet inspect M; echo $? > status) | true; exit $(cat status)", 141),
    ],
)
def test_streams_that_cannot_be_written(model: Path, line: str, status: int) -> None:
    """A lost result is an error of one line, a lost message is not, and a reader may leave."""
    done = shell(line.replace("M", str(model)))

    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert done.stderr.count("\n") == (status == 1 and "2>" not in line)
    if "out.json" in line:
        json.loads(Path("out.json").read_text())


def test_names_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences, line ends, bidirectional marks; letters and line breaks of ours stay."""
    hostile = "a\x1b]0;owned\x07b\rc\x9b2Jd\u202ee\x7f"
    assert printable(hostile) == r"a\x1b]0;owned\x07b\rc\x9b2Jd\u202ee\x7f"
    assert printable("tür 模型\n\t½ e\u0301") == "tür 模型\n\t½ e\u0301"

    say(hostile)
    with progress(hostile) as report:
        report(1, 2, hostile)
    with collected(as_json=False):
        logging.getLogger("msfnet_runtime.test").warning("%s is lost", hostile)
    run(["inspect", hostile])

    out, err = capsys.readouterr()
    assert printable(out + err) == out + err
    assert rf"warning: {printable(hostile)} is lost" in err


def test_names_are_not_read_as_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, where a bar is drawn."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress("[/bold]") as report:
        report(1, 2, "clip[/x]\x1b[2J.mp4")

    shown = capsys.readouterr().err
    assert "[/bold]" in shown
    assert r"clip[/x]\x1b[2J.mp4" in shown


def test_lines_are_json_where_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Errors, bad usage, warnings of libraries and of Python, notes."""
    line = ["stream", "none.onnx", "images", "--out", "out"]
    for arguments in (["--log", "json"], ["--log=json"], ["--log", "json", "--frames", "many"]):
        assert run([*line, *arguments]) > 0
        (shown,) = capsys.readouterr().err.splitlines()
        assert "none.onnx" in json.loads(shown)["error"] or "--frames" in json.loads(shown)["error"]
    with collected(as_json=True), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("two\nlines", stacklevel=1)
        logging.getLogger("msfnet_runtime.test").warning("camera is lost")
        note("live page", "http://127.0.0.1")
    first, *others = map(json.loads, capsys.readouterr().err.splitlines())
    assert "two\nlines" in first["warning"]
    assert others == [{"warning": "camera is lost"}, {"live page": "http://127.0.0.1"}]

    assert run(line) == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("group", [[], ["data"]])
def test_a_name_alone_shows_what_there_is(
    group: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its help, on standard output, is no error."""
    assert run([*group, "--help"]) == 0
    expected = capsys.readouterr().out

    assert run(group) == 0
    assert capsys.readouterr() == (expected, "")


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The package's."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"msfnet {__version__}\n"
