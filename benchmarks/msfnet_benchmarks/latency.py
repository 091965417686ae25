"""The stages of one model on its device, and NVIDIA's trtexec on the same engine beside them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from msfnet_benchmarks.bench import created_now, row_of
from msfnet_benchmarks.candidates import Candidate, open_candidates
from msfnet_benchmarks.machine import describe_environment
from msfnet_benchmarks.report.report import BenchmarkReport, BenchmarkRow
from msfnet_benchmarks.timing.core import END_TO_END, Samples, clocked, time_stages
from msfnet_benchmarks.timing.costs import DeviceRun, Throughput
from msfnet_benchmarks.timing.generated import generated_batch, usual_shape
from msfnet_benchmarks.timing.stages import LATENCY, device_call
from msfnet_benchmarks.timing.trtexec import find_tool, measure_with_trtexec
from msfnet_runtime import EngineArtifact
from msfnet_runtime.progress import Progress, silent

WHAT_IS_TIMED = "Timed from batch to answer; on the device stage by stage, as trtexec defines them."


@dataclass(frozen=True)
class LatencyPlan:
    """Options of a latency measurement."""

    cuda_graph: bool = True
    """Replay the engine's work as one CUDA graph."""
    transfers: bool = True
    """Count the copies in and out."""
    iterations: int = 200


def measure_latency(
    candidate: Candidate,
    plan: LatencyPlan,
    *,
    artifact: EngineArtifact | None = None,
    trtexec: bool = False,
    progress: Progress = silent,
) -> BenchmarkReport:
    """Time one model: stage by stage where its engine can, else from batch to answer.

    Args:
        candidate: the model.
        plan: how it is run.
        artifact: its engine; None for any other model.
        trtexec: let NVIDIA's tool measure the engine, too: a second row.
        progress: called after every timed run.

    Raises:
        MsfnetError: a model that cannot be run here, or a tool that is missing or fails.
    """
    if trtexec and artifact:
        find_tool(artifact.flavour)  # before the engine is loaded and timed
    with ExitStack() as stack:
        (one,) = open_candidates([candidate], stack).values()
        shape = usual_shape(one.engine.spec, artifact.profiles if artifact else ())
        call, run = clocked(one.engine.infer), None
        if one.device:
            call = device_call(one.device, cuda_graph=plan.cuda_graph, transfers=plan.transfers)
            run = DeviceRun(plan.cuda_graph, plan.transfers, overlapped=False)
        timed = time_stages(
            {candidate.name: call},
            [generated_batch(one.engine.spec, shape)],
            rounds=plan.iterations,
            progress=progress,
        )[candidate.name]
        begun = replace(row_of(candidate), batch=shape[0])
        rows = [_row(begun, one.engine.describe(), timed, run)]
    if trtexec and artifact:
        rows.append(_trtexec_row(rows[0], artifact, plan, shape))
    return BenchmarkReport(
        title="Latency on the device",
        rows=tuple(rows),
        baseline=None,
        protocol=None,
        data=None,
        frames=1,
        frame_size=one.engine.spec.size,
        environment=describe_environment(threads=candidate.threads),
        created=created_now(),
        what_is_timed=WHAT_IS_TIMED,
    )


def _row(
    row: BenchmarkRow, engine: str, timed: Mapping[str, Samples], run: DeviceRun | None
) -> BenchmarkRow:
    stages = {name: samples.summary() for name, samples in timed.items()}
    whole = stages[END_TO_END]
    return replace(
        row,
        engine=engine,
        engine_latency=whole,
        stages=stages,
        throughput=(Throughput(row.batch, row.batch * whole.calls_per_s, whole.p50_ms),),
        device_run=run,
    )


def _trtexec_row(
    row: BenchmarkRow, artifact: EngineArtifact, plan: LatencyPlan, shape: tuple[int, ...]
) -> BenchmarkRow:
    """Return the same engine as trtexec measures it."""
    measured = measure_with_trtexec(
        artifact,
        cuda_graph=plan.cuda_graph,
        transfers=plan.transfers,
        iterations=plan.iterations,
        shape=(artifact.spec.inputs[0].name, shape) if artifact.profiles else None,
    )
    stages = {name: samples.summary() for name, samples in measured.stages.items()}
    return replace(
        row,
        name=f"{row.name} ({measured.tool})",
        engine=measured.tool,
        engine_latency=None,
        stages=stages,
        throughput=(
            Throughput(row.batch, row.batch * measured.runs_per_s, stages[LATENCY].p50_ms),
        ),
        device_run=DeviceRun(plan.cuda_graph, plan.transfers, overlapped=True),
    )
