"""``msfnet train``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from msfnet.cli.console import progress, say
from msfnet.cli.options import DATA_HELP, Names, Numbers, names_option, numbers_option
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.progress import silent
from msfnet_runtime.stopping import SIGNALS


def train(
    recipe: Annotated[
        str,
        typer.Argument(help="nyu, kitti, nyu_mini, nyu_lite, nyu_nano, quick, … or a TOML file."),
    ],
    data: Annotated[Path, typer.Option("--data", help=DATA_HELP)],
    out: Annotated[Path, typer.Option("--out", help="Folder for checkpoints and logs.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the folder's last checkpoint.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Override a key of the recipe, for example trainer.epochs=5. Repeatable."
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out samples that cannot be used.")
    ] = False,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Train the five rows of the paper's Table III.")
    ] = False,
    rows: Annotated[
        Names | None,
        names_option(
            "--rows", "With --ablation: only these rows, for example baseline,usf+eda+batch_loss."
        ),
    ] = None,
    seeds: Annotated[
        Numbers | None,
        numbers_option("--seeds", "With --ablation: train each row with these, for example 0,1."),
    ] = None,
) -> None:
    """Train MSFNet from a recipe; OUT gets checkpoints, logs, pictures and the recipe.

    Example: msfnet train nyu_mini --data data/nyu_mini --out runs/nyu_mini
    """
    from msfnet_train.ablation import run_ablation
    from msfnet_train.network import TABLE_III
    from msfnet_train.recipe import load_recipe
    from msfnet_train.run import describe_kept, is_main_process
    from msfnet_train.run import train as run_training

    chosen = load_recipe(recipe, settings or ())
    if not ablation and (rows or seeds):
        raise MsfnetError("--rows and --seeds need --ablation; for one run use --set")
    try:
        with (
            _stops_on_signals(),
            progress("train") if is_main_process() else nullcontext(silent) as report,
        ):
            if not ablation:
                result = run_training(
                    chosen, data, out, resume=resume, skip_bad=skip_bad, progress=report
                ).text()
            else:
                result = run_ablation(
                    chosen,
                    data,
                    out,
                    rows=rows or tuple(TABLE_III),
                    seeds=seeds or (chosen.trainer.seed,),
                    resume=resume,
                    skip_bad=skip_bad,
                    progress=report,
                ).text()
    except _StoppedError as stop:
        if is_main_process():
            kept = "finished runs and checkpoints are kept" if ablation else describe_kept(out)
            line = "stopped before the first checkpoint; nothing is left to resume"
            if kept:
                line = f"stopped; {kept}; to continue, run the same command with --resume"
            print(line, file=sys.stderr)
        raise SystemExit(128 + stop.signal) from None
    if is_main_process():
        say(result)


class _StoppedError(BaseException):
    """Ctrl-C or SIGTERM; no handler of Exception takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


@contextmanager
def _stops_on_signals() -> Iterator[None]:
    """Raise ``_StoppedError`` on the first Ctrl-C or SIGTERM; the second one ends the process."""
    main = os.getpid()
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if stopped or os.getpid() != main:  # a reading process, just forked
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stopped = True
        raise _StoppedError(number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
