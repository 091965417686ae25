"""How a run is set up: Lightning's trainer, what it shows, and how it writes."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EMAWeightAveraging,
    ModelCheckpoint,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.console import Console
from rich.progress import Progress as Bar

from msfnet_runtime import MsfnetError
from msfnet_runtime.files import atomic_path
from msfnet_runtime.progress import Progress, silent
from msfnet_train.recipe import Recipe


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or absent, whatever kills the run."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write beside the path and rename."""
        with atomic_path(path) as partial:
            torch.save(checkpoint, partial)


class EpochLines(Callback):
    """One plain line per epoch on standard error, where there is no terminal."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Print the epoch, the loss and the validation."""
        if trainer.is_global_zero:
            seconds = time.monotonic() - self._started
            print(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {state(trainer)}, "
                f"{seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )


class Steps(Callback):
    """Tells a :data:`Progress` of every step."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Report the step."""
        total = int(trainer.estimated_stepping_batches)
        what = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {state(trainer)}"
        self._progress(trainer.global_step, total, what)


def state(trainer: lightning.Trainer) -> str:
    """Return the newest loss and validation REL in words."""
    names = {"train/loss": "loss", "rel": "validation REL", "delta1": "delta1"}
    metrics = trainer.callback_metrics
    return ", ".join(f"{names[k]} {float(metrics[k]):.3f}" for k in names if k in metrics)


def display(progress: Progress | None) -> Callback:
    """Return the callback that shows a run: the caller's, a bar on a terminal, or lines."""
    if progress is not None:
        return Steps(progress)
    return TQDMProgressBar() if sys.stderr.isatty() else EpochLines()


@contextmanager
def show_check(progress: Progress | None) -> Iterator[Progress]:
    """Yield what shows the look at the data: a bar on a terminal, or lines.

    A caller with a ``progress`` of its own is told of steps alone, so it sees nothing here.
    """
    if progress is not None:
        yield silent
    elif sys.stderr.isatty():
        with Bar(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("check the data", total=None)
            yield lambda done, total, what: bar.update(task, completed=done, total=total)
    else:
        yield _CheckLines()


class _CheckLines:
    """One plain line every ten seconds on standard error."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, done: int, total: int, what: str) -> None:
        if time.monotonic() - self._last > 10:
            self._last = time.monotonic()
            print(f"check the data: {done}/{total}, {what}", file=sys.stderr, flush=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's tips and the warnings that a user of a recipe cannot act on."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def make_trainer(
    recipe: Recipe,
    folder: Path,
    progress: Progress | None,
    *,
    pairs: int,
    callbacks: Sequence[Callback] = (),
) -> lightning.Trainer:
    """Return Lightning's trainer for a recipe.

    Args:
        recipe: gives devices, precision, epochs and the like.
        folder: of the run, for checkpoints and logs.
        progress: told every step; a bar or lines if left out.
        pairs: of an epoch; every tenth step is logged, or one an epoch where it has fewer.
        callbacks: on top of its own.

    Raises:
        MsfnetError: the recipe asks for more GPUs than there are.
    """
    config, gpus = recipe.trainer, torch.cuda.device_count()
    devices = config.devices or max(gpus, 1)
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    if 0 < gpus < devices:
        raise MsfnetError(f"trainer.devices is {devices}, but there are {gpus} GPUs; lower it")
    loggers = [
        CSVLogger(folder, name="", version=_free_name(folder, "csv")),
        TensorBoardLogger(folder, name="", version="tensorboard"),
    ]
    return lightning.Trainer(
        accelerator="gpu" if gpus else "cpu",
        devices=devices,
        num_nodes=config.nodes,
        strategy="ddp" if devices * config.nodes > 1 else "auto",
        sync_batchnorm=config.sync_batchnorm and gpus > 0,
        precision=config.precision,
        max_epochs=config.epochs,
        gradient_clip_val=config.gradient_clip or None,
        check_val_every_n_epoch=config.validate_every,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=loggers,
        log_every_n_steps=min(10, max(1, pairs // (config.batch_size * devices * config.nodes))),
        callbacks=[
            *_averaging(config.average_decay),
            *_checkpoints(folder, config.validate_every),
            display(progress),
            *callbacks,
        ],
        plugins=[AtomicCheckpoints()],
        enable_progress_bar=progress is None and sys.stderr.isatty(),
        enable_model_summary=False,
    )


def _averaging(decay: float) -> list[Callback]:
    """Return what scores and keeps averaged weights, buffers of the norms included, if asked to."""
    return [EMAWeightAveraging(decay=decay)] if decay else []


def _checkpoints(folder: Path, validate_every: int) -> list[Callback]:
    """Return what keeps ``best.ckpt`` and, after it and with its state, ``last.ckpt``.

    Lightning's own ``save_last`` writes only when the best has changed.
    """
    kept = (("best", "rel", validate_every), ("last", None, 1))
    return [
        ModelCheckpoint(
            folder,
            name,
            monitor=monitor,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
            every_n_epochs=period,
        )
        for name, monitor, period in kept
    ]


def _free_name(folder: Path, name: str) -> str:
    """Return ``name``, or ``name-2`` and so on where a run before left its own."""
    numbered = (f"{name}-{number}" for number in count(2))
    return next(n for n in chain([name], numbered) if not (folder / n).exists())
