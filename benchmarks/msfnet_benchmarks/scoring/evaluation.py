"""Scores what a user names, a model or a folder of depth maps, and writes what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from msfnet_benchmarks.scoring.accuracy import AccuracyReport, Estimator, evaluate
from msfnet_benchmarks.scoring.alignment import Alignment, find_alignment
from msfnet_benchmarks.scoring.comparison import ComparisonReport, compare_models
from msfnet_benchmarks.scoring.predictions import PredictionFolder
from msfnet_benchmarks.scoring.protocols import Protocol, find_protocol
from msfnet_benchmarks.scoring.sheet import pick_rows, write_sheet
from msfnet_benchmarks.scoring.steadiness import FlickerReport, measure_flicker
from msfnet_datasets.frame_statistics import (
    describe_frame,
    unlike,
)
from msfnet_datasets.layouts import open_dataset
from msfnet_datasets.sample import Sample, spread
from msfnet_runtime import DepthEstimator, Engine, ModelSpec, MsfnetError, open_engine
from msfnet_runtime.depth_storage import PngStorage
from msfnet_runtime.files import atomic_path, check_writable
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sources import open_source
from msfnet_runtime.typed import to_json, to_plain

Opener = Callable[..., Engine]
"""Opens a model by its path and options, as :func:`~msfnet_runtime.open_engine` does."""

_UNIT_CHECKS = 3
"""Depth maps whose unit is held against the ground truth before the work begins."""

_LOOKED_AT = 64
"""Frames that are held against those of a model's calibration."""


@dataclass(frozen=True)
class Outputs:
    """Files to write; None: not that one."""

    json: Path | None = None
    """Everything measured, image by image."""
    csv: Path | None = None
    """One row an image."""
    sheet: Path | None = None
    """PNG of the best, the median and the worst frame."""

    def check(self) -> None:
        """Find out before the work whether they can be written.

        Raises:
            MsfnetError: one cannot, or the sheet is no PNG.
        """
        if self.sheet and self.sheet.suffix.lower() != ".png":
            raise MsfnetError(f"{self.sheet} is no PNG; name the sheet e.g. sheet.png")
        for path in (self.json, self.csv, self.sheet):
            if path:
                check_writable(path)


@dataclass(frozen=True)
class EvaluationReport:
    """What one call of ``msfnet evaluate`` found."""

    accuracy: AccuracyReport | None = None
    """None where only flicker was asked for."""
    comparison: ComparisonReport | None = None
    """With the model that it was held against, if any."""
    flicker: FlickerReport | None = None
    """Before a static camera, if one was named."""
    warnings: tuple[str, ...] = ()
    """In which ways the frames look unlike those that the model was calibrated on."""

    def text(self) -> str:
        """Return it in readable tables."""
        parts = (self.accuracy, self.comparison, self.flicker)
        warnings = [f"warning: {warning}" for warning in self.warnings]
        return "\n\n".join([*(part.text() for part in parts if part), *warnings])

    def to_json(self) -> str:
        """Return everything measured as one JSON object: the accuracy's fields at the top."""
        against = None
        if self.comparison:
            against = {
                "summary": self.comparison.reference.summary,
                "change": self.comparison.change(),
                "parity": self.comparison.parity,
            }
        return to_json(
            {
                **(to_plain(self.accuracy) if self.accuracy else {}),
                "against": against,
                "flicker": self.flicker,
                "warnings": self.warnings,
            }
        )


@dataclass(frozen=True)
class EvaluationRequest:
    """What to score, on what, and how."""

    model: Path | None = None
    """Checkpoint, ONNX file or engine."""
    predictions: Path | None = None
    """A folder of 16-bit PNG files in place of a model."""
    prediction_unit: PngStorage | None = None
    """How they are stored; None: the folder's manifest says it."""
    data: Path | None = None
    """Frames with ground truth; None to measure flicker alone."""
    protocol: str | None = None
    """Name of the protocol; goes with :attr:`data`."""
    samples: str | None = None
    """A list of the data set, or a list file; the data set's own choice if left out."""
    max_frames: int | None = None
    """Score so many, spread evenly over the list; all if left out."""
    alignment: str | None = None
    """Score predictions aligned so as well, apart."""
    against: Path | None = None
    """A model that the first is held against on the same frames."""
    static: str | None = None
    """A source of a camera that does not move, to measure flicker."""
    provider: str = "cpu"
    """ONNX Runtime's."""


