"""Scores depth models under a named protocol.

A PyTorch checkpoint, an ONNX file and a TensorRT engine all go through :func:`evaluate`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.scoring.alignment import Alignment
from msfnet_benchmarks.scoring.constant import ConstantAccumulator, ConstantDepth
from msfnet_benchmarks.scoring.deployment import DeploymentAccumulator, DeploymentReport
from msfnet_benchmarks.scoring.facts import DataFacts, ModelFacts, scoring_warnings
from msfnet_benchmarks.scoring.metrics import (
    HEADINGS,
    TABLE_METRICS,
    DepthMetrics,
    DepthSummary,
    MetricsAccumulator,
)
from msfnet_benchmarks.scoring.protocols import PROTOCOLS, Protocol
from msfnet_benchmarks.tables import format_table
from msfnet_datasets.sample import Sample
from msfnet_runtime import DepthMap, Frame, ModelSpec, MsfnetError
from msfnet_runtime.files import atomic_path
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.words import counted

TABLE_COLUMNS = (*(HEADINGS[name] for name in TABLE_METRICS), "images")
"""The headings of :func:`table_row`."""

_MUCH_BEYOND = 0.1
"""Share of the measured depth beyond a protocol's range from which it is said."""

Estimator = Callable[[Frame], DepthMap]
"""Frame to metric depth at the frame's size, such as a ``DepthEstimator``."""


@dataclass(frozen=True, slots=True)
class ImageScore:
    """One image and how it scored."""

    name: str
    """The sample's name."""
    metrics: DepthMetrics
    """The metrics of the prediction without alignment."""
    aligned: DepthMetrics | None = None
    """The metrics after alignment to this image's ground truth; None without alignment."""


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
    deployment: DeploymentReport | None = None
    """Error by range and direction, boundaries, drift."""
    alignment: Alignment | None = None
    """How :attr:`aligned` was aligned."""
    aligned: DepthSummary | None = None
    """Means over the images of aligned predictions; never in place of :attr:`summary`."""
    constant: ConstantDepth | None = None
    """What the best constant depth scores on the same pixels; None in files of earlier versions."""
    model: ModelFacts | None = None
    """What was scored; None where a caller did not say it."""
    data: DataFacts | None = None
    """What it was scored on; None where a caller did not say it."""
    beyond: float = 0.0
    """Share of the measured depth that lies beyond the protocol's range and is not scored."""
    warnings: tuple[str, ...] = ()
    """What makes the score mean less than it seems."""

    @property
    def images(self) -> int:
        """How many images were scored."""
        return len(self.scores)

    def table_row(self) -> tuple[str, ...]:
        """Return the cells under :data:`TABLE_COLUMNS`."""
        return table_row(self.summary)

    def line(self) -> str:
        """Return REL in a line, with what a constant depth has."""
        constant = f"; {self.constant.text()}" if self.constant else ""
        return f"REL {self.summary.rel:.4f}{constant}"

    def heading(self) -> str:
        """Return what was scored, on what, by which protocol."""
        left_out = f", {self.skipped} skipped (no ground truth)" if self.skipped else ""
        known = PROTOCOLS.get(self.protocol)
        lines = [
            f"model {self.model.text()}" if self.model else "",
            f"data {self.data.text()}" if self.data else "",
            f"protocol {self.protocol}: {counted(self.images, 'image')}{left_out}",
            known.describe() if known else "",
        ]
        return "\n".join(filter(None, lines))

    def described(
        self,
        model: ModelFacts,
        data: DataFacts,
        protocol: Protocol,
        spec: ModelSpec | None,
        further: Sequence[str] = (),
    ) -> AccuracyReport:
        """Return the report with what was scored, and with what makes it mean less than it seems.

        Args:
            model: the model, or stored depth.
            data: the data set.
            protocol: what scored it.
            spec: the model's; None: stored depth.
            further: warnings of the caller.
        """
        found = [*scoring_warnings(data, self.images, protocol, spec), *further]
        if self.beyond > _MUCH_BEYOND:
            found.append(
                f"{self.beyond:.0%} of the measured depth lies beyond the "
                f"{protocol.range_m[1]:g} m that {protocol.name} scores: these are other scenes"
            )
        if self.constant and self.summary.rel >= self.constant.summary.rel:
            found.append(
                f"REL {self.summary.rel:.4f} is no better than the same depth at every pixel: "
                f"{self.constant.text()}"
            )
        return replace(self, model=model, data=data, warnings=tuple(found))

    def text(self) -> str:
        """Return a readable table that names the protocol."""
        rows = [("as predicted", *self.table_row())]
        if self.aligned:
            rows.append((f"aligned: {self.alignment}", *table_row(self.aligned)))
        if self.constant:
            rows.append(
                (f"constant {self.constant.depth_m:.3g} m", *table_row(self.constant.summary))
            )
        table = format_table(("depth", *TABLE_COLUMNS), rows)
        more = f"\n\n{self.deployment.text()}" if self.deployment else ""
        return f"{self.heading()}\n\n{table}{more}"

    def write_csv(self, path: Path) -> None:
        """Write one row an image: protocol, name, metrics, aligned metrics with their prefix.

        Raises:
            MsfnetError: the file cannot be written.
        """
        rows = [self._csv_row(score) for score in self.scores]
        with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def _csv_row(self, score: ImageScore) -> dict[str, str | float]:
        aligned = asdict(score.aligned) if score.aligned else {}
        return {
            "protocol": self.protocol,
            "name": score.name,
            **asdict(score.metrics),
            **{f"{self.alignment}_{key}": value for key, value in aligned.items()},
        }


