"""``msfnet inspect`` and ``msfnet doctor``: what a file holds, what this machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfnet.cli.console import check_outputs, progress, show
from msfnet.cli.options import ForceOption, JsonOption, png_option


def inspect(
    model: Annotated[Path, typer.Argument(help="Checkpoint, ONNX file or engine.")],
    json_path: JsonOption = None,
    plot: Annotated[
        Path | None, png_option("--plot", "Draw the cost of each block into this PNG.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Show a model's inputs, outputs and origin, and the cost of its blocks.

    Example: msfnet inspect model.onnx --plot blocks.png
    """
    from msfnet.inspection import describe_model

    check_outputs(plot, json=json_path, inputs=[model], force=force)
    description = describe_model(model)
    if plot is not None:
        description.plot(plot)
    show(description.text(), description.to_json(), json_path)


def doctor(json_path: JsonOption = None, force: ForceOption = False) -> None:
    """Show what this machine can train, export, build and run; each provider is tried.

    Example: msfnet doctor
    """
    from msfnet.machine import describe_machine

    check_outputs(json=json_path, force=force)
    with progress("doctor") as report:
        machine = describe_machine(progress=report)
    show(machine.text(), machine.to_json(), json_path)
