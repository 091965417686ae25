"""Runs one training: folder, data, trainer, pictures and summary."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_utilities.core.rank_zero import rank_zero_only

from msfnet_benchmarks.scoring.constant import ConstantDepth
from msfnet_benchmarks.scoring.metrics import DepthSummary
from msfnet_runtime import MsfnetError
from msfnet_runtime.files import cannot_write, check_writable, locked
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.typed import read_json, write_json
from msfnet_runtime.words import counted
from msfnet_train.checkpoint import CheckpointContent, read_checkpoint
from msfnet_train.data import worker_message
from msfnet_train.loop import ReportProgress, make_trainer, quiet
from msfnet_train.module import DepthData, DepthModule, check_batch
from msfnet_train.pictures import CURVES, PREDICTIONS, Predictions, draw_curves
from msfnet_train.recipe import Recipe
from msfnet_train.split import Split, check_split, open_split

BEST, LAST = "best.ckpt", "last.ckpt"
SUMMARY = "summary.json"
"""The report of a finished run, in its folder."""


@dataclass(frozen=True)
class TrainReport:
    """The result of a finished run."""

    best: Path
    """The checkpoint with the smallest validation REL."""
    last: Path
    """The checkpoint of the last epoch, from which a run resumes."""
    curves: Path
    """Picture of the losses and metrics over the run."""
    epochs: int
    """Epochs trained up to the last checkpoint."""
    seconds: float
    """Wall time of this call, validation included."""
    images_per_second: float
    """Training images per second of that wall time."""
    protocol: str
    """The protocol of the validation."""
    validation: DepthSummary
    """Metrics of the last validation."""
    best_rel: float
    """Validation REL of the best checkpoint."""
    zero_minimum: float | None
    """Share of the pixels at which EDA's channel minimum is 0; None without EDA."""
    skipped: int
    """Bad samples that were left out."""
    constant: ConstantDepth | None = None
    """What the best constant depth scores on the same frames; None in files of earlier versions."""

    def text(self) -> str:
        """Return the report in a few lines."""
        v = self.validation
        lines = [
            f"trained {counted(self.epochs, 'epoch')} in {self.seconds:.0f} s "
            f"({self.images_per_second:.1f} images/s)",
            f"{self.protocol}, {counted(v.images, 'image')}: "
            f"REL {v.rel:.3f} (best {self.best_rel:.3f})  "
            f"RMSE {v.rmse:.3f} m (pooled {v.rmse_pooled:.3f})  log10 {v.log10:.3f}  "
            f"delta {v.delta1:.3f} / {v.delta2:.3f} / {v.delta3:.3f}",
        ]
        if self.constant:
            beaten = "" if v.rel < self.constant.summary.rel else ", which this run does not beat"
            lines.append(f"for comparison, {self.constant.text()}{beaten}")
        if self.skipped:
            lines.append(f"{counted(self.skipped, 'bad sample')} left out")
        if self.zero_minimum is not None:
            lines.append(describe_zero_minimum(self.zero_minimum))
        lines += [f"best: {self.best}", f"last: {self.last}", f"curves: {self.curves}"]
        return "\n".join(lines)

    @classmethod
    def read(cls, folder: Path) -> TrainReport:
        """Return the report of the finished run in ``folder``.

        Raises:
            MsfnetError: ``folder`` holds no finished run, or its summary is damaged.
        """
        return read_json(folder / SUMMARY, Summary).report.moved_to(folder)

    def moved_to(self, folder: Path) -> TrainReport:
        """Return the report with all paths in another folder."""
        best, last, curves = (folder / path.name for path in (self.best, self.last, self.curves))
        return replace(self, best=best, last=last, curves=curves)


@dataclass(frozen=True)
class Summary:
    """The content of ``summary.json``; its paths are file names within the run's folder."""

    recipe: Mapping[str, Any]
    report: TrainReport


def describe_zero_minimum(share: float) -> str:
    """Return one line that says what a share of zero channel minima means for EDA (Eq. 2)."""
    found = f"EDA: the channel minimum is 0 at {share:.1%} of the pixels"
    if share < 0.5:
        return found
    return f'{found}, so EDA acts as CBAM-S; use network.eda_input = "projection"'


