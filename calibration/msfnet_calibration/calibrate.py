"""From frames to an INT8 model: chosen, run, and where a budget is given, searched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msfnet_benchmarks.scoring.protocols import find_protocol
from msfnet_calibration import quantize_int8, select_frames
from msfnet_calibration.budget import Budget
from msfnet_calibration.search import PrecisionSearch
from msfnet_calibration.search_report import SearchReport
from msfnet_calibration.variants import CALIBRATION, MEASURED, Variants
from msfnet_datasets.sample import spread
from msfnet_datasets.samples import open_samples
from msfnet_runtime import DepthEstimator, MsfnetError, OnnxArtifact, open_engine
from msfnet_runtime.files import check_writable
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sources import open_source
from msfnet_runtime.sources.nyu import find_lists

if TYPE_CHECKING:
    from msfnet_calibration.quantize import Target
    from msfnet_calibration.ranges import Method
    from msfnet_runtime.engine import Engine


@dataclass(frozen=True)
class CalibrationRequest:
    """What to calibrate, on what, and what it may cost."""

    model: Path
    """FP32 ONNX file."""
    out: Path
    """ONNX file to write."""
    data: str
    """Source of the calibration frames; of an NYU data set, its training list."""
    frames: int = 64
    """How many of them."""
    method: Method = "percentile"
    target: Target = "tensorrt"
    """Where it is to run, and with a budget is measured: ONNX Runtime's provider of that name."""
    budget: str = ""
    """See :class:`msfnet_calibration.budget.Budget`; empty: all convolutions that are wide."""
    sensitivity: bool = False
    """Measure each block alone, without a budget, too."""
    protocol: str = ""
    """Scores a search."""
    score: Path | None = None
    """Frames with ground truth; :attr:`data` if left out."""
    samples: str | None = None
    """A list of them."""
    score_frames: int = 256
    """How many at most; every second one is held out."""
    threads: int = 0
    """Of the CPU."""
    work: Path | None = None
    """Folder of what is measured; ``MODEL.calibration`` beside :attr:`out` if left out."""
    seed: int = 0

    @property
    def searches(self) -> bool:
        """Whether models are scored and timed."""
        return bool(self.budget) or self.sensitivity

    @property
    def folder(self) -> Path:
        """Where what is measured is kept."""
        return self.work or self.out.with_name(f"{self.model.stem}.calibration")


@dataclass(frozen=True)
class CalibrationResult:
    """The model that was written, and what was measured on the way."""

    artifact: OnnxArtifact
    folder: Path
    search: SearchReport | None = None

    def text(self) -> str:
        """Return it in words."""
        spec = self.artifact.spec
        parts = [self.search.text(), f"tables and plots: {self.folder}", ""] if self.search else []
        noted = [spec.notes[key] for key in (CALIBRATION, MEASURED) if key in spec.notes]
        size = f"{self.artifact.bytes / 1e6:.1f} MB"
        parts.append("; ".join([f"{self.artifact.path}: {spec.precision.upper()}, {size}", *noted]))
        return "\n".join(parts)


def calibrate_model(
    request: CalibrationRequest, *, progress: Progress = silent
) -> CalibrationResult:
    """Write an INT8 model; with a budget, the fastest choice of precision by block within it.

    Raises:
        MsfnetError: options that do not go together, frames or a model that cannot be used, or a
            budget that nothing faster than FP32 meets.
    """
    if request.searches and not request.protocol:
        raise MsfnetError("--budget and --sensitivity score depth; name a --protocol, e.g. nyu_hu")
    budget = Budget.parse(request.budget) if request.budget else None
    check_writable(request.out)
    with (
        open_source(_training_list(request.data)) as source,
        DepthEstimator.open(request.model) as estimator,
    ):
        frames = select_frames(
            source, request.frames, seed=request.seed, estimator=estimator, progress=progress
        )
    search = None
    if request.searches:
        variants = Variants(
            request.model,
            frames,
            method=request.method,
            runs_on=request.target,
            folder=request.folder,
            progress=progress,
        )
        search = _search(request, variants, budget, progress)
        search.write(request.folder)
    if not budget:
        quantize_int8(
            request.model,
            request.out,
            frames,
            method=request.method,
            runs_on=request.target,
            folder=request.folder,
            progress=progress,
        )
    return CalibrationResult(OnnxArtifact.read(request.out), request.folder, search)


def _training_list(data: str) -> str:
    """Return an NYU data set's training list, so that what it is scored on stays unseen."""
    try:
        lists = find_lists(Path(data))
    except MsfnetError:
        return data
    return str(lists.get("train", data))


def _search(
    request: CalibrationRequest, variants: Variants, budget: Budget | None, progress: Progress
) -> SearchReport:
    protocol = find_protocol(request.protocol)
    found = open_samples(
        request.score or Path(request.data), protocol.ground_truth, request.samples
    )

    def open_candidate(path: Path) -> Engine:
        return open_engine(path, provider=request.target, threads=request.threads)

    with PrecisionSearch(
        variants,
        open_candidate,
        spread(found, request.score_frames),
        protocol,
        folder=request.folder,
        progress=progress,
    ) as search:
        return search.choose(budget, request.out) if budget else search.measure_units()
