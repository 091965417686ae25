"""``msfnet inspect`` and ``msfnet doctor``: what a file holds, what this machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfnet.console import say


def inspect(
    model: Annotated[Path, typer.Argument(help="Checkpoint, ONNX file or engine.")],
) -> None:
    """Show what a model takes and gives, and what it was made from.

    Example: msfnet inspect model.onnx
    """
    from msfnet.inspection import describe_model

    say(describe_model(model))


def doctor() -> None:
    """Show what this machine can train, export, build and run.

    Example: msfnet doctor
    """
    from msfnet.inspection import describe_machine

    say(describe_machine())
