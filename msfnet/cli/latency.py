"""``msfnet latency``: the cost of one run on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfnet.cli.console import check_outputs, progress, show
from msfnet.cli.options import ForceOption, JsonOption, ProviderOption, ThreadsOption


def latency(
    model: Annotated[Path, typer.Argument(help="Engine; other models are timed end to end only.")],
    trtexec: Annotated[
        bool, typer.Option("--trtexec", help="Also let NVIDIA's trtexec measure the engine.")
    ] = False,
    cuda_graph: Annotated[bool, typer.Option(help="Replay the work as one CUDA graph.")] = True,
    transfers: Annotated[bool, typer.Option(help="Include copies to and from the device.")] = True,
    iterations: Annotated[int, typer.Option(min=1, help="Number of timed runs.")] = 200,
    provider: ProviderOption = "cpu",
    threads: ThreadsOption = 0,
    json: JsonOption = None,
    force: ForceOption = False,
) -> None:
    """Measure H2D, GPU compute, D2H and enqueue time of an engine, as trtexec defines them.

    Example: msfnet latency model.engine --trtexec --json latency.json
    """
    from msfnet.candidates import model_candidate
    from msfnet_benchmarks.candidates import engine_candidate
    from msfnet_benchmarks.latency import LatencyPlan, measure_latency
    from msfnet_benchmarks.report import tables
    from msfnet_runtime import EngineArtifact, MsfnetError
    from msfnet_runtime.engines import ENGINE_SUFFIXES
    from msfnet_runtime.typed import to_json

    check_outputs(json=json, inputs=[model], force=force)
    artifact = EngineArtifact.read(model) if model.suffix in ENGINE_SUFFIXES else None
    if artifact:
        candidate = engine_candidate(artifact, cuda_graph=cuda_graph)
    else:
        candidate = model_candidate(model, provider=provider, threads=threads)
        if trtexec or not transfers:
            raise MsfnetError(
                f"{model} is not an engine: --trtexec and --no-transfers need an engine; "
                "build one with `msfnet build`"
            )
    plan = LatencyPlan(cuda_graph, transfers, iterations)
    with progress("latency") as count:
        report = measure_latency(
            candidate, plan, artifact=artifact, trtexec=trtexec, progress=count
        )
    show(tables.latency_text(report), to_json(report), json)
