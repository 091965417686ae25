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


def doctor() -> None:
    """Show what this machine can train, export, build and run.

    Example: msfnet doctor
    """
    from msfnet.inspection import describe_machine

    say(describe_machine())
