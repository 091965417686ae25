"""A contact sheet of a data set: frames beside their depth, and how the depth is distributed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msfnet_datasets.check_report import DataCheck, ListCheck, bin_names
from msfnet_datasets.figures import (
    new_figure,
    show_depth,
    show_image,
    widen_points,
    write_figure,
)
from msfnet_datasets.sample import SPARSE_BELOW, Sample
from msfnet_runtime import MsfnetError
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from matplotlib.gridspec import GridSpec

_ROW = 170
"""Height of a row of frames, pixels."""


def draw_sheet(check: DataCheck, path: Path, *, progress: Progress = silent) -> None:
    """Draw up to a dozen frames of every list that has ground truth, two pairs a row.

    Args:
        check: what was found.
        path: PNG to write.
        progress: called after every frame.

    Raises:
        MsfnetError: no list has ground truth, an unreadable file, or ``path`` cannot be written.
    """
    lists = [checked for checked in check.lists if checked.depth]
    if not lists:
        raise MsfnetError(
            f"{check.path} has no ground truth to draw; leave the sheet out", parameter="sheet"
        )
    rows = [1 + (len(checked.shown) + 1) // 2 for checked in lists]
    figure = new_figure(1400, _ROW * sum(rows))
    parts = figure.subfigures(len(lists), 1, height_ratios=rows, squeeze=False)[:, 0]
    total = sum(len(checked.shown) for checked in lists)
    done = 0
    for part, checked, count in zip(parts, lists, rows, strict=True):
        part.suptitle(f"{checked.name}: {counted(checked.frames, 'frame')}", fontsize=9)
        grid = part.add_gridspec(count, 4)
        _draw_histogram(part.add_subplot(grid[0, :]), checked)
        for place, sample in enumerate(checked.shown):
            row, column = 1 + place // 2, 2 * (place % 2)
            _draw_pair(part, grid, (row, column), sample, checked)
            done += 1
            progress(done, total, sample.name)
    write_figure(figure, path)


def _draw_histogram(axes: Axes, checked: ListCheck) -> None:
    assert checked.depth is not None
    names = bin_names()
    axes.bar(range(len(names)), [100 * share for share in checked.depth.histogram])
    axes.set_xticks(range(len(names)), [f"{name} m" for name in names], fontsize=7)
    axes.set_ylabel("% of the depth", fontsize=7)
    axes.tick_params(labelsize=7)
    coverage = f"on {checked.depth.coverage:.1%} of the pixels"
    axes.set_title(f"{checked.depth.unit}; {coverage}", fontsize=7)


def _draw_pair(
    part: SubFigure, grid: GridSpec, place: tuple[int, int], sample: Sample, checked: ListCheck
) -> None:
    assert checked.depth is not None
    row, column = place
    image = sample.frame().image
    depth = sample.ground_truth((image.shape[0], image.shape[1]))
    low, _, high = checked.depth.range_m
    show_image(part.add_subplot(grid[row, column]), image, sample.name)
    show_depth(
        part.add_subplot(grid[row, column + 1]),
        widen_points(depth) if checked.depth.coverage < SPARSE_BELOW else depth,
        (max(low, 0.1), high),
        f"{image.shape[0]}x{image.shape[1]}",
    )