def evaluate_model(
    request: EvaluationRequest,
    outputs: Outputs | None = None,
    *,
    open_model: Opener = open_engine,
    progress: Progress = silent,
) -> EvaluationReport:
    """Score a checkpoint, an ONNX file, an engine or stored depth; the same code for all.

    Args:
        request: what to score.
        outputs: files to write; tried before the work.
        open_model: opens a model by its path and ``provider``.
        progress: called after every frame.

    Raises:
        MsfnetError: anything that cannot be opened, read, scored or written.
    """
    outputs = outputs or Outputs()
    alignment = find_alignment(request.alignment) if request.alignment else None
    protocol = find_protocol(request.protocol) if request.protocol else None
    outputs.check()
    with ExitStack() as stack:
        model = _open(request.model, request.provider, open_model, stack)
        reference = _open(request.against, request.provider, open_model, stack)
        report = EvaluationReport()
        if request.data and protocol:
            report = _score(request, protocol, alignment, model, reference, outputs, progress)
        if request.static and model:
            with open_source(request.static) as source:
                frames = islice(source, request.max_frames)
                report = replace(report, flicker=measure_flicker(model, frames, progress=progress))
    if outputs.json:
        with atomic_path(outputs.json) as partial:
            partial.write_text(report.to_json() + "\n", encoding="utf-8")
    return report


def _open(
    path: Path | None, provider: str, open_model: Opener, stack: ExitStack
) -> DepthEstimator | None:
    if path is None:
        return None
    return DepthEstimator(stack.enter_context(open_model(path, provider=provider)))


def _score(
    request: EvaluationRequest,
    protocol: Protocol,
    alignment: Alignment | None,
    model: DepthEstimator | None,
    reference: DepthEstimator | None,
    outputs: Outputs,
    progress: Progress,
) -> EvaluationReport:
    """Score what was opened and write what shows single images."""
    assert request.data is not None
    found = open_dataset(request.data, split=request.samples, ground_truth=protocol.ground_truth)
    samples, skipped = spread(found, request.max_frames), len(found.without_ground_truth)
    estimator: Estimator = model or _stored(request, samples, found, protocol)
    if reference is None:
        accuracy = evaluate(
            estimator, samples, protocol, alignment=alignment, skipped=skipped, progress=progress
        )
        report = EvaluationReport(accuracy)
    else:
        comparison = compare_models(
            estimator,
            reference,
            samples,
            protocol,
            alignment=alignment,
            skipped=skipped,
            progress=progress,
        )
        report = EvaluationReport(comparison.candidate, comparison)
    assert report.accuracy is not None
    if outputs.csv:
        report.accuracy.write_csv(outputs.csv)
    if outputs.sheet:
        rows = pick_rows(report.accuracy, estimator, samples, protocol)
        write_sheet(outputs.sheet, rows, protocol)
    return replace(report, warnings=_unlike_calibration(model.spec, samples)) if model else report


def _unlike_calibration(spec: ModelSpec, samples: Sequence[Sample]) -> tuple[str, ...]:
    """Return how the frames differ from those a model was calibrated on; nothing if it was not."""
    if spec.calibration is None or spec.calibration.summary is None:
        return ()
    looked_at = [describe_frame(sample.frame()) for sample in spread(samples, _LOOKED_AT)]
    return tuple(unlike(spec.calibration.summary, looked_at))


def _stored(
    request: EvaluationRequest,
    samples: Sequence[Sample],
    listed: Sequence[Sample],
    protocol: Protocol,
) -> PredictionFolder:
    assert request.predictions is not None
    stored = PredictionFolder(
        request.predictions, samples, protocol, request.prediction_unit, among=listed
    )
    if request.alignment is None:
        stored.check_unit(spread(samples, _UNIT_CHECKS))
    return stored