def train(
    recipe: Recipe,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    skip_bad: bool = False,
    progress: Progress = silent,
) -> TrainReport:
    """Train MSFNet.

    Args:
        recipe: everything that decides the run.
        data: the data set, in the recipe's layout.
        out: folder for ``best.ckpt``, ``last.ckpt``, the logs (CSV, TensorBoard), pictures
            (``curves.png``, ``predictions.png``) and the record of the data (``data.json``).
        resume: continue from ``last.ckpt`` in ``out``.
        skip_bad: leave out samples that cannot be used, instead of refusing the data.
        progress: called for every sample checked, then for every training step, validation
            batch and saved checkpoint with the training steps done and in all. Of several
            processes only the main one calls it.

    Raises:
        MsfnetError: no such data, bad samples in it, ``out`` holds another run, is in use or cannot
            be written, nothing to resume, or a loss that is not finite.
        KeyboardInterrupt: Ctrl-C; :func:`describe_kept` says what is left.
    """
    folder, started = Path(out), time.monotonic()
    report = progress if is_main_process() else silent
    split = open_split(recipe.data, Path(data))
    check_batch(recipe, len(split.train))
    start = find_resumable(folder) if resume else None
    if folder.resolve() == Path(data).resolve():
        raise MsfnetError(f"{folder} is the data set; choose another folder for the run")
    _make_folder(folder)
    with locked(folder) if is_main_process() else nullcontext():
        for name in (BEST, LAST) if is_main_process() else ():
            check_writable(folder / name)  # and remove what a killed run has left of it
        before = _read_resumable(start, recipe) if start else None
        if not start:
            _start_folder(folder, recipe)
        split = check_split(
            split,
            folder,
            skip_bad=skip_bad,
            just_checked=not is_main_process(),
            progress=lambda done, total, what: report(done, total, f"checking the data, {what}"),
        )
        if split.skipped:
            check_batch(recipe, len(split.train))
        if start and before:
            _check_same_data(start, before.data, split)
        with quiet():
            report(0, 0, f"preparing the network from {start.name}" if start else _PREPARING)
            lightning.seed_everything(recipe.trainer.seed, verbose=False)
            module = DepthModule(recipe, split.fingerprint(), pretrained=start is None)
            predictions = Predictions(recipe, [sample.name for sample in split.validation], folder)
            trainer = make_trainer(
                recipe,
                folder,
                pairs=len(split.train),
                callbacks=[ReportProgress(report), predictions],
            )
            loaders = DepthData(split, recipe)
            with _plain_errors(trainer, folder):
                trainer.fit(module, datamodule=loaders, ckpt_path=start, weights_only=True)
                if module.validation is None:
                    trainer.validate(module, datamodule=loaders, verbose=False)
        report(trainer.global_step, trainer.global_step, "drawing the curves")
        return _summarise(trainer, module, split, folder, time.monotonic() - started)


_PREPARING = "preparing the network"


@contextmanager
def _plain_errors(trainer: lightning.Trainer, folder: Path) -> Iterator[None]:
    """End a run that fails: its other processes too, and with a line where the user can act.

    Raises:
        MsfnetError: the run's own errors, a full disk, no memory, or a killed reading process.
        KeyboardInterrupt: Ctrl-C, which Lightning turns into an exit.
    """
    heard = signal.getsignal(signal.SIGINT)
    try:
        yield
    except BaseException as error:
        if trainer.strategy.launcher:
            trainer.strategy.launcher.kill(signal.SIGTERM)
        if isinstance(error, SystemExit) and trainer.interrupted:
            signal.signal(signal.SIGINT, heard)  # Lightning has switched Ctrl-C off
            raise KeyboardInterrupt from None
        if line := _explain(error, folder):
            kept = describe_kept(folder)
            raise MsfnetError(
                f"{line}; {kept}, from which the run can be resumed" if kept else line,
                parameter="resume" if kept else None,
            ) from None
        raise


def _explain(error: BaseException, folder: Path) -> str:
    """Return the line for an error that a user can act on; an empty one for others."""
    text = str(error)
    if isinstance(error, MsfnetError):
        return worker_message(error)
    if isinstance(error, OSError):
        return str(cannot_write(folder, error))
    if isinstance(error, MemoryError) or any(words in text for words in _SHORT_OF_MEMORY):
        return "there is not enough memory; lower trainer.batch_size or data.crop"
    if "DataLoader worker" in text and ("killed" in text or "exited unexpectedly" in text):
        return (
            "a reading process was killed, which happens when memory is short; lower "
            "trainer.workers or trainer.batch_size"
        )
    return ""


