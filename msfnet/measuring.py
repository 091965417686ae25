"""Times and scores models side by side on the same frames, all by the same code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from msfnet.models import CHECKPOINT_SUFFIXES, open_model, read_spec
from msfnet.scoring import spread
from msfnet_benchmarks.accuracy import evaluate
from msfnet_benchmarks.environment import describe_environment
from msfnet_benchmarks.latency import LatencyReport, compare_latency, measure_latency
from msfnet_benchmarks.parity import ParityReport, compare
from msfnet_benchmarks.pictures import gallery
from msfnet_benchmarks.protocols import Protocol, find_protocol
from msfnet_benchmarks.report import (
    BenchmarkReport,
    BenchmarkRow,
    Picture,
    check_page_path,
)
from msfnet_benchmarks.sample import Sample
from msfnet_benchmarks.samples import open_samples
from msfnet_runtime import DepthEstimator, Frame, MsfnetError, OnnxArtifact
from msfnet_runtime.files import check_writable, sha256
from msfnet_runtime.preprocess import frame_size
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sources import open_source

if TYPE_CHECKING:
    from msfnet_runtime import ModelSpec

PYTORCH = "pytorch"
"""What ``--against`` takes for "the checkpoint the first model was exported from"."""


@dataclass(frozen=True)
class _Material:
    """What a benchmark run shows to every model."""

    frames: list[Frame]
    samples: list[Sample]
    """With ground truth; empty where no protocol was asked for."""
    protocol: Protocol | None


def bench_models(
    models: Sequence[Path],
    *,
    against: str | Path | None = None,
    data: Path | None = None,
    protocol: str | None = None,
    frames: int = 32,
    rounds: int = 3,
    provider: str = "cpu",
    threads: int = 0,
    page: Path | None = None,
    progress: Progress = silent,
) -> BenchmarkReport:
    """Time and score models on the same frames in one run.

    Args:
        models: checkpoints, ONNX files and engines.
        against: the baseline: a checkpoint, or ``pytorch`` for the one that the first model was
            exported from, looked for beside and below the model's folder and its parent.
        data: frames; with a protocol, frames with its ground truth. Generated ones if left out.
        protocol: score by it as well.
        frames: how many frames are timed and scored.
        rounds: how often each is timed.
        provider: as :func:`~msfnet_runtime.open_engine` takes it.
        threads: CPU threads of ONNX Runtime and PyTorch; 0 leaves the choice to them.
        page: HTML report to write, with its JSON beside it and each model's depth of one frame.
        progress: called after every timed call and every scored frame.

    Raises:
        MsfnetError: a page that cannot be written, a model that cannot be opened, no such data,
            a protocol without data, two models of one name, or no checkpoint found.
    """
    if protocol and data is None:
        raise MsfnetError("a protocol needs ground truth; pass --data FOLDER")
    if page:
        check_page_path(page)
    with ExitStack() as stack:
        estimators: dict[str, DepthEstimator] = {}
        paths: dict[str, Path] = {}
        baseline = _find_baseline(against, models[0]) if against else None
        for path in [*([baseline] if baseline else []), *models]:
            name = _name(path, baseline)
            if name in estimators:
                raise MsfnetError(f"two models are called {name}; rename one of the files")
            engine = stack.enter_context(open_model(path, provider=provider, threads=threads))
            estimators[name], paths[name] = DepthEstimator(engine), path
        material = _gather(data, protocol, frames, next(iter(estimators.values())).spec)
        if page:
            check_writable(page)
        latencies = {
            report.name: report
            for report in measure_latency(
                estimators, material.frames, rounds=rounds, progress=progress
            )
        }
        first = next(iter(estimators)) if baseline else None
        report = BenchmarkReport(
            title="Depth models compared",
            rows=tuple(
                _row(name, paths[name], estimators, latencies, material, first, progress)
                for name in estimators
            ),
            baseline=first,
            protocol=protocol,
            data=str(data) if data else None,
            frames=len(material.frames),
            frame_size=_size(material.frames[0]),
            environment=describe_environment(threads=threads),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        if page:
            report.write(page, _pictures(estimators, material, first))
    return report


def _pictures(
    estimators: Mapping[str, DepthEstimator], material: _Material, baseline: str | None
) -> list[Picture]:
    """Return the middle frame, every model's depth in the first one's colours, and the errors."""
    place = len(material.frames) // 2
    frame, truth = material.frames[place], None
    if material.protocol:
        whole = material.samples[place]
        size = _size(whole.frame())
        truth = material.protocol.prepare_depth(whole.ground_truth(size))
    return gallery(
        {name: estimator(frame) for name, estimator in estimators.items()},
        frame,
        range_m=next(iter(estimators.values())).spec.depth_range_m,
        ground_truth=truth,
        baseline=baseline,
    )


def _name(path: Path, baseline: Path | None) -> str:
    return f"PyTorch {path.name}" if path == baseline else path.name


def _size_on_disk(path: Path) -> int:
    """Return a model's bytes, weights in a file of their own included."""
    return OnnxArtifact.read(path).bytes if path.suffix == ".onnx" else path.stat().st_size


