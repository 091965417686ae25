"""Makes an INT8 model from frames; with a budget, searches the precision of each block."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from msfnet_benchmarks.scoring.protocols import find_protocol
from msfnet_calibration import quantize_int8, select_frames
from msfnet_calibration.budget import Budget
from msfnet_calibration.calibration_options import CalibrationOptions
from msfnet_calibration.onnx_files import onnx_path
from msfnet_calibration.search import PrecisionSearch
from msfnet_calibration.search_report import SearchReport
from msfnet_calibration.variants import Variants
from msfnet_datasets.layouts import open_dataset, open_training_frames
from msfnet_datasets.sample import spread
from msfnet_runtime import DepthEstimator, Engine, Frame, MsfnetError, OnnxArtifact, open_engine
from msfnet_runtime.files import check_writable
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
        MsfnetError: options that do not go together, frames or a model that cannot be used, or a
            budget that nothing faster than FP32 meets.
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
    check_writable(onnx_path(out))
    folder = options.work or out.with_name(f"{model.stem}.calibration")
    options = replace(options, work=folder)
    frames = _select(model, options, progress)
    search = None
    if options.searches:
        variants = Variants(
            model,
            frames,
            method=options.method,
            runs_on=options.runs_on,
            reduced_range=options.reduced_range,
            folder=folder,
            progress=progress,
        )
        search = _search(options, variants, budget, out, progress)
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


def _search(
    options: CalibrationOptions,
    variants: Variants,
    budget: Budget | None,
    out: Path,
    progress: Progress,
) -> SearchReport:
    """Measure the model's forms; with a budget, write the one that is chosen."""
    protocol = find_protocol(options.protocol or "")
    found = open_dataset(
        options.score or options.data, split=options.score_split, ground_truth=protocol.ground_truth
    )

    def open_candidate(path: Path) -> Engine:
        return open_engine(path, provider=options.runs_on, threads=options.threads)

    with PrecisionSearch(
        variants,
        open_candidate,
        spread(found, options.score_frames or None),
        protocol,
        folder=options.work or out.parent,
        progress=progress,
    ) as search:
        return search.choose(budget, out) if budget else search.measure_units()
