"""Scores a model or a folder of stored depth maps on a data set, and writes what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from msfnet_benchmarks.scoring.accuracy import AccuracyReport, evaluate
from msfnet_benchmarks.scoring.alignment import Alignment
from msfnet_benchmarks.scoring.comparison import ComparisonReport, compare_models
from msfnet_benchmarks.scoring.facts import ModelFacts, data_facts
from msfnet_benchmarks.scoring.predictions import PredictionFolder
from msfnet_benchmarks.scoring.protocols import Protocol, find_protocol
from msfnet_benchmarks.scoring.sheet import pick_rows, write_sheet
from msfnet_benchmarks.scoring.steadiness import FlickerReport, measure_flicker
from msfnet_datasets.frame_statistics import describe_frame, unlike
from msfnet_datasets.layouts import open_dataset
from msfnet_datasets.sample import Sample, spread
from msfnet_runtime import DepthEstimator, Engine, ModelSpec, MsfnetError, open_engine
from msfnet_runtime.depth_storage import PngStorage
from msfnet_runtime.files import check_writable
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sources import open_source
from msfnet_runtime.typed import to_json, to_plain

Opener = Callable[..., Engine]
"""Opens a model by its path and options, as :func:`~msfnet_runtime.open_engine` does."""

_UNIT_CHECKS = 3
"""Stored depth maps whose unit is compared with the ground truth before the work begins."""

_DESCRIBED = 64
"""Frames that are compared with those of a model's calibration."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of an evaluation."""

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
    """A list of the data set, or a list file; the data set's own choice if None."""
    frames: int = 0
    """Frames to score, spread evenly over the list, and to measure flicker on; 0: all."""
    alignment: Alignment | None = None
    """Also score predictions aligned so, reported apart."""
    against: Path | None = None
    """A model that is scored on the same frames for comparison."""
    static: str | None = None
    """A source of a camera that does not move, to measure flicker."""
    provider: str = "cpu"
    """What runs ONNX files."""
    threads: int = 0
    """CPU threads; 0: the library's choice."""
    csv: Path | None = None
    """File to write with one row an image."""
    sheet: Path | None = None
    """PNG to write of the best, the median and the worst frame."""

    def check_combination(self) -> None:
        """Refuse options of which one would be ignored.

        Raises:
            MsfnetError: data without a protocol or the reverse, or flicker without a model.
        """
        if (self.data is None) != (self.protocol is None):
            raise MsfnetError("data and protocol go together; give both", parameter="protocol")
        if self.static and not self.model:
            raise MsfnetError("a static source needs a model to show its frames to")
        if self.data is None and not self.static:
            raise MsfnetError("there is nothing to score; name data with a protocol")

    def check_outputs(self) -> None:
        """Check before the work that the files can be written.

        Raises:
            MsfnetError: one cannot, or the sheet is not a PNG.
        """
        if self.sheet and self.sheet.suffix.lower() != ".png":
            raise MsfnetError(f"{self.sheet} is not a PNG; name the sheet for example sheet.png")
        for path in filter(None, (self.csv, self.sheet)):
            check_writable(path)


@dataclass(frozen=True)
class EvaluationReport:
    """The result of one evaluation."""

    accuracy: AccuracyReport | None = None
    """None where only flicker was asked for."""
    comparison: ComparisonReport | None = None
    """The comparison with another model, if one was named."""
    flicker: FlickerReport | None = None
    """The flicker of a static camera, if one was named."""
    model: ModelFacts | None = None
    """What was scored."""
    static: str | None = None
    """The source of the static camera."""

    def text(self) -> str:
        """Return it in readable tables; warnings come last, where they are seen."""
        texts = [part.text() for part in (self.accuracy, self.comparison) if part]
        if self.accuracy is None and self.model:
            texts.append(f"model {self.model.text()}")
        if self.flicker:
            texts.append(f"static source {self.static}\n{self.flicker.text()}")
        warnings = self.accuracy.warnings if self.accuracy else ()
        return "\n\n".join([*texts, *(f"warning: {warning}" for warning in warnings)])

    def to_json(self) -> str:
        """Return everything measured as one JSON object: the accuracy's fields at the top."""
        against = self.comparison and {
            "model": self.comparison.reference.model,
            "summary": self.comparison.reference.summary,
            "change": self.comparison.change(),
            "parity": self.comparison.parity,
        }
        return to_json(
            {
                "model": self.model,
                "warnings": (),
                **(to_plain(self.accuracy) if self.accuracy else {}),
                "against": against,
                "static": self.static,
                "flicker": self.flicker,
            }
        )


