"""``msfnet inspect`` and ``msfnet doctor``: what a file holds, what this machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfnet.console import say


def inspect(
    model: Annotated[Path, typer.Argument(help="Checkpoint, ONNX file or engine.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="PNG to draw the blocks into.")
    ] = None,
) -> None:
    """Show what a model takes and gives, what it was made from, and what its blocks cost.

    Example: msfnet inspect model.onnx --plot blocks.png
    """
    from msfnet.inspection import describe_model

    description = describe_model(model)
    if plot is not None:
        description.plot(plot)
    say(description.to_json() if json else description.text())


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what this machine can train, export, build and run; providers are tried, not listed.

    Example: msfnet doctor
    """
    from msfnet.machine import describe_machine

    machine = describe_machine()
    say(machine.to_json() if json else machine.text())
