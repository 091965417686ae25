"""Draws a run: predictions beside ground truth, and the curves of losses and metrics."""

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

from msfnet_benchmarks.scoring.constant import ConstantDepth
from msfnet_benchmarks.scoring.metrics import SHARES
from msfnet_datasets.figures import new_figure, show_depth, show_image, write_figure
from msfnet_runtime import ModelSpec
from msfnet_runtime.colour import colour_depth
from msfnet_train.data import ValidationBatch
from msfnet_train.recipe import Recipe

PREDICTIONS = "predictions.png"
CURVES = "curves.png"
MAX_SHOWN = 6
"""Validation frames in the picture of predictions, at most."""

Shown = tuple[str, NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]
"""Name, (h, w, 3) uint8 RGB as the network sees it, ground truth and prediction, (H, W) metres."""


class Predictions(Callback):
    """Shows some validation frames: in TensorBoard every epoch, in ``predictions.png`` at the end.

    Args:
        recipe: sets the depth range of the colours.
        names: names of all validation samples; the shown ones are spread evenly over them.
        folder: the run's folder.
    """

    def __init__(self, recipe: Recipe, names: Sequence[str], folder: Path) -> None:
        count = min(MAX_SHOWN, len(names))
        self._names = {names[int(i)] for i in np.linspace(0, len(names) - 1, count).round()}
        self._spec = recipe.spec()
        self._range_m = recipe.data.depth_range_m
        self._folder = folder
        self._shown: list[Shown] = []

    def on_validation_epoch_start(self, *args: Any, **kwargs: Any) -> None:
        """Forget the frames of the previous epoch."""
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
        """Keep the batch's frames that are to be shown; ``outputs`` holds its depth maps."""
        for name, image, truth, depth in zip(
            batch.names, batch.image, batch.ground_truth, outputs["depths"], strict=True
        ):
            if name in self._names:
                self._shown.append((name, _to_rgb(image.cpu().numpy(), self._spec), truth, depth))

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, *args: Any, **kwargs: Any
    ) -> None:
        """Write ground truth above prediction to TensorBoard."""
        for logger in trainer.loggers:
            if trainer.is_global_zero and isinstance(logger, TensorBoardLogger):
                for name, _, *depths in self._shown:
                    pair = np.vstack([colour_depth(d, d > 0, self._range_m) for d in depths])
                    logger.experiment.add_image(
                        f"validation/{name}", pair, trainer.current_epoch, dataformats="HWC"
                    )

    def on_fit_end(self, trainer: lightning.Trainer, *args: Any, **kwargs: Any) -> None:
        """Draw the frames of the last validation: image, ground truth and prediction per row."""
        if not (trainer.is_global_zero and self._shown):
            return
        height, width = self._shown[0][1].shape[:2]
        figure = new_figure(1200, 60 + len(self._shown) * max(120, 340 * height // width))
        grid = figure.subplots(len(self._shown), 3, squeeze=False)
        for row, (name, image, truth, prediction) in zip(grid, self._shown, strict=True):
            show_image(row[0], image, name)
            show_depth(row[1], truth, self._range_m, "ground truth")
            show_depth(row[2], prediction, self._range_m, "prediction")
        write_figure(figure, self._folder / PREDICTIONS)


def _to_rgb(normalised: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.uint8]:
    """Return a normalised (3, h, w) image as (h, w, 3) uint8 RGB."""
    scaled = normalised.transpose(1, 2, 0) * np.array(spec.std) + np.array(spec.mean)
    return np.asarray(np.clip(np.rint(scaled * 255), 0, 255), np.uint8)


def draw_curves(folder: Path, constant: ConstantDepth | None = None) -> None:
    """Draw a run's losses by step and its metrics by epoch from its CSV logs into ``curves.png``.

    Args:
        folder: the run's folder. A resumed run has several logs; the newest value of a step or
            epoch is drawn.
        constant: the best constant depth; its REL is drawn as a line to be beaten.
    """
    curves = _read_logs(folder)
    figure = new_figure(1320, 420)
    loss, error, accuracy = figure.subplots(1, 3)
    loss.set(xlabel="step", title="training loss, weighted terms", yscale="log")
    error.set(xlabel="epoch", ylabel="REL, log10", title="validation error")
    accuracy.set(xlabel="epoch", title="validation accuracy")
    metres = error.twinx()
    metres.set_ylabel("RMSE, metres")
    terms = tuple(sorted(name for name in curves if name.startswith("train/")))
    panels = ((loss, terms), (error, ("rel", "log10")), (metres, ("rmse",)), (accuracy, SHARES))
    for axes, names in panels:
        for name in (n for n in names if n in curves):
            points = zip(*sorted(curves[name].items()), strict=True)
            style = {"linewidth": 1} if axes is loss else {"marker": "."}
            colour = {"color": "tab:red", "linestyle": ":"} if axes is metres else {}
            axes.plot(*points, label=name.removeprefix("train/"), **style, **colour)
    if constant:
        rel, name = constant.summary.rel, f"rel of a constant {constant.depth_m:.3g} m"
        error.axhline(rel, label=name, color="grey", linestyle="--", linewidth=1)
    for axes in (error, metres):
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    for axes in (loss, error, accuracy):
        axes.grid(alpha=0.3)
        lines = [*axes.get_lines(), *(metres.get_lines() if axes is error else ())]
        if lines:
            axes.legend(handles=lines, fontsize=8)
    write_figure(figure, folder / CURVES)


def _read_logs(folder: Path) -> dict[str, dict[int, float]]:
    """Return the logged values by name: training terms by step, metrics by epoch from 1."""
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for log in sorted(folder.glob("csv*/metrics.csv"), key=lambda path: path.stat().st_mtime):
        with log.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, text in row.items():
                    training = name.startswith("train/")
                    number = row["step"] if training else row["epoch"]
                    if text and number and name not in {"step", "epoch"}:
                        curves[name][int(number) + (not training)] = float(text)
    return curves
