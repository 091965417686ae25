"""Times and scores models side by side on the same frames, all by the same code."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import TypeVar

from msfnet.contenders import Opened, line_up, open_all
from msfnet.timing import Timed, throughputs, time_all
from msfnet_benchmarks.report.environment import describe_environment
from msfnet_benchmarks.report.pictures import gallery
from msfnet_benchmarks.report.report import BenchmarkReport, BenchmarkRow, Picture, check_page_path
from msfnet_benchmarks.scoring.accuracy import evaluate
from msfnet_benchmarks.scoring.parity import compare
from msfnet_benchmarks.scoring.protocols import Protocol, find_protocol
from msfnet_benchmarks.timing.cold_start import RUNTIME, measure_cold_start
from msfnet_benchmarks.timing.costs import Throughput
from msfnet_benchmarks.timing.device_latency import Stage
from msfnet_benchmarks.timing.energy import measure_energy
from msfnet_benchmarks.timing.flops import measure_flop_bound
from msfnet_benchmarks.timing.latency import compare_latency
from msfnet_benchmarks.timing.layers import profile_layers
from msfnet_datasets.sample import Sample, spread
from msfnet_datasets.samples import open_samples
from msfnet_runtime import DepthEstimator, Frame, ModelSpec, MsfnetError
from msfnet_runtime.blocks import read_blocks
from msfnet_runtime.files import check_writable
from msfnet_runtime.preprocess import frame_size
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sources import open_source

_OPEN_MODEL = "msfnet.models:open_model"
"""Opens checkpoints in a process of their own."""

T = TypeVar("T")


@dataclass(frozen=True)
class BenchRequest:
    """What to compare, on what, and what of it to measure."""

    models: Sequence[Path]
    """Checkpoints, ONNX files and engines."""
    against: str | Path | None = None
    """The baseline: a checkpoint, or ``pytorch`` to find the first model's by its hash."""
    modes: Sequence[str] = ("eager",)
    """How PyTorch runs checkpoints; the first is the baseline's."""
    providers: Sequence[str] = ("cpu",)
    """Each runs each ONNX file; as :func:`~msfnet_runtime.open_engine` takes them."""
    peers: Sequence[Path] = ()
    """ONNX files of other projects."""
    data: Path | None = None
    """Frames; with a protocol, frames with its ground truth. Generated ones if left out."""
    protocol: str | None = None
    """Score by it as well."""
    frames: int = 32
    rounds: int = 3
    batches: Sequence[int] = (1,)
    """Batch sizes of the throughput; graphs of a fixed batch answer only theirs."""
    threads: int = 0
    """CPU threads; 0 leaves the choice to the libraries."""
    cold: bool = False
    """Measure starts in processes of their own."""
    profile: bool = False
    """Time every layer of ONNX files and engines."""
    page: Path | None = None
    """HTML report to write, with its JSON beside it and each model's depth of one frame."""
    files: Sequence[Path] = ()
    """Further files that will be written; tried before the work."""

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            MsfnetError: a protocol without data, a batch of nothing, or a file that cannot be
                written.
        """
        if self.protocol and self.data is None:
            raise MsfnetError("a protocol needs ground truth; pass --data FOLDER")
        if not self.models:
            raise MsfnetError("nothing to time; name at least one model")
        if any(batch < 1 for batch in self.batches):
            raise MsfnetError("a batch has at least one image; write for instance --batch 1,4,8")
        if self.page:
            check_page_path(self.page)
        for path in (*self.files, *([self.page] if self.page else [])):
            check_writable(path)


@dataclass(frozen=True)
class _Material:
    """What a benchmark run shows to every model."""

    frames: list[Frame]
    samples: list[Sample] = field(default_factory=list)
    """With ground truth; empty where no protocol was asked for."""
    protocol: Protocol | None = None
    decode_ms: tuple[float, ...] = ()
    """What reading each frame took; empty for generated ones."""


def bench_models(request: BenchRequest, *, progress: Progress = silent) -> BenchmarkReport:
    """Time and score models on the same frames in one run.

    Args:
        request: what to compare.
        progress: called after every timed call and every scored frame.

    Raises:
        MsfnetError: as :meth:`BenchRequest.check` and :func:`~msfnet.contenders.line_up`, a model
            that cannot be opened, or no such data.
    """
    request.check()
    contenders = line_up(
        request.models,
        against=request.against,
        modes=request.modes,
        providers=request.providers,
        peers=request.peers,
    )
    with ExitStack() as stack:
        opened = open_all(contenders, request.threads, stack)
        first = next(iter(opened.values()))
        material = _gather(request, first.engine.spec)
        baseline = first.name if request.against else None
        timed = time_all(opened, material.frames, request.rounds, progress)
        rates = throughputs(opened, timed, request.batches, progress)
        rows = tuple(
            _costs(
                request,
                one,
                _row(one, opened, timed, rates, baseline, material, progress),
                material,
            )
            for one in opened.values()
        )
        on_cpu = any(not contender.on_gpu for contender in contenders)
        report = BenchmarkReport(
            title="Depth models compared",
            rows=rows,
            baseline=baseline,
            protocol=request.protocol,
            data=str(request.data) if request.data else None,
            frames=len(material.frames),
            frame_size=_size(material.frames[0]),
            environment=describe_environment(threads=request.threads),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            flop_bound=measure_flop_bound(request.threads) if on_cpu else None,
        )
        if request.page:
            report.write(request.page, _pictures(opened, material, baseline))
    return report


def unanswered(report: BenchmarkReport, batches: Iterable[int]) -> str | None:
    """Return a line on the models that take no batch of a size asked for; None if all do."""
    asked = set(batches)
    fixed = [row.name for row in report.rows if not asked <= {r.batch for r in row.throughput}]
    return f"not every batch size is open to {', '.join(fixed)}: fixed batch" if fixed else None


def _row(
    one: Opened,
    opened: Mapping[str, Opened],
    timed: Mapping[str, Timed],
    rates: Mapping[str, tuple[Throughput, ...]],
    baseline: str | None,
    material: _Material,
    progress: Progress,
) -> BenchmarkRow:
    """Return what the rounds and the scores say of a contender."""
    mine, base = timed[one.name], timed[baseline].latency if baseline else None
    decode = {"decode": Stage.of(material.decode_ms)} if material.decode_ms else {}
    estimator, accuracy, parity = one.estimator, None, None
    reference = opened[baseline].estimator if baseline and baseline != one.name else None
    if estimator and material.protocol:
        accuracy = evaluate(estimator, material.samples, material.protocol, progress=progress)
    if estimator and reference:
        parity = compare(estimator, reference, material.frames, progress=progress)
    return BenchmarkRow(
        name=one.name,
        engine=one.described,
        precision="unknown" if one.contender.peer else one.engine.spec.precision,
        size_bytes=one.contender.size_bytes,
        latency=mine.latency,
        speedup=compare_latency(mine.latency, base) if mine.latency and base else None,
        accuracy=accuracy,
        parity=parity,
        engine_latency=mine.engine,
        stages={**decode, **mine.stages} if mine.stages else {},
        throughput=rates[one.name],
        device_bytes=one.device_bytes,
    )


def _costs(
    request: BenchRequest, one: Opened, row: BenchmarkRow, material: _Material
) -> BenchmarkRow:
    """Add what else a contender costs; of a peer that is its time alone."""
    contender, estimator = one.contender, one.estimator
    if estimator is None:
        return row
    if counts := _counts(one):
        row = replace(row, macs=counts[0], parameters=counts[1])
    if contender.on_gpu:
        row = replace(row, energy=measure_energy(estimator, material.frames))
    if request.cold:
        opener, options = RUNTIME, contender.options(request.threads)
        if contender.is_checkpoint:
            opener = _OPEN_MODEL
        else:
            del options["mode"]
        start = measure_cold_start(contender.path, opener=opener, options=options)
        row = replace(row, cold_start=start)
    if request.profile and not contender.is_checkpoint:
        layers = profile_layers(
            contender.path, one.batch(), provider=contender.provider, threads=request.threads
        )
        row = replace(row, layers=layers)
    return row


def _counts(one: Opened) -> tuple[int, int] | None:
    """Return multiply-adds for one image and parameters, where the file tells them."""
    if one.contender.is_checkpoint:
        from msfnet_train.torch_engine import TorchEngine

        assert isinstance(one.engine, TorchEngine)
        return one.engine.count()
    blocks = read_blocks(one.engine.spec)
    if not blocks:
        return None
    return sum(block.macs for block in blocks), sum(block.parameters for block in blocks)


def _pictures(
    opened: Mapping[str, Opened], material: _Material, baseline: str | None
) -> list[Picture]:
    """Return the middle frame, every model's depth in the first one's colours, and the errors.

    What runs the same file in another way shows the same picture, and is left out.
    """
    files: dict[Path, tuple[str, DepthEstimator]] = {}
    for name, one in opened.items():
        if estimator := one.estimator:
            files.setdefault(one.contender.path, (name, estimator))
    place = len(material.frames) // 2
    frame, truth = material.frames[place], None
    if material.protocol:
        whole = material.samples[place]
        size = _size(whole.frame())
        truth = material.protocol.prepare_depth(whole.ground_truth(size))
    return gallery(
        {name: estimator(frame) for name, estimator in files.values()},
        frame,
        range_m=next(estimator for _, estimator in files.values()).spec.depth_range_m,
        ground_truth=truth,
        baseline=baseline,
    )


def _size(frame: Frame) -> tuple[int, int]:
    return frame.image.shape[0], frame.image.shape[1]


def _gather(request: BenchRequest, spec: ModelSpec) -> _Material:
    """Load the frames; those of a protocol are prepared as it says."""
    if request.data is None:
        height, width = frame_size(spec) if spec.graph == "deploy" else spec.size
        source = f"synthetic:street?frames={request.frames}&size={height}x{width}"
        with open_source(source) as opened:
            return _Material(list(opened))
    if request.protocol is None:
        with open_source(str(request.data)) as opened:
            frames, taken = _clocked(islice(opened, request.frames))
        return _Material(frames, decode_ms=taken)
    chosen = find_protocol(request.protocol)
    samples = spread(open_samples(request.data, chosen.ground_truth), request.frames)
    whole, taken = _clocked(sample.frame() for sample in samples)
    frames = [_prepared(*each, chosen) for each in zip(whole, samples, strict=True)]
    return _Material(frames, samples, chosen, taken)


def _clocked(items: Iterable[T]) -> tuple[list[T], tuple[float, ...]]:
    """Return what comes, and the milliseconds that each was waited for."""
    found, taken, start = [], [], time.perf_counter()
    for item in items:
        taken.append(1e3 * (time.perf_counter() - start))
        found.append(item)
        start = time.perf_counter()
    return found, tuple(taken)


def _prepared(frame: Frame, sample: Sample, protocol: Protocol) -> Frame:
    """Return the frame a model sees under the protocol."""
    image, _ = protocol.prepare(frame.image, sample.ground_truth(_size(frame)))
    return Frame(image, frame.index, name=frame.name)
