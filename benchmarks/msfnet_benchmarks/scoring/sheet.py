"""A picture of the best, the median and the worst frame of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.scoring.accuracy import AccuracyReport, Estimator, read_sample
from msfnet_benchmarks.scoring.protocols import Protocol
from msfnet_datasets.figures import (
    new_figure,
    show_depth,
    show_error,
    show_image,
    widen_points,
    write_figure,
)
from msfnet_datasets.sample import Sample

_PANEL = 420
"""Width of a picture on the sheet, pixels."""


@dataclass(frozen=True, eq=False)
class SheetRow:
    """One frame of the sheet, all of it (H, W)."""

    title: str
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    ground_truth: NDArray[np.float32]
    """Metres, 0 = none."""
    prediction: NDArray[np.float32]
    """Metres, NaN = none."""
    valid: NDArray[np.bool_]
    """The pixels that are scored."""


def pick_rows(
    report: AccuracyReport, estimator: Estimator, samples: Sequence[Sample], protocol: Protocol
) -> list[SheetRow]:
    """Return the frames of the smallest, the median and the largest REL, predicted again.

    Args:
        report: of these samples.
        estimator: what was scored.
        samples: in the report's order.
        protocol: what they were scored by.

    Raises:
        MsfnetError: as scoring them.
    """
    order = np.argsort([score.metrics.rel for score in report.scores], kind="stable").tolist()
    places = {"best": 0, "median": (len(order) - 1) // 2, "worst": len(order) - 1}
    rows = []
    for word, place in places.items():
        sample, score = samples[order[place]], report.scores[order[place]]
        title = f"{word} of {len(order)}: {sample.name}, REL {score.metrics.rel:.3f}"
        rows.append(_row(title, estimator, sample, protocol))
    return rows


def _row(title: str, estimator: Estimator, sample: Sample, protocol: Protocol) -> SheetRow:
    frame, ground_truth = read_sample(sample, protocol)
    predicted = estimator(frame)
    size = ground_truth.shape[0], ground_truth.shape[1]
    depth = np.where(predicted.valid, predicted.values, np.float32(np.nan))
    prediction = protocol.restore(depth, size)
    image = frame.image if frame.image.shape[:2] == size else sample.frame().image
    clipped = protocol.clip(prediction)
    return SheetRow(title, image, ground_truth, clipped, protocol.valid(ground_truth))


def write_sheet(path: Path, rows: Sequence[SheetRow], protocol: Protocol, scored: str = "") -> None:
    """Write the sheet as PNG: RGB, ground truth, prediction, signed error; one row a frame.

    Depth has one scale for all rows, error another; both in metres.

    Args:
        path: of the file.
        rows: as :func:`pick_rows` returns them.
        protocol: what they were scored by.
        scored: the result in words, for the title.

    Raises:
        MsfnetError: the file cannot be written, or matplotlib is missing.
    """
    range_m = _range([row.ground_truth[row.valid] for row in rows])
    errors = [np.where(row.valid, row.prediction - row.ground_truth, np.nan) for row in rows]
    limit_m = float(np.nanpercentile(np.abs(np.concatenate([e.ravel() for e in errors])), 95))
    height, width = rows[0].ground_truth.shape
    figure = new_figure(4 * _PANEL, len(rows) * (int((_PANEL - 50) * height / width) + 40) + 30)
    title = f"protocol {protocol.name}"
    figure.suptitle(f"{title}: {scored}" if scored else title, fontsize=9)
    axes = figure.subplots(len(rows), 4, squeeze=False)
    for line, row, error in zip(axes, rows, errors, strict=True):
        show_image(line[0], row.image, row.title)
        show_depth(line[1], _visible(row.ground_truth, protocol), range_m, "ground truth")
        show_depth(line[2], row.prediction, range_m, "prediction")
        show_error(line[3], _visible(error, protocol), max(limit_m, 1e-3), "error where scored")
    write_figure(figure, path)


def _range(depths: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Return the 1st and the 99th percentile of the scored ground truth, metres."""
    low, high = np.percentile(np.concatenate(depths), (1, 99))
    return float(low), float(max(high, 1.01 * low))


def _visible(depth: NDArray[np.floating], protocol: Protocol) -> NDArray[np.floating]:
    """Widen the points of sparse ground truth or its error; where they meet, the largest stays."""
    return depth if protocol.dense else widen_points(depth)
