"""Sets up Lightning's trainer for a recipe: devices, checkpoints, logs and progress reports."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from msfnet_runtime import MsfnetError
from msfnet_runtime.progress import Progress
from msfnet_train.checkpoint import write_checkpoint
from msfnet_train.recipe import Recipe


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints that are complete or absent, even if the run is killed."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write to a temporary file next to ``path`` and rename it."""
        write_checkpoint(path, checkpoint)


class KeptCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint; a resumed run finds it beside the others, even in a moved folder."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up an earlier run's state with its paths in this run's folder."""
        folder = Path(self.dirpath or "")

        def moved(path: str) -> str:
            return str(folder / Path(path).name) if path else ""

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        super().load_state_dict(
            {
                **state_dict,
                **{name: moved(state_dict.get(name, "")) for name in paths},
                "best_k_models": {
                    moved(path): score
                    for path, score in state_dict.get("best_k_models", {}).items()
                },
                "dirpath": self.dirpath,
            }
        )


class ReportProgress(Callback):
    """Reports every training step, validation batch and saved checkpoint.

    ``done`` and ``total`` always count the training steps of the whole run, so that the time
    left can be estimated from them.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: Any, **kwargs: Any) -> None:
        """Report the step with the newest loss and validation metrics."""
        names = {"train/loss": "loss", "rel": "validation REL", "delta1": "delta1"}
        values = trainer.callback_metrics
        self._report(
            trainer, ", ".join(f"{names[k]} {float(values[k]):.3f}" for k in names if k in values)
        )

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Report the batch among those of this validation."""
        batches = trainer.num_val_batches
        total = int(batches[0] if isinstance(batches, list) else batches)
        self._report(trainer, f"validation batch {batch_idx + 1}/{total}")

    def on_save_checkpoint(self, trainer: lightning.Trainer, *args: Any, **kwargs: Any) -> None:
        """Report that a checkpoint is about to be written."""
        self._report(trainer, "saving a checkpoint")

    def _report(self, trainer: lightning.Trainer, what: str) -> None:
        epochs = trainer.max_epochs or 0
        epoch = min(trainer.current_epoch + 1, epochs)
        total = int(trainer.estimated_stepping_batches)
        self._progress(trainer.global_step, total, f"epoch {epoch}/{epochs}: {what}")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's tips and the warnings that the user of a recipe cannot act on."""
    with warnings.catch_warnings(), ExitStack() as restore:
        warnings.simplefilter("ignore")
        for part in ("pytorch", "fabric"):
            logger = logging.getLogger(f"lightning.{part}")
            restore.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        yield


def make_trainer(
    recipe: Recipe, folder: Path, *, pairs: int, callbacks: Sequence[Callback]
) -> lightning.Trainer:
    """Return Lightning's trainer for a recipe.

    Args:
        recipe: sets devices, precision, epochs, averaging and validation.
        folder: the run's folder, for checkpoints and logs.
        pairs: training pairs per epoch. Every tenth step is logged, or one step per epoch if an
            epoch has fewer.
        callbacks: run after the trainer's own.

    Raises:
        MsfnetError: the recipe asks for more GPUs than this machine has, or CPU processes than it
            has cores.
    """
    config, gpus = recipe.trainer, torch.cuda.device_count()
    devices = config.devices or max(gpus, 1)
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    available, what = (gpus, "GPUs") if gpus else (os.cpu_count() or 1, "cores and no GPU")
    if available < devices:
        raise MsfnetError(
            f"trainer.devices is {devices}, but this machine has {available} {what}; use a smaller "
            "number"
        )
    # The average covers the buffers too: the running statistics of the batch norms.
    averaging = [EMAWeightAveraging(decay=config.average_decay)] if config.average_decay else []
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
        logger=[
            CSVLogger(folder, name="", version=_free_name(folder, "csv")),
            TensorBoardLogger(folder, name="", version="tensorboard"),
        ],
        log_every_n_steps=min(10, max(1, pairs // (config.batch_size * devices * config.nodes))),
        callbacks=[*averaging, *_checkpoints(folder, config.validate_every), *callbacks],
        plugins=[AtomicCheckpoints()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _checkpoints(folder: Path, validate_every: int) -> list[Callback]:
    """Return the callbacks that write ``best.ckpt`` and, after it, ``last.ckpt``.

    ``last.ckpt`` then holds the state of ``best.ckpt``'s callback, which a resumed run needs.
    Lightning's own ``save_last`` writes only when the best checkpoint has changed.
    """
    kept = (("best", "rel", validate_every), ("last", None, 1))
    return [
        KeptCheckpoint(
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
    """Return ``name``, or ``name-2`` and so on if an earlier run has used it."""
    numbered = (f"{name}-{number}" for number in count(2))
    return next(n for n in chain([name], numbered) if not (folder / n).exists())
