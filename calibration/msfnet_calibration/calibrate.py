"""Makes an INT8 model from frames; with a budget, searches the precision of each block."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from msfnet_benchmarks.scoring.protocols import find_protocol
from msfnet_calibration import quantize_int8, select_frames
from msfnet_calibration.budget import Budget
from msfnet_calibration.calibration_options import CalibrationOptions
from msfnet_calibration.onnx_files import load_fp32, onnx_path
from msfnet_calibration.search import PrecisionSearch
from msfnet_calibration.search_report import SearchReport
from msfnet_calibration.variants import Variants
from msfnet_datasets.layouts import open_dataset, open_training_frames
from msfnet_datasets.sample import Sample, spread
from msfnet_runtime import DepthEstimator, Engine, Frame, MsfnetError, OnnxArtifact, open_engine
from msfnet_runtime.cuda.device import open_device
from msfnet_runtime.files import check_outputs
from msfnet_runtime.progress import Progress, silent


@dataclass(frozen=True)
class CalibrationResult:
    """The model that was written, and what was measured on the way."""

    artifact: OnnxArtifact
    folder: Path
    """What was measured is kept here."""
    search: SearchReport | None = None

    def text(self) -> str:
        """Return the result for people to read."""
        spec = self.artifact.spec
        parts = [self.search.text(), f"tables and plots: {self.folder}", ""] if self.search else []
        facts = [f"{name}: {text}" for name, text in spec.precision_facts().items()]
        size = f"{self.artifact.bytes / 1e6:.1f} MB"
        parts.append("; ".join([f"{self.artifact.path}: {spec.precision.upper()}, {size}", *facts]))
        return "\n".join(parts)


def calibrate_model(
    model: Path, out: Path, options: CalibrationOptions, *, progress: Progress = silent
) -> CalibrationResult:
    """Write an INT8 model; with a budget, the fastest choice of precision by block within it.

    Args:
        model: FP32 ONNX file.
        out: ONNX file to write.
        options: the frames and the method, and what the search may cost.
        progress: called as frames are run and models are measured.

    Raises:
        MsfnetError: options that do not go together, frames or a model that cannot be used, no
            ground truth or GPU that the search needs, a target that cannot be written or is the
            model itself, or a budget that nothing faster than FP32 meets.
    """
    if options.searches and not options.protocol:
        raise MsfnetError(
            "a budget and sensitivities are scored; name a protocol, for example nyu_hu",
            parameter="protocol",
        )
    if options.protocol and not options.searches:
        raise MsfnetError(
            "a protocol scores a budget or sensitivities; add one of them, or leave it out",
            parameter="protocol",
        )
    budget = Budget.parse(options.budget) if options.budget else None
    check_outputs([onnx_path(out)], inputs=[model], force=True)
    load_fp32(model, "calibrate")  # a damaged file is noticed before frames are run
    samples = _find_samples(options) if options.searches else None
    folder = options.work or out.with_name(f"{model.stem}.calibration")
    options = replace(options, work=folder)
    frames = _select(model, options, progress)
    search = None
    if samples is not None:
        variants = Variants(
            model,
            frames,
            method=options.method,
            runs_on=options.runs_on,
            reduced_range=options.reduced_range,
            folder=folder,
            progress=progress,
        )
        search = _search(options, variants, samples, budget, out, progress)
        search.write(folder)
    if not budget:
        quantize_int8(
            model,
            out,
            frames,
            method=options.method,
            runs_on=options.runs_on,
            reduced_range=options.reduced_range,
            folder=folder,
            progress=progress,
        )
    return CalibrationResult(OnnxArtifact.read(out), folder, search)


def _select(model: Path, options: CalibrationOptions, progress: Progress) -> list[Frame]:
    """Return the calibration frames."""
    with (
        open_training_frames(options.data, options.split) as source,
        DepthEstimator.open(model) as estimator,
    ):
        return select_frames(
            source,
            options.frames or sys.maxsize,
            seed=options.seed,
            estimator=estimator,
            progress=progress,
        )


def _find_samples(options: CalibrationOptions) -> list[Sample]:
    """Find the frames that a search is scored on, before anything is run.

    Raises:
        MsfnetError: there is no ground truth, or no GPU to measure a model for TensorRT on.
    """
    protocol = find_protocol(options.protocol or "")
    try:
        found = open_dataset(
            options.score or options.data,
            split=options.score_split,
            ground_truth=protocol.ground_truth,
        )
    except MsfnetError as error:
        raise MsfnetError(
            f"a search is scored on frames with ground truth: {error}", parameter="score"
        ) from None
    if options.runs_on == "tensorrt":
        try:
            open_device().close()
        except MsfnetError as error:
            reason = str(error).partition(";")[0]
            raise MsfnetError(
                f"models for TensorRT are measured on a GPU ({reason}); run the search on a "
                "machine with one, or choose the target cpu",
                parameter="runs_on",
            ) from None
    return spread(found, options.score_frames or None)


def _search(
    options: CalibrationOptions,
    variants: Variants,
    samples: list[Sample],
    budget: Budget | None,
    out: Path,
    progress: Progress,
) -> SearchReport:
    """Measure the model's forms; with a budget, write the one that is chosen."""

    def open_candidate(path: Path) -> Engine:
        return open_engine(path, provider=options.runs_on, threads=options.threads)

    with PrecisionSearch(
        variants,
        open_candidate,
        samples,
        find_protocol(options.protocol or ""),
        folder=options.work or out.parent,
        progress=progress,
    ) as search:
        return search.choose(budget, out) if budget else search.measure_units()
