"""The training loop, on Lightning: one module, one data module, one function."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from msfnet_benchmarks.metrics import DepthSummary, MetricsAccumulator
from msfnet_benchmarks.protocols import find_protocol
from msfnet_runtime import MsfnetError
from msfnet_runtime.files import atomic_path
from msfnet_runtime.preprocess import finish
from msfnet_runtime.progress import Progress
from msfnet_train.checkpoint import KEY, describe, read_checkpoint
from msfnet_train.data import (
    EpochSampler,
    Split,
    TrainingBatch,
    TrainingPairs,
    ValidationBatch,
    ValidationFrames,
    join_training,
    join_validation,
    open_split,
    start_worker,
    worker_message,
)
from msfnet_train.loop import make_trainer, quiet
from msfnet_train.losses import MSFNetLoss
from msfnet_train.network import MSFNet, TrainingOutput
from msfnet_train.recipe import Recipe

LOGGED_METRICS = ("rel", "rmse", "rmse_pooled", "log10", "delta1", "delta2", "delta3")


@dataclass(frozen=True)
class TrainReport:
    """What a finished run gives."""

    best: Path
    """The checkpoint with the smallest validation REL."""
    last: Path
    """The checkpoint of the last epoch, from which a run resumes."""
    epochs: int
    """Epochs the last checkpoint has seen."""
    seconds: float
    """Wall time of this call, validation included."""
    images_per_second: float
    """Training images over the wall time, validation included."""
    protocol: str
    """The protocol of the validation."""
    validation: DepthSummary
    """Of the last validation."""
    best_rel: float
    """Validation REL of the best checkpoint."""

    def text(self) -> str:
        """Return the report in a few lines."""
        v = self.validation
        return (
            f"trained {self.epochs} epochs in {self.seconds:.0f} s "
            f"({self.images_per_second:.1f} images/s)\n"
            f"{self.protocol}, {v.images} images: REL {v.rel:.3f} (best {self.best_rel:.3f})  "
            f"RMSE {v.rmse:.3f} m (pooled {v.rmse_pooled:.3f})  log10 {v.log10:.3f}  "
            f"delta {v.delta1:.3f} / {v.delta2:.3f} / {v.delta3:.3f}\n"
            f"best: {self.best}\nlast: {self.last}"
        )


class DepthModule(lightning.LightningModule):
    """MSFNet, its losses, its optimiser and its validation by a named protocol."""

    def __init__(self, recipe: Recipe, *, pretrained: bool = True) -> None:
        """Build the network; without ``pretrained``, its weights are about to be replaced."""
        super().__init__()
        self.recipe = recipe
        config = recipe.network if pretrained else replace(recipe.network, pretrained=False)
        self.network = MSFNet(config)
        head = self.network.decoder.head
        if recipe.trainer.initial_prediction and head.bias is not None:
            torch.nn.init.constant_(head.bias, recipe.trainer.initial_prediction)
        self.loss = MSFNetLoss(recipe.loss)
        self.validation: DepthSummary | None = None
        """Of the last validation."""
        self.images_seen = 0
        """Training images this process has learnt from."""
        self._protocol = find_protocol(recipe.data.protocol)
        self._spec = recipe.spec()
        self._metrics = MetricsAccumulator()

    def training_step(self, batch: TrainingBatch, index: int) -> Tensor:
        """Return the loss of one batch.

        Raises:
            MsfnetError: it is not finite; the line names the samples.
        """
        output = self.network(batch.image)
        assert isinstance(output, TrainingOutput)
        terms = self.loss(output.prediction, output.auxiliary, batch.target, batch.valid)
        if not torch.isfinite(terms["loss"]):
            raise MsfnetError(
                f"the loss is {terms['loss'].item()} at step {self.global_step}, on "
                f"{', '.join(batch.names)}; look at these samples or lower the learning rate"
            )
        self.images_seen += len(batch.names)
        self.log_dict(
            {f"train/{name}": value.detach() for name, value in terms.items()},
            batch_size=len(batch.names),
        )
        return terms["loss"]

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self._metrics = MetricsAccumulator()

    def validation_step(self, batch: ValidationBatch, index: int) -> None:
        """Score every frame as evaluation would score the exported model."""
        output = self.network(batch.image)
        for prediction, depth in zip(output.float().cpu().numpy(), batch.ground_truth, strict=True):
            size = depth.shape[0], depth.shape[1]
            values, _ = finish(prediction[None], size, self._spec)
            self._metrics.add(self._protocol.score(prediction=values, ground_truth=depth))

    def on_validation_epoch_end(self) -> None:
        """Log the means over the validation frames."""
        self.validation = self._metrics.summary()
        self.log_dict({name: getattr(self.validation, name) for name in LOGGED_METRICS})

    def configure_optimizers(self) -> Any:
        """Adam with the recipe's schedule (Sec. IV)."""
        config = self.recipe.optimizer
        adam = torch.optim.Adam(
            self.network.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler: torch.optim.lr_scheduler.LRScheduler
        if config.schedule == "onecycle":
            scheduler = torch.optim.lr_scheduler.OneCycleLR(
                adam,
                config.learning_rate,
                total_steps=steps,
                pct_start=config.warmup_share,
                cycle_momentum=False,
            )
        elif config.schedule == "step":
            # Counted in steps: a checkpoint is written before the epoch's schedulers move.
            period = config.step_epochs * max(1, steps // self.recipe.trainer.epochs)
            scheduler = torch.optim.lr_scheduler.StepLR(adam, period, config.step_factor)
        else:
            return adam
        return {"optimizer": adam, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what makes the file readable without this module."""
        checkpoint[KEY] = describe(self.recipe)


class DepthData(lightning.LightningDataModule):
    """The loaders of a run."""

    def __init__(self, split: Split, recipe: Recipe) -> None:
        super().__init__()
        self.split = split
        self.recipe = recipe

    def train_dataloader(self) -> DataLoader[TrainingBatch]:
        """Augmented batches in an order that depends on the epoch alone."""
        trainer, config = self.trainer, self.recipe.trainer
        assert trainer is not None
        sampler = EpochSampler(
            len(self.split.train),
            config.seed,
            lambda: trainer.current_epoch,
            trainer.global_rank,
            trainer.world_size,
        )
        return DataLoader(
            TrainingPairs(self.split.train, self.recipe),
            config.batch_size,
            sampler=sampler,
            collate_fn=join_training,
            drop_last=len(sampler) >= config.batch_size,
            **self._workers(),
        )

    def val_dataloader(self) -> DataLoader[ValidationBatch]:
        """Frames as a deployed model sees them."""
        return DataLoader(
            ValidationFrames(self.split.validation, self.recipe),
            min(self.recipe.trainer.batch_size, 8),
            collate_fn=join_validation,
            **self._workers(),
        )

    def _workers(self) -> dict[str, Any]:
        return {
            "num_workers": self.recipe.trainer.workers,
            "worker_init_fn": start_worker,
            "pin_memory": torch.cuda.is_available(),
        }


def train(
    recipe: Recipe,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> TrainReport:
    """Train MSFNet.

    Args:
        recipe: everything that decides the run.
        data: the data set, in the recipe's layout.
        out: folder for ``best.ckpt``, ``last.ckpt`` and the logs (CSV, TensorBoard).
        resume: continue from ``last.ckpt`` in ``out``.
        progress: told every step; left out, a bar is drawn on a terminal and a line printed per
            epoch elsewhere.

    Raises:
        MsfnetError: no such data, ``out`` holds another run or cannot be written, nothing to
            resume, an unreadable sample, or a loss that is not finite.
    """
    folder, started = Path(out), time.monotonic()
    split = open_split(recipe.data, Path(data))
    last = _prepare_folder(folder, recipe, resume)
    with quiet():
        lightning.seed_everything(recipe.trainer.seed, verbose=False)
        module = DepthModule(recipe, pretrained=last is None)
        trainer = make_trainer(recipe, folder, progress)
        loaders = DepthData(split, recipe)
        try:
            trainer.fit(module, datamodule=loaders, ckpt_path=last, weights_only=True)
            if module.validation is None:
                trainer.validate(module, datamodule=loaders, verbose=False)
        except MsfnetError as error:
            raise MsfnetError(worker_message(error)) from None
    return _report(trainer, module, folder, time.monotonic() - started)


def _prepare_folder(folder: Path, recipe: Recipe, resume: bool) -> Path | None:
    """Make the run's folder; return the checkpoint to continue from, if asked to."""
    last = folder / "last.ckpt"
    if resume:
        if not last.is_file():
            raise MsfnetError(f"nothing to resume in {folder}: no last.ckpt; leave out --resume")
        _check_resumable(last, recipe)
        return last
    if last.exists():
        raise MsfnetError(f"{folder} holds a run; add --resume or choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / "recipe.json") as partial:
            partial.write_text(json.dumps(recipe.to_dict(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise MsfnetError(
            f"cannot write {folder}: {error.strerror}; choose another folder"
        ) from None
    return None


def _check_resumable(last: Path, recipe: Recipe) -> None:
    """Refuse a recipe that the checkpoint's weights, optimiser or schedule cannot go on with."""
    before = Recipe.from_dict(read_checkpoint(last)[KEY]["recipe"], f"of {last}")
    for table in ("network", "optimizer"):
        if getattr(before, table) != getattr(recipe, table):
            raise MsfnetError(
                f"{last} was trained with another [{table}] than the recipe's; use its own recipe"
            )
    if recipe.optimizer.schedule == "onecycle" and before.trainer.epochs != recipe.trainer.epochs:
        raise MsfnetError(
            f"the one-cycle schedule of {last} ends after {before.trainer.epochs} epochs; keep "
            "trainer.epochs, or train anew"
        )


def _report(
    trainer: lightning.Trainer, module: DepthModule, folder: Path, seconds: float
) -> TrainReport:
    assert module.validation is not None
    scores = [
        callback.best_model_score
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint) and callback.monitor == "rel"
    ]
    score = scores[0]
    return TrainReport(
        best=folder / "best.ckpt",
        last=folder / "last.ckpt",
        epochs=trainer.current_epoch,
        seconds=seconds,
        images_per_second=module.images_seen * trainer.world_size / seconds,
        protocol=module.recipe.data.protocol,
        validation=module.validation,
        best_rel=float(module.validation.rel if score is None else score),
    )