def evaluate_model(
    options: EvaluationOptions,
    *,
    open_model: Opener = open_engine,
    progress: Progress = silent,
) -> EvaluationReport:
    """Score a checkpoint, an ONNX file, an engine or stored depth; the same code for all.

    Args:
        options: what to score and files to write, which are tried before the work.
        open_model: opens a model by its path, ``provider`` and ``threads``.
        progress: called after every frame.

    Raises:
        MsfnetError: anything that cannot be opened, read, scored or written.
    """
    options.check_combination()
    protocol = find_protocol(options.protocol) if options.protocol else None
    options.check_outputs()
    opener = partial(open_model, provider=options.provider, threads=options.threads)
    with ExitStack() as stack:
        model, reference = (
            _Scored(path, DepthEstimator(stack.enter_context(opener(path)))) if path else None
            for path in (options.model, options.against)
        )
        report = EvaluationReport(model=model and model.facts())
        if options.data and protocol:
            report = _score(options, options.data, protocol, model, reference, progress)
        if options.static and model:
            with open_source(options.static) as source:
                frames = islice(source, options.frames or None)
                flicker = measure_flicker(model.estimator, frames, progress=progress)
                report = replace(report, flicker=flicker, static=options.static)
    return report


class _Scored(NamedTuple):
    """A model or a folder of stored depth, and where it lies."""

    path: Path
    estimator: DepthEstimator | PredictionFolder

    @property
    def spec(self) -> ModelSpec | None:
        """The model's; None for stored depth."""
        return self.estimator.spec if isinstance(self.estimator, DepthEstimator) else None

    def facts(self) -> ModelFacts:
        """Return what it is."""
        found = self.estimator
        stored = found.spec.precision if isinstance(found, DepthEstimator) else found.storage
        return ModelFacts.of(self.path, stored)


def _score(
    options: EvaluationOptions,
    data: Path,
    protocol: Protocol,
    model: _Scored | None,
    reference: _Scored | None,
    progress: Progress,
) -> EvaluationReport:
    """Score what was opened and write what shows single images."""
    found = open_dataset(data, split=options.samples, ground_truth=protocol.ground_truth)
    samples, skipped = spread(found, options.frames or None), len(found.without_ground_truth)
    scored = model or _stored(options, samples, found, protocol)
    comparison = None
    if reference is None:
        accuracy = evaluate(
            *(scored.estimator, samples, protocol),
            alignment=options.alignment,
            skipped=skipped,
            progress=progress,
        )
    else:
        comparison = compare_models(
            *(scored.estimator, reference.estimator, samples, protocol),
            alignment=options.alignment,
            skipped=skipped,
            progress=progress,
        )
        accuracy = comparison.candidate
    frames = (data_facts(data, options.samples, protocol, len(found), samples), protocol)
    unlike_calibration = _unlike_calibration(scored.spec, samples)
    accuracy = accuracy.described(scored.facts(), *frames, scored.spec, unlike_calibration)
    if comparison and reference:
        other = comparison.reference.described(reference.facts(), *frames, reference.spec)
        comparison = replace(comparison, candidate=accuracy, reference=other)
    if options.csv:
        accuracy.write_csv(options.csv)
    if options.sheet:
        rows = pick_rows(accuracy, scored.estimator, samples, protocol)
        write_sheet(options.sheet, rows, protocol, accuracy.line())
    return EvaluationReport(accuracy, comparison, model=accuracy.model)


def _unlike_calibration(spec: ModelSpec | None, samples: Sequence[Sample]) -> tuple[str, ...]:
    """Return how the frames differ from those a model was calibrated on; nothing if it was not."""
    if spec is None or spec.calibration is None or spec.calibration.summary is None:
        return ()
    described = [describe_frame(sample.frame()) for sample in spread(samples, _DESCRIBED)]
    return tuple(unlike(spec.calibration.summary, described))


def _stored(
    options: EvaluationOptions,
    samples: Sequence[Sample],
    listed: Sequence[Sample],
    protocol: Protocol,
) -> _Scored:
    """Open the stored depth maps; aligned ones may be in any unit."""
    if options.predictions is None:
        raise MsfnetError("there is nothing to score; name a model or a folder of predictions")
    stored = PredictionFolder(
        options.predictions, samples, protocol, options.prediction_unit, among=listed
    )
    if options.alignment is None:
        stored.check_unit(spread(samples, _UNIT_CHECKS))
    return _Scored(options.predictions, stored)
