"""Measures what one model costs on the device, and what NVIDIA's tool says of the same engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msfnet.models import open_model
from msfnet_benchmarks.timing.device_latency import (
    Latency,
    side_by_side,
    summarise,
    time_stages,
    time_whole,
    write_json,
)
from msfnet_benchmarks.timing.generated import generated_batch, usual_shape
from msfnet_benchmarks.timing.trtexec import find_tool, measure_with_trtexec
from msfnet_runtime import EngineArtifact, MsfnetError
from msfnet_runtime.engines import ENGINE_SUFFIXES
from msfnet_runtime.files import check_writable
from msfnet_runtime.onnx_metadata import existing_file
from msfnet_runtime.progress import Progress, silent

if TYPE_CHECKING:
    from msfnet_runtime.engines.tensorrt import TensorRTEngine


@dataclass(frozen=True)
class LatencyRequest:
    """What is measured."""

    model: Path
    cuda_graph: bool = True
    transfers: bool = True
    iterations: int = 200
    trtexec: bool = False
    """Let NVIDIA's tool measure the same engine."""
    provider: str = "cpu"
    """What runs an ONNX file."""
    json_path: Path | None = None


@dataclass(frozen=True)
class LatencyResult:
    """What was measured, by us and perhaps by trtexec."""

    ours: Latency
    theirs: Latency | None = None
    remark: str = ""

    def text(self) -> str:
        """Return the tables."""
        parts = [self.ours.text(), self.remark]
        if self.theirs:
            parts += [self.theirs.text(), side_by_side(self.ours, self.theirs)]
        return "\n\n".join(part for part in parts if part)


def measure_model(request: LatencyRequest, *, progress: Progress = silent) -> LatencyResult:
    """Measure an engine stage by stage, any other model from batch to answer.

    Raises:
        MsfnetError: a model that cannot be run here, a tool that is missing or fails, or a JSON
            file that cannot be written.
    """
    existing_file(request.model, "model")
    if request.json_path:
        check_writable(request.json_path)
    if request.model.suffix in ENGINE_SUFFIXES:
        result = _measure_engine(request, progress)
    else:
        result = _measure_whole(request, progress)
    if request.json_path:
        write_json(request.json_path, [result.ours, *([result.theirs] if result.theirs else [])])
    return result


def _measure_engine(request: LatencyRequest, progress: Progress) -> LatencyResult:
    artifact = EngineArtifact.read(request.model)
    if request.trtexec:
        find_tool(artifact.flavour)  # before the engine is loaded and timed
    shape = usual_shape(artifact.spec, artifact.profiles)
    with open_timed(request.model, cuda_graph=request.cuda_graph) as engine:
        timings = time_stages(
            engine,
            generated_batch(artifact.spec, shape),
            cuda_graph=request.cuda_graph,
            transfers=request.transfers,
            iterations=request.iterations,
            progress=progress,
        )
        ours = summarise(
            timings,
            tool=f"msfnet on {engine.describe()}",
            cuda_graph=request.cuda_graph,
            transfers=request.transfers,
        )
    if not request.trtexec:
        return LatencyResult(ours)
    theirs = measure_with_trtexec(
        artifact,
        cuda_graph=request.cuda_graph,
        transfers=request.transfers,
        iterations=request.iterations,
        shape=(artifact.spec.inputs[0].name, shape) if artifact.profiles else None,
    )
    return LatencyResult(ours, theirs)


def _measure_whole(request: LatencyRequest, progress: Progress) -> LatencyResult:
    if request.trtexec or not request.transfers:
        raise MsfnetError(
            f"{request.model} is no engine: --trtexec and --no-transfers go with engines; "
            "build one with `msfnet build`"
        )
    with open_model(request.model, provider=request.provider) as engine:
        batch = generated_batch(engine.spec, usual_shape(engine.spec))
        ours = time_whole(engine, batch, iterations=request.iterations, progress=progress)
    return LatencyResult(
        ours, remark="The device's own stages (H2D, GPU compute, D2H) are measured of engines only."
    )


def open_timed(path: Path, *, cuda_graph: bool) -> TensorRTEngine:
    """Open an engine that times its stages.

    Raises:
        MsfnetError: as :class:`~msfnet_runtime.engines.tensorrt.TensorRTEngine`.
    """
    from msfnet_runtime.engines.tensorrt import TensorRTEngine

    return TensorRTEngine(path, cuda_graphs=cuda_graph)
