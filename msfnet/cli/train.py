"""``msfnet train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfnet.console import say


def train(
    recipe: Annotated[
        str, typer.Argument(help="Recipe: nyu, kitti, nyu_mini, quick, or a TOML file.")
    ],
    data: Annotated[Path, typer.Option("--data", help="Training data in the recipe's layout.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for checkpoints and logs.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the folder's last checkpoint.")
    ] = False,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a recipe key, e.g. trainer.epochs=5. Repeatable."),
    ] = None,
) -> None:
    """Train MSFNet from a recipe; checkpoints, logs and the recipe itself land in OUT.

    Example: msfnet train nyu_mini --data data/nyu_mini --out runs/nyu_mini
    """
    from msfnet_train.module import train as run_training
    from msfnet_train.recipe import load_recipe

    report = run_training(load_recipe(recipe, setting or ()), data, out, resume=resume)
    say(report.text())
