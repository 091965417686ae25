"""Scores anything that turns frames into depth under a named protocol.

A PyTorch checkpoint, an ONNX file and a TensorRT engine all go through :func:`evaluate`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from msfnet_benchmarks.metrics import DepthMetrics, DepthSummary, MetricsAccumulator
from msfnet_benchmarks.protocols import Protocol
from msfnet_benchmarks.samples import Sample
from msfnet_benchmarks.tables import format_table
from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.files import atomic_path
from msfnet_runtime.progress import Progress, silent

TABLE_COLUMNS = ("REL", "RMSE m", "RMSE pooled m", "log10", "SILog", "d1", "d2", "d3", "images")
"""The headings of :func:`table_row`."""


@dataclass(frozen=True)
class ImageScore:
    """One image and how it scored."""

    name: str
    """The sample's name."""
    metrics: DepthMetrics


@dataclass(frozen=True)
class AccuracyReport:
    """The depth error of one model under one protocol."""

    protocol: str
    """The protocol's name; the numbers mean nothing without it."""
    summary: DepthSummary
    """Means over the images."""
    scores: tuple[ImageScore, ...]
    """Image by image, in the samples' order."""
    skipped: int = 0
    """Images of the list that have no ground truth and were left out."""

    @property
    def images(self) -> int:
        """How many images were scored."""
        return len(self.scores)

    def table_row(self) -> tuple[str, ...]:
        """Return the cells under :data:`TABLE_COLUMNS`."""
        return table_row(self.summary)

    def text(self) -> str:
        """Return a readable table that names the protocol."""
        left_out = f", {self.skipped} skipped (no ground truth)" if self.skipped else ""
        head = f"protocol {self.protocol}: {self.images} images{left_out}"
        return f"{head}\n{format_table(TABLE_COLUMNS, [self.table_row()])}"

    def to_json(self) -> str:
        """Return protocol, summary and every image's metrics as one JSON object."""
        return json.dumps(asdict(self), indent=2)

    def write_json(self, path: Path) -> None:
        """Write :meth:`to_json`, whole or not at all.

        Raises:
            MsfnetError: the file cannot be written.
        """
        with atomic_path(path) as partial:
            partial.write_text(self.to_json() + "\n", encoding="utf-8")


def table_row(summary: DepthSummary) -> tuple[str, ...]:
    """Return a summary's cells under :data:`TABLE_COLUMNS`."""
    errors = (summary.rel, summary.rmse, summary.rmse_pooled, summary.log10)
    shares = (summary.delta1, summary.delta2, summary.delta3)
    return (
        *(f"{error:.4f}" for error in errors),
        f"{summary.silog:.2f}",
        *(f"{share:.4f}" for share in shares),
        str(summary.images),
    )


def evaluate(
    estimator: Callable[[Frame], DepthMap],
    samples: Sequence[Sample],
    protocol: Protocol,
    *,
    skipped: int = 0,
    progress: Progress = silent,
) -> AccuracyReport:
    """Score an estimator on samples under a protocol, one image in memory at a time.

    Args:
        estimator: frame to metric depth at the frame's size, e.g. a ``DepthEstimator``.
        samples: frames with the ground truth the protocol asks for.
        protocol: what the model sees and where it is scored.
        skipped: images the caller left out for want of ground truth; only reported.
        progress: told after each image.

    Raises:
        MsfnetError: no sample, an unreadable file, or one that cannot be scored, by name.
    """
    if not samples:
        raise MsfnetError("there is no frame to score; check the path of the data set")
    accumulator = MetricsAccumulator()
    scores = []
    for index, sample in enumerate(samples):
        metrics = score_sample(estimator, sample, protocol, index)
        accumulator.add(metrics)
        scores.append(ImageScore(sample.name, metrics))
        progress(index + 1, len(samples), sample.name)
    return AccuracyReport(protocol.name, accumulator.summary(), tuple(scores), skipped)


def score_sample(
    estimator: Callable[[Frame], DepthMap], sample: Sample, protocol: Protocol, index: int = 0
) -> DepthMetrics:
    """Score one sample; pixels that the model itself calls invalid count as a failure.

    Raises:
        MsfnetError: the sample cannot be read or scored; the line names its ground truth file.
    """
    frame = sample.frame(index)
    depth = sample.ground_truth((frame.image.shape[0], frame.image.shape[1]))
    try:
        image, depth = protocol.prepare(frame.image, depth)
        if image.shape != frame.image.shape:
            # The file's intrinsics do not describe a crop.
            frame = replace(frame, image=image, intrinsics=None)
        answer = estimator(frame)
        prediction = np.where(answer.valid, answer.values, np.float32(np.nan))
        return protocol.score(prediction=prediction, ground_truth=depth)
    except MsfnetError as error:
        raise MsfnetError(f"{sample.depth_path}: {error}") from None
