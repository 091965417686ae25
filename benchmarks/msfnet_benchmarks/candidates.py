"""Candidates of a benchmark: models ready to be opened, whatever runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from msfnet_benchmarks.peers import open_peer
from msfnet_benchmarks.timing.costs import LayerCost
from msfnet_benchmarks.timing.energy import device_memory
from msfnet_benchmarks.timing.generated import generated_batch, random_batch, usual_shape
from msfnet_benchmarks.timing.layers import profile_layers
from msfnet_runtime import (
    DepthEstimator,
    Engine,
    EngineArtifact,
    ModelSpec,
    OnnxArtifact,
    open_engine,
)
from msfnet_runtime.engine import DeviceTimed, DeviceTimedEngine
from msfnet_runtime.engines.providers import Provider


@dataclass(frozen=True)
class Candidate:
    """A model and what runs it, before it is measured: one row of a benchmark."""

    name: str
    precision: str
    open: Callable[[], Engine]
    """Opens the model."""
    on_gpu: bool
    size_bytes: int
    """On disk, separate weights included."""
    gpu: int = 0
    """Which of the GPUs that CUDA shows runs it, where :attr:`on_gpu`."""
    file: Path | None = None
    """Candidates of the same file give the same depth."""
    depth: bool = True
    """Whether it returns depth; if not, only its engine is timed, on random input."""
    fixed_batch: bool = False
    """It takes one image per call, although its spec leaves the batch open."""
    counts: Callable[[], tuple[int, int] | None] = lambda: None
    """Returns the MACs for one image and the parameters of the open model, where known."""
    open_device: Callable[[], DeviceTimedEngine] | None = None
    """Opens the model as an engine that times its stages on the device; None: it has no such."""
    start: Callable[[], Engine] | None = None
    """Opens the model in a separate process: can be pickled; None: starts are not measured."""
    profile: Callable[[NDArray[Any]], tuple[LayerCost, ...]] | None = None
    """Times every layer on a batch; None: what runs it has no profiler."""
    threads: int = 0
    """CPU threads that it is given; 0: the library's choice."""
    batch: int = 1
    """Images in one timed call of a point of a sweep."""
    input_size: tuple[int, int] | None = None
    """(height, width) of the network's input, pixels, where that is a sweep's."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The candidate's value on every axis of a sweep."""


@dataclass(frozen=True)
class Opened:
    """A candidate ready to run."""

    candidate: Candidate
    engine: Engine
    device: DeviceTimed | None
    """The engine where it times its own stages."""
    device_bytes: int | None = None
    """GPU memory used since before it was opened, one call later; None on a CPU."""

    @property
    def estimator(self) -> DepthEstimator | None:
        """Frame to depth; None where the answer is not depth."""
        return DepthEstimator(self.engine) if self.candidate.depth else None

    @property
    def images(self) -> int | None:
        """The number of images that one call takes; None where that is open."""
        first = self.engine.spec.inputs[0].shape[0]
        if isinstance(first, int):
            return first
        return 1 if self.candidate.fixed_batch else None

    def batch(self, count: int | None = None) -> NDArray[Any]:
        """Return images as the engine takes them: generated, or random where it gives no depth."""
        spec, count = self.engine.spec, count or self.candidate.batch
        if not self.candidate.depth:
            return random_batch(spec, count)
        first, *rest = usual_shape(spec)
        return generated_batch(spec, (count if self.images is None else first, *rest))

    @property
    def description(self) -> str:
        """The library, version and device that run it."""
        remark = "" if self.candidate.depth else " (random input, engine only, no depth error)"
        return f"{self.engine.describe()}{remark}"


def open_candidates(candidates: Sequence[Candidate], stack: ExitStack) -> dict[str, Opened]:
    """Open every candidate, by name.

    Raises:
        MsfnetError: one cannot be opened.
    """
    opened = {}
    for candidate in candidates:
        before = device_memory(candidate.gpu) if candidate.on_gpu else None
        device = candidate.open_device() if candidate.open_device else None
        engine: Engine = candidate.open() if device is None else device
        stack.enter_context(engine)
        one = Opened(candidate, engine, device)
        if before is not None:
            engine.infer(one.batch())
            after = device_memory(candidate.gpu) or before
            one = replace(one, device_bytes=max(after - before, 0))
        opened[candidate.name] = one
    return opened


def onnx_candidate(artifact: OnnxArtifact, *, provider: str = "cpu", threads: int = 0) -> Candidate:
    """Return an ONNX file of ours, run by a provider."""
    path, spec = artifact.path, artifact.spec
    opener = partial(open_engine, path, provider=provider, threads=threads)
    return Candidate(
        name=path.name if provider == "cpu" else f"{path.name} {provider}",
        precision=spec.precision,
        open=opener,
        on_gpu=Provider.parse(provider).name in ("cuda", "tensorrt"),
        size_bytes=artifact.bytes,
        gpu=_gpu(provider),
        file=path,
        counts=partial(_counts, spec),
        start=opener,
        profile=partial(profile_layers, path, provider=provider, threads=threads),
        threads=threads,
    )


def engine_candidate(artifact: EngineArtifact, *, cuda_graph: bool = True) -> Candidate:
    """Return a TensorRT engine."""
    path, opener = artifact.path, partial(open_engine, artifact.path)
    return Candidate(
        name=path.name,
        precision=artifact.spec.precision,
        open=opener,
        on_gpu=True,
        size_bytes=path.stat().st_size,
        file=path,
        counts=partial(_counts, artifact.spec),
        open_device=partial(open_timed, path, cuda_graph=cuda_graph),
        start=opener,
        profile=partial(profile_layers, path),
    )


def peer_candidate(path: Path, *, provider: str = "cpu", threads: int = 0) -> Candidate:
    """Return an ONNX file of another project, of which the engine alone is timed."""
    return Candidate(
        name=path.name if provider == "cpu" else f"{path.name} {provider}",
        precision="unknown",
        open=partial(open_peer, path, provider=provider, threads=threads),
        on_gpu=Provider.parse(provider).name == "cuda",
        size_bytes=path.stat().st_size,
        gpu=_gpu(provider),
        file=path,
        depth=False,
        threads=threads,
    )


def open_timed(path: Path, *, cuda_graph: bool = True) -> DeviceTimedEngine:
    """Open a TensorRT engine, which times its own stages.

    Raises:
        MsfnetError: as :class:`~msfnet_runtime.engines.tensorrt.TensorRTEngine`.
    """
    from msfnet_runtime.engines.tensorrt import TensorRTEngine

    return TensorRTEngine(path, cuda_graphs=cuda_graph)


def _gpu(provider: str) -> int:
    """Return the number of the GPU that a provider runs on, as CUDA counts them."""
    number = Provider.parse(provider).options.get("device_id", "0")
    return int(number) if number.isdecimal() else 0


def _counts(spec: ModelSpec) -> tuple[int, int] | None:
    """Return MACs for one image and parameters, where the spec names them."""
    blocks = spec.blocks
    if not blocks:
        return None
    return sum(block.macs for block in blocks), sum(block.parameters for block in blocks)