_SHORT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "MemoryError")
"""Words by which PyTorch's errors, and those of reading processes, say so."""


def describe_kept(folder: Path) -> str:
    """Return in words what an unfinished run has left to resume from; empty if nothing."""
    try:
        start = find_resumable(folder)
        content = read_checkpoint(start)
    except MsfnetError:
        return ""
    return f"{start} holds {content.epochs} of {counted(content.recipe.trainer.epochs, 'epoch')}"


def is_main_process() -> bool:
    """Return whether this process reports for the run; the others of a DDP run are silent."""
    return getattr(rank_zero_only, "rank", 0) == 0


def find_resumable(folder: Path) -> Path:
    """Return the checkpoint from which a run continues.

    This is the last one, or the best one where none could be written after it.

    Raises:
        MsfnetError: there is neither.
    """
    for name in (LAST, BEST):
        if (folder / name).is_file():
            return folder / name
    raise MsfnetError(f"nothing to resume: {folder / LAST} does not exist; start a new run")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise cannot_write(folder, error) from None


def _start_folder(folder: Path, recipe: Recipe) -> None:
    """Write the recipe into the folder of a new run, which may hold one that has not begun."""
    if any((folder / name).exists() for name in (LAST, BEST, SUMMARY, CURVES, PREDICTIONS)):
        raise MsfnetError(
            f"{folder} already holds a run; resume it or choose another folder", parameter="resume"
        )
    write_json(folder / "recipe.json", recipe.to_dict())


_TARGET = ("depth_kind", "depth_range_m", "inverse_scale", "train_depth", "validation_depth")
"""Keys of the recipe's data that decide what the network learns to predict."""


def _read_resumable(last: Path, recipe: Recipe) -> CheckpointContent:
    """Return the content of a run's checkpoint, if the recipe can continue it.

    Raises:
        MsfnetError: unreadable, weights, optimiser or schedule do not fit the recipe, or the best
            checkpoint is not beside it.
    """
    content = read_checkpoint(last)
    before = content.recipe
    for table in ("network", "optimizer"):
        if getattr(before, table) != getattr(recipe, table):
            raise MsfnetError(
                f"{last} was trained with another [{table}] than the recipe's; use its own recipe"
            )
    for name in _TARGET:
        if getattr(before.data, name) != getattr(recipe.data, name):
            raise MsfnetError(
                f"{last} was trained with another data.{name} than the recipe's; use its own recipe"
            )
    if recipe.optimizer.schedule == "onecycle" and before.trainer.epochs != recipe.trainer.epochs:
        raise MsfnetError(
            f"the one-cycle schedule of {last} ends after {before.trainer.epochs} epochs; keep "
            "trainer.epochs, or start a new run"
        )
    if content.epochs >= before.trainer.validate_every and not last.with_name(BEST).is_file():
        raise MsfnetError(
            f"{last.with_name(BEST)} is missing; copy it beside {last.name}, or start a new run"
        )
    return content


def _check_same_data(last: Path, before: Mapping[str, Any], split: Split) -> None:
    """Refuse to continue with other data than the checkpoint was trained on."""
    now = split.fingerprint()
    if before["sha256"] != now["sha256"]:
        raise MsfnetError(
            f"{last} was trained on other data ({before['train']} training and "
            f"{before['validation']} validation pairs; here are {now['train']} and "
            f"{now['validation']}, or other files); use the same data, or start a new run"
        )


def _summarise(
    trainer: lightning.Trainer, module: DepthModule, split: Split, folder: Path, seconds: float
) -> TrainReport:
    """Return the report; the main process also draws the curves and writes the summary."""
    assert module.validation is not None
    score = next(
        callback.best_model_score
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint) and callback.monitor == "rel"
    )
    report = TrainReport(
        best=folder / BEST,
        last=folder / LAST,
        curves=folder / CURVES,
        epochs=trainer.current_epoch,
        seconds=seconds,
        images_per_second=module.images_seen * trainer.world_size / seconds,
        protocol=module.recipe.data.protocol,
        validation=module.validation,
        best_rel=float(module.validation.rel if score is None else score),
        zero_minimum=module.zero_minimum,
        skipped=split.skipped,
        constant=module.constant,
    )
    if trainer.is_global_zero:
        draw_curves(folder, module.constant)
        write_json(folder / SUMMARY, Summary(module.recipe.to_dict(), report.moved_to(Path())))
    return report