def table_row(summary: DepthSummary) -> tuple[str, ...]:
    """Return a summary's cells under :data:`TABLE_COLUMNS`."""
    values = ((name, getattr(summary, name)) for name in TABLE_METRICS)
    return (
        *(f"{value:.2f}" if name == "silog" else f"{value:.4f}" for name, value in values),
        str(summary.images),
    )


class AccuracyAccumulator:
    """Scores the predictions of one model image by image; depth maps are not kept."""

    def __init__(self, protocol: Protocol, alignment: Alignment | None = None) -> None:
        self._protocol = protocol
        self._alignment = alignment
        self._metrics = MetricsAccumulator()
        self._aligned = MetricsAccumulator()
        self._deployment = DeploymentAccumulator(protocol)
        self._constant = ConstantAccumulator()
        self._scores: list[ImageScore] = []
        self._measured = self._beyond = 0
        """Pixels with ground truth, and those of them beyond the protocol's range."""

    def add(self, sample: Sample, predicted: DepthMap, ground_truth: NDArray[np.float32]) -> None:
        """Score a prediction; pixels that the model itself marks invalid are an error.

        Args:
            sample: the frame and its ground truth.
            predicted: depth of the frame as the protocol shows it.
            ground_truth: (H, W) metres, as the protocol leaves it.

        Raises:
            MsfnetError: it cannot be scored; the line names the ground truth file.
        """
        prediction = np.where(predicted.valid, predicted.values, np.float32(np.nan))
        try:
            score = self._score(sample.name, prediction, ground_truth)
        except MsfnetError as error:
            raise MsfnetError(f"{sample.depth_path}: {error}") from None
        self._scores.append(score)
        self._measured += int(np.count_nonzero(ground_truth > 0))
        self._beyond += int(np.count_nonzero(ground_truth >= self._protocol.range_m[1]))
        self._metrics.add(score.metrics)
        if score.aligned:
            self._aligned.add(score.aligned)

    def _score(
        self, name: str, prediction: NDArray[np.float32], ground_truth: NDArray[np.float32]
    ) -> ImageScore:
        pixels = self._protocol.pixels(prediction=prediction, ground_truth=ground_truth)
        self._deployment.add(name, pixels, prediction=prediction, ground_truth=ground_truth)
        self._constant.add(pixels.ground_truth)
        if self._alignment is None:
            return ImageScore(name, pixels.metrics())
        aligned = self._protocol.pixels(
            prediction=prediction, ground_truth=ground_truth, alignment=self._alignment
        )
        return ImageScore(name, pixels.metrics(), aligned.metrics())

    def report(self, skipped: int = 0) -> AccuracyReport:
        """Return the figures so far.

        Raises:
            MsfnetError: nothing was added.
        """
        return AccuracyReport(
            protocol=self._protocol.name,
            summary=self._metrics.summary(),
            scores=tuple(self._scores),
            skipped=skipped,
            deployment=self._deployment.report(),
            alignment=self._alignment,
            aligned=self._aligned.summary() if self._alignment else None,
            constant=self._constant.best(),
            beyond=self._beyond / max(1, self._measured),
        )


