"""``msfnet latency``: what one run costs on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfnet.cli.options import ProviderOption
from msfnet.console import progress, say


def latency(
    model: Annotated[Path, typer.Argument(help="Engine; others are timed end to end only.")],
    trtexec: Annotated[
        bool, typer.Option("--trtexec", help="Let NVIDIA's tool measure the engine, too.")
    ] = False,
    cuda_graph: Annotated[bool, typer.Option(help="Replay the work as one CUDA graph.")] = True,
    transfers: Annotated[bool, typer.Option(help="Count the copies in and out.")] = True,
    iterations: Annotated[int, typer.Option(min=1, help="Runs that are timed.")] = 200,
    provider: ProviderOption = "cpu",
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured.")
    ] = None,
) -> None:
    """Measure H2D, GPU compute, D2H and enqueue time of an engine, as trtexec defines them.

    Example: msfnet latency model.engine --trtexec --json latency.json
    """
    from msfnet.latency import LatencyRequest, measure_model

    request = LatencyRequest(
        model=model,
        cuda_graph=cuda_graph,
        transfers=transfers,
        iterations=iterations,
        trtexec=trtexec,
        provider=provider,
        json_path=json_path,
    )
    with progress("latency") as report:
        result = measure_model(request, progress=report)
    say(result.text())
