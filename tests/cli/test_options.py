"""The command line as a whole: same options with the same meaning, nothing heavy for help."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from msfnet.cli import app, option_of
from msfnet.cli.options import Numbers, Size, parse_numbers, parse_share, parse_size
from msfnet_runtime import MsfnetError

OPTIONS = {
    "--data": {"train", "evaluate", "export", "calibrate", "bench"},
    "--list": {"data check", "evaluate", "export", "calibrate", "bench"},
    "--frames": {"data synthesize", "evaluate", "export", "calibrate", "bench", "stream"},
    "--protocol": {"evaluate", "calibrate", "bench"},
    "--provider": {"evaluate", "bench", "latency", "stream"},
    "--threads": {"evaluate", "calibrate", "bench", "latency", "stream"},
    "--json": {"data check", "evaluate", "bench", "latency", "inspect", "doctor"},
    "--force": {
        *("demo", "data check", "evaluate", "export", "calibrate", "build", "triton"),
        *("stream", "bench", "latency", "inspect", "doctor"),
    },
    "--seed": {"demo", "data synthesize", "calibrate"},
}
"""Which commands take the options that several share."""

SAME_HELP = ("--list", "--protocol", "--provider", "--threads", "--json", "--force", "--seed")
"""The others differ in what is counted (``--frames``) or in what is read (``--data``)."""

HEAVY = ("torch", "onnx", "onnxruntime", "lightning", "timm", "rich", "scipy", "plotly")


def commands() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield every command's words, and its options' help by name."""
    top = typer.main.get_command(app)
    for name, command in top.commands.items():  # type: ignore[attr-defined]  # it is a group
        for words, one in [
            (name, command),
            *((f"{name} {sub}", each) for sub, each in getattr(command, "commands", {}).items()),
        ]:
            yield words, {flag: each.help or "" for each in one.params for flag in each.opts}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_where_it_is_of_use(option: str) -> None:
    """The table above holds, both ways."""
    assert {words for words, options in commands() if option in options} == OPTIONS[option]


@pytest.mark.parametrize("option", SAME_HELP)
def test_an_option_means_the_same_everywhere(option: str) -> None:
    """One help text for all commands."""
    texts = {options[option] for _, options in commands() if option in options}
    assert len({text.removesuffix(" Repeatable.") for text in texts}) == 1


def test_0_frames_are_all() -> None:
    """Wherever frames are read; generated ones have no end."""
    for words, options in commands():
        if "--frames" in options and words != "data synthesize":
            assert "0: all" in options["--frames"], words


def test_every_option_has_a_help_text() -> None:
    """Whole words, ended by a full stop."""
    for words, options in commands():
        for option, text in options.items():
            if option.startswith("--") and option != "--help":
                assert text.endswith("."), (words, option)


def test_help_imports_nothing_heavy() -> None:
    """Every command's, in one process."""
    script = """
import json, sys
from msfnet.__main__ import run
for words in json.loads(sys.argv[1]):
    assert run([*words.split(), "--help"]) == 0, words
    heavy = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    assert not heavy, (words, heavy)
"""
    names = [words for words, _ in commands()]
    subprocess.run(
        [sys.executable, "-c", script, json.dumps(names), json.dumps(HEAVY)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def test_an_error_names_the_option_that_sets_the_parameter() -> None:
    """A library's name of it; arguments and other commands' options have none."""
    assert option_of("architectures", ["build", "a.onnx", "a.engine"]) == "--arch"
    assert option_of("seed", ["data", "synthesize", "out"]) == "--seed"
    assert option_of("model", ["build"]) is None
    assert option_of("architectures", ["export"]) is None


def test_values_are_read_by_kind() -> None:
    """Sizes, lists and shares."""
    assert parse_size("228X304") == Size(228, 304)
    assert parse_numbers("1, 4,8") == Numbers((1, 4, 8))
    assert parse_numbers("") == ()
    assert (parse_share("5%"), parse_share("0.05")) == (0.05, 0.05)


@pytest.mark.parametrize("text", ["228", "228x", "axb", "-1x32", "16x64", "64x9000"])
def test_a_wrong_size_is_refused(text: str) -> None:
    """The error names the size."""
    with pytest.raises(MsfnetError, match="size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["five", "-1%", "inf"])
def test_a_wrong_share_is_refused(text: str) -> None:
    """The error quotes the text."""
    with pytest.raises(MsfnetError, match=text):
        parse_share(text)
