"""The command line: one file per group of commands; heavy imports sit inside the commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any

import typer
from typer.models import CommandInfo

from msfnet import __version__
from msfnet.cli import (
    bench,
    build,
    calibrate,
    data,
    demo,
    evaluate,
    inspect,
    latency,
    stream,
    train,
    triton,
)
from msfnet.cli.options import help_alone
from msfnet.needs import NEEDS
from msfnet_runtime.libraries import require

app = typer.Typer(
    name="msfnet",
    help="Metric depth on your device: train MSFNet, export it, calibrate it, build engines, "
    "stream frames through them and measure what you get.\n\n"
    "Start with `msfnet demo`. Every command shows an example with `--help`.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"msfnet {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_show_version, help="Show msfnet's version."
    ),
) -> None:
    """Document ``--debug``, which is read before the command line is parsed."""
    help_alone(context)


app.command("demo")(demo.demo)
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(build.export)
app.command("calibrate")(calibrate.calibrate)
app.command("build")(build.build)
app.command("triton")(triton.triton)
app.command("stream")(stream.stream)
app.command("bench")(bench.bench)
app.command("latency")(latency.latency)
app.command("inspect")(inspect.inspect)
app.command("doctor")(inspect.doctor)


def _check_libraries_first(commands: Iterable[CommandInfo], group: str = "") -> None:
    """Let commands check their optional libraries before they run."""
    for command in commands:
        words = f"{group}{command.name or getattr(command.callback, '__name__', '')}"
        if words in NEEDS and command.callback:
            command.callback = _checked(command.callback, NEEDS[words])


def _checked(
    command: Callable[..., Any], needs: Callable[[dict[str, Any]], Iterable[str]]
) -> Callable[..., Any]:
    """Return a command that raises ``MsfnetError`` first if a library it needs is missing."""

    @wraps(command)
    def run(**options: Any) -> Any:
        require(*dict.fromkeys(needs(options)))
        return command(**options)

    return run


_check_libraries_first(app.registered_commands)
_check_libraries_first(data.app.registered_commands, "data ")


def command_words(arguments: Sequence[str]) -> list[str]:
    """Return the words of a command line that name its command, such as ``data check``."""
    return _command(arguments)[0]


def option_of(parameter: str, arguments: Sequence[str]) -> str | None:
    """Return the option that sets a library's parameter, such as ``--arch`` for architectures.

    Args:
        parameter: its name, which is also that of the command function's parameter.
        arguments: the command line, which begins with the command.
    """
    _, command = _command(arguments)
    flags = [flag for each in command.params if each.name == parameter for flag in each.opts]
    return next((flag for flag in flags if flag.startswith("--")), None)


def _command(arguments: Sequence[str]) -> tuple[list[str], Any]:
    """Return the words that name a command, and the command."""
    words, command = [], typer.main.get_command(app)
    for word in arguments:
        commands = getattr(command, "commands", {})
        if word not in commands:
            break
        words.append(word)
        command = commands[word]
    return words, command