def _size(frame: Frame) -> tuple[int, int]:
    return frame.image.shape[0], frame.image.shape[1]


def _row(
    name: str,
    path: Path,
    estimators: Mapping[str, DepthEstimator],
    latencies: Mapping[str, LatencyReport],
    material: _Material,
    baseline: str | None,
    progress: Progress,
) -> BenchmarkRow:
    estimator, latency = estimators[name], latencies[name]
    accuracy = (
        evaluate(estimator, material.samples, material.protocol, progress=progress)
        if material.protocol
        else None
    )
    parity: ParityReport | None = None
    if baseline and name != baseline:
        parity = compare(estimator, estimators[baseline], material.frames, progress=progress)
    return BenchmarkRow(
        name=name,
        engine=estimator.engine.describe(),
        precision=estimator.spec.precision,
        size_bytes=_size_on_disk(path),
        latency=latency,
        speedup=compare_latency(latency, latencies[baseline]) if baseline else None,
        accuracy=accuracy,
        parity=parity,
    )


def _gather(data: Path | None, protocol: str | None, count: int, spec: ModelSpec) -> _Material:
    """Load the frames; those of a protocol are prepared as it says."""
    if data is None:
        height, width = frame_size(spec) if spec.graph == "deploy" else spec.size
        source = f"synthetic:street?frames={count}&size={height}x{width}"
        with open_source(source) as opened:
            return _Material(list(opened), [], None)
    if protocol is None:
        with open_source(str(data)) as opened:
            return _Material(list(islice(opened, count)), [], None)
    chosen = find_protocol(protocol)
    samples = spread(open_samples(data, chosen.ground_truth), count)
    return _Material([_prepared(sample, chosen) for sample in samples], samples, chosen)


def _prepared(sample: Sample, protocol: Protocol) -> Frame:
    """Return the frame a model sees under the protocol."""
    frame = sample.frame()
    image, _ = protocol.prepare(frame.image, sample.ground_truth(_size(frame)))
    return Frame(image, frame.index, name=frame.name)


def _find_baseline(against: str | Path, model: Path) -> Path:
    """Return the checkpoint named, or the one whose SHA-256 a model's spec holds."""
    if str(against) != PYTORCH:
        return Path(against)
    wanted = read_spec(model).checkpoint_sha256
    folders = (model.parent, model.parent.parent)
    candidates = {
        path
        for folder in folders
        for pattern in ("*", "*/*", "*/*/*")
        for path in folder.glob(pattern)
        if path.suffix in CHECKPOINT_SUFFIXES and path.is_file()
    }
    for path in sorted(candidates):
        if wanted and sha256(path) == wanted:
            return path
    raise MsfnetError(
        f"the checkpoint of {model} is not beside it; name it with --against best.ckpt"
    )
