"""What a run looks like: predictions beside ground truth, and the curves of loss and metrics."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray

from msfnet_datasets.figures import new_figure, show_depth, show_image, write_figure
from msfnet_runtime.colour import colour_depth
from msfnet_train.data import ValidationBatch
from msfnet_train.recipe import IMAGENET_MEAN, IMAGENET_STD, Recipe

PREDICTIONS = "predictions.png"
CURVES = "curves.png"
SHOWN_AT_MOST = 6

Shown = tuple[str, NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]
"""Name, (h, w, 3) uint8 RGB as the network sees it, ground truth and prediction, (H, W) metres."""


class Predictions(Callback):
    """Keeps some validation frames: in TensorBoard every epoch, as ``predictions.png`` at the end.

    Args:
        recipe: gives the depth range of the colours.
        names: of all validation samples; those shown are spread evenly over them.
        folder: of the run.
    """

    def __init__(self, recipe: Recipe, names: Sequence[str], folder: Path) -> None:
        count = min(SHOWN_AT_MOST, len(names))
        self._names = {names[int(i)] for i in np.linspace(0, len(names) - 1, count).round()}
        self._range_m = recipe.data.depth_range_m
        self._folder = folder
        self._shown: list[Shown] = []

    def on_validation_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Forget the frames of the epoch before."""
        self._shown = []

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: ValidationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep those of the batch that are shown; ``outputs`` holds its depth maps."""
        for place, name in enumerate(batch.names):
            if name in self._names:
                image = _to_rgb(batch.image[place].cpu().numpy())
                self._shown.append(
                    (name, image, batch.ground_truth[place], outputs["depths"][place])
                )

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Write ground truth above prediction to TensorBoard."""
        for logger in trainer.loggers:
            if trainer.is_global_zero and isinstance(logger, TensorBoardLogger):
                for name, _, truth, prediction in self._shown:
                    pair = [
                        colour_depth(depth, depth > 0, self._range_m)
                        for depth in (truth, prediction)
                    ]
                    logger.experiment.add_image(
                        f"validation/{name}",
                        np.vstack(pair),
                        trainer.current_epoch,
                        dataformats="HWC",
                    )

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draw the last validation's frames."""
        if trainer.is_global_zero and self._shown:
            draw_predictions(self._shown, self._range_m, self._folder / PREDICTIONS)


def _to_rgb(normalised: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a normalised (3, h, w) image as (h, w, 3) uint8 RGB."""
    scaled = normalised.transpose(1, 2, 0) * np.array(IMAGENET_STD) + np.array(IMAGENET_MEAN)
    return np.asarray(np.clip(np.rint(scaled * 255), 0, 255), np.uint8)


def draw_predictions(shown: Sequence[Shown], range_m: tuple[float, float], path: Path) -> None:
    """Draw frames, ground truth and predictions, one row each, on one scale of metres."""
    height, width = shown[0][1].shape[:2]
    figure = new_figure(1200, 60 + len(shown) * max(120, 340 * height // width))
    grid = figure.subplots(len(shown), 3, squeeze=False)
    for row, (name, image, truth, prediction) in zip(grid, shown, strict=True):
        show_image(row[0], image, name)
        show_depth(row[1], truth, range_m, "ground truth")
        show_depth(row[2], prediction, range_m, "prediction")
    write_figure(figure, path)


def draw_curves(folder: Path) -> Path:
    """Draw the losses by step and the metrics by epoch of a run, as its CSV logs have them.

    Args:
        folder: of the run; a resumed run has several logs, later ones win.

    Returns:
        The PNG in the folder.
    """
    losses, metrics = _read_logs(folder)
    figure = new_figure(1200, 420)
    left, middle, right = figure.subplots(1, 3)
    for name, points in sorted(losses.items()):
        left.plot(*zip(*sorted(points.items()), strict=True), label=name, linewidth=1)
    left.set(xlabel="step", title="training loss, weighted terms", yscale="log")
    for axes, title, names in (
        (middle, "validation error", ("rel", "log10", "rmse")),
        (right, "validation accuracy", ("delta1", "delta2", "delta3")),
    ):
        for name in names:
            if name in metrics:
                axes.plot(*zip(*sorted(metrics[name].items()), strict=True), ".-", label=name)
        axes.set(xlabel="epoch", title=title)
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    write_figure(figure, folder / CURVES)
    return folder / CURVES


_Curves = dict[str, dict[int, float]]


def _read_logs(folder: Path) -> tuple[_Curves, _Curves]:
    """Return the training terms by step and the validation metrics by epoch, counted from 1."""
    losses: _Curves = defaultdict(dict)
    metrics: _Curves = defaultdict(dict)
    logs = sorted(folder.glob("csv*/metrics.csv"), key=lambda log: log.stat().st_mtime)
    for log in logs:
        with log.open(newline="", encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                for name, text in row.items():
                    if not text or name in ("step", "epoch"):
                        continue
                    if name.startswith("train/"):
                        losses[name.removeprefix("train/")][int(row["step"])] = float(text)
                    elif row["epoch"]:
                        metrics[name][int(row["epoch"]) + 1] = float(text)
    return losses, metrics