def evaluate(
    estimator: Estimator,
    samples: Sequence[Sample],
    protocol: Protocol,
    *,
    alignment: Alignment | None = None,
    skipped: int = 0,
    progress: Progress = silent,
) -> AccuracyReport:
    """Score an estimator on samples under a protocol, one image in memory at a time.

    Args:
        estimator: frame to metric depth at the frame's size.
        samples: frames with the ground truth the protocol asks for.
        protocol: what the model sees and where it is scored.
        alignment: also score predictions aligned so, reported apart.
        skipped: images that the caller left out because they have no ground truth.
        progress: called after each image.

    Raises:
        MsfnetError: no sample, an unreadable file, or one that cannot be scored, by name.
    """
    accumulator = AccuracyAccumulator(protocol, alignment)
    for item in predict_all([estimator], samples, protocol, progress):
        accumulator.add(item.sample, item.predictions[0], item.ground_truth)
    return accumulator.report(skipped)


def read_sample(
    sample: Sample, protocol: Protocol, index: int = 0
) -> tuple[Frame, NDArray[np.float32]]:
    """Return a frame as a model sees it under the protocol, and its ground truth in metres.

    Raises:
        MsfnetError: the sample cannot be read, or has a size the protocol is not defined for;
            the line names the file.
    """
    frame = sample.frame(index)
    depth = sample.ground_truth((frame.image.shape[0], frame.image.shape[1]))
    try:
        image, depth = protocol.prepare(frame.image, depth)
    except MsfnetError as error:
        raise MsfnetError(f"{sample.depth_path}: {error}") from None
    if image.shape != frame.image.shape:
        # The file's intrinsics do not describe a crop.
        frame = replace(frame, image=image, intrinsics=None)
    return frame, depth


@dataclass(frozen=True, eq=False)
class Predicted:
    """A sample, its ground truth, and what each model predicts for its frame."""

    sample: Sample
    ground_truth: NDArray[np.float32]
    """(H, W) metres, as the protocol leaves it."""
    predictions: tuple[DepthMap, ...]


def predict_all(
    estimators: Sequence[Estimator],
    samples: Sequence[Sample],
    protocol: Protocol,
    progress: Progress = silent,
) -> Iterator[Predicted]:
    """Run every model on every sample; the next one is read while the caller uses the predictions.

    It is not read earlier, since that would slow inference on the same processor.

    Raises:
        MsfnetError: there is no sample, or one cannot be read.
    """
    if not samples:
        raise MsfnetError("the data set has no frame to score; check its path")
    with ThreadPoolExecutor(1) as reader:
        pending = reader.submit(read_sample, samples[0], protocol, 0)
        for index, sample in enumerate(samples):
            frame, ground_truth = pending.result()
            predictions = tuple(estimator(frame) for estimator in estimators)
            if index + 1 < len(samples):
                pending = reader.submit(read_sample, samples[index + 1], protocol, index + 1)
            yield Predicted(sample, ground_truth, predictions)
            progress(index + 1, len(samples), sample.name)
