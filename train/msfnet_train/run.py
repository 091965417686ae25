"""One training run from start to report: folder, data, trainer, pictures, summary."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_utilities.core.rank_zero import rank_zero_only

from msfnet_benchmarks.scoring.metrics import DepthSummary
from msfnet_runtime import MsfnetError
from msfnet_runtime.files import atomic_path
from msfnet_runtime.progress import Progress
from msfnet_train.checkpoint import KEY, read_checkpoint
from msfnet_train.data import worker_message
from msfnet_train.diagnostics import minimum_sentence
from msfnet_train.loop import make_trainer, quiet, show_check
from msfnet_train.module import DepthData, DepthModule
from msfnet_train.pictures import Predictions, draw_curves
from msfnet_train.recipe import Recipe
from msfnet_train.split import Split, check_split, open_split

SUMMARY = "summary.json"
"""A finished run's report in its folder."""


@dataclass(frozen=True)
class TrainReport:
    """What a finished run gives."""

    best: Path
    """The checkpoint with the smallest validation REL."""
    last: Path
    """The checkpoint of the last epoch, from which a run resumes."""
    curves: Path
    """Picture of the losses and metrics over the run."""
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
    zero_minimum: float | None
    """Share of the pixels at which EDA's channel minimum is 0; None without EDA."""
    skipped: int
    """Bad samples that were left out."""

    def text(self) -> str:
        """Return the report in a few lines."""
        v = self.validation
        lines = [
            f"trained {self.epochs} epochs in {self.seconds:.0f} s "
            f"({self.images_per_second:.1f} images/s)",
            f"{self.protocol}, {v.images} images: REL {v.rel:.3f} (best {self.best_rel:.3f})  "
            f"RMSE {v.rmse:.3f} m (pooled {v.rmse_pooled:.3f})  log10 {v.log10:.3f}  "
            f"delta {v.delta1:.3f} / {v.delta2:.3f} / {v.delta3:.3f}",
        ]
        if self.skipped:
            lines.append(f"{self.skipped} bad samples were left out")
        if self.zero_minimum is not None:
            lines.append(minimum_sentence(self.zero_minimum))
        lines += [f"best: {self.best}", f"last: {self.last}", f"curves: {self.curves}"]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, the paths by name, since they lie together."""
        paths = {name: getattr(self, name).name for name in ("best", "last", "curves")}
        return {**asdict(self), **paths}

    @classmethod
    def read(cls, folder: Path) -> TrainReport:
        """Return the report of the finished run in ``folder``.

        Raises:
            MsfnetError: there is none.
        """
        try:
            values = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["report"]
            paths = {name: folder / values[name] for name in ("best", "last", "curves")}
            summary = DepthSummary(**values["validation"])
            return cls(**{**values, **paths, "validation": summary})
        except (OSError, ValueError, KeyError, TypeError):
            raise MsfnetError(f"{folder} holds no finished run; train it first") from None


def train(
    recipe: Recipe,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> TrainReport:
    """Train MSFNet.

    Args:
        recipe: everything that decides the run.
        data: the data set, in the recipe's layout.
        out: folder for ``best.ckpt``, ``last.ckpt``, the logs (CSV, TensorBoard), pictures
            (``curves.png``, ``predictions.png``) and what was found in the data (``data.json``).
        resume: continue from ``last.ckpt`` in ``out``.
        skip_bad: leave out samples that cannot be used; they are an error otherwise.
        progress: told every step; left out, a bar is drawn on a terminal and a line printed per
            epoch elsewhere.

    Raises:
        MsfnetError: no such data, bad samples in it, ``out`` holds another run or cannot be
            written, nothing to resume, or a loss that is not finite.
    """
    folder, started = Path(out), time.monotonic()
    split = open_split(recipe.data, Path(data))
    last = _prepare_folder(folder, recipe, resume)
    with show_check(progress) as checking:
        split = check_split(split, folder, skip_bad=skip_bad, progress=checking)
    if last:
        _check_same_data(last, split)
    with quiet():
        lightning.seed_everything(recipe.trainer.seed, verbose=False)
        module = DepthModule(recipe, split.fingerprint(), pretrained=last is None)
        predictions = Predictions(recipe, [sample.name for sample in split.validation], folder)
        trainer = make_trainer(
            recipe, folder, progress, pairs=len(split.train), callbacks=[predictions]
        )
        loaders = DepthData(split, recipe)
        try:
            trainer.fit(module, datamodule=loaders, ckpt_path=last, weights_only=True)
            if module.validation is None:
                trainer.validate(module, datamodule=loaders, verbose=False)
        except MsfnetError as error:
            raise MsfnetError(worker_message(error)) from None
    return _report(trainer, module, split, folder, time.monotonic() - started)


def is_main_process() -> bool:
    """Tell whether this is the process that speaks; the others of a run train and say nothing."""
    return getattr(rank_zero_only, "rank", 0) == 0


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


def _check_same_data(last: Path, split: Split) -> None:
    """Refuse to go on with other data than the checkpoint has learnt from."""
    before: Mapping[str, Any] = read_checkpoint(last)[KEY]["data"]
    now = split.fingerprint()
    if before["sha256"] != now["sha256"]:
        raise MsfnetError(
            f"{last} has learnt from other data ({before['train']} training and "
            f"{before['validation']} validation pairs; here are {now['train']} and "
            f"{now['validation']}, or other files); give it the same, or train anew"
        )


def _report(
    trainer: lightning.Trainer, module: DepthModule, split: Split, folder: Path, seconds: float
) -> TrainReport:
    assert module.validation is not None
    scores = [
        callback.best_model_score
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint) and callback.monitor == "rel"
    ]
    score = scores[0]
    report = TrainReport(
        best=folder / "best.ckpt",
        last=folder / "last.ckpt",
        curves=folder / "curves.png",
        epochs=trainer.current_epoch,
        seconds=seconds,
        images_per_second=module.images_seen * trainer.world_size / seconds,
        protocol=module.recipe.data.protocol,
        validation=module.validation,
        best_rel=float(module.validation.rel if score is None else score),
        zero_minimum=module.zero_minimum,
        skipped=split.skipped,
    )
    if trainer.is_global_zero:
        draw_curves(folder)
        with atomic_path(folder / SUMMARY) as partial:
            summary = {"recipe": module.recipe.to_dict(), "report": report.to_dict()}
            partial.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return report
