"""``msfnet train``."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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
    main = is_main_process()

    def last_words() -> str:
        if not main:
            return ""
        kept = "finished runs and checkpoints are kept" if ablation else describe_kept(out)
        if not kept:
            return "stopped before the first checkpoint; nothing is left to resume"
        return f"stopped; {kept}; to continue, run the same command with --resume"

    with ExitStack() as display, _ends_on_signals(display, last_words):
        report = display.enter_context(progress("train")) if main else silent
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
    if main:
        say(result)


@contextmanager
def _ends_on_signals(display: ExitStack, last_words: Callable[[], str]) -> Iterator[None]:
    """End the process in order on the first of ``SIGNALS``, and at once on the second.

    It does not return through PyTorch and Lightning, whose own handlers take the end of a reading
    process for a fault. Checkpoints are whole at any moment. What is ignored stays ignored, as
    SIGHUP under nohup and Ctrl-C in the background of a script.

    Args:
        display: closed first, so that the terminal is left as it was.
        last_words: returns the last line of standard error; nothing is printed if it is empty.
    """
    main = os.getpid()
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if stopped or os.getpid() != main:  # a reading process, just forked
            os._exit(128 + number)
        stopped = True
        if hasattr(signal, "SIGCHLD"):  # PyTorch's handler raises where a reading process ends
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with suppress(Exception):  # whatever the display or the disk is doing, the process ends
            display.close()
            if line := last_words():
                print(line, file=sys.stderr, flush=True)
        for process in multiprocessing.active_children():
            process.kill()
        os._exit(128 + number)

    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
