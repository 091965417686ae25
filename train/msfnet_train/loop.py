"""What the training loop shows and how it writes: progress, quiet, whole checkpoints."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO

from msfnet_runtime.files import atomic_path
from msfnet_runtime.progress import Progress


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
