"""``msfnet demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfnet.cli.console import say
from msfnet.cli.options import ForceOption, SeedOption


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything it makes.")] = Path(
        "demo"
    ),
    seed: SeedOption = 0,
    force: ForceOption = False,
) -> None:
    """Run the whole pipeline on generated scenes: train, export, calibrate, build, stream, report.

    Needs no GPU, no download and about five minutes on two cores.

    Example: msfnet demo --out demo
    """
    from msfnet.demo import run_demo

    say(run_demo(out, seed=seed, force=force).text())
