"""``msfnet triton``: a model for Triton Inference Server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfnet.cli.console import say
from msfnet.cli.options import ForceOption, Numbers, numbers_option
from msfnet_export.triton_config import Kind, TritonOptions


def triton(
    model: Annotated[Path, typer.Argument(help="ONNX file, or engine of flavour tensorrt.")],
    out_dir: Annotated[Path, typer.Argument(help="Model repository; made if it is missing.")],
    name: Annotated[
        str, typer.Option(help="Name on the server; that of the file if left out.")
    ] = "",
    version: Annotated[int, typer.Option(min=1, help="Version to write.")] = 1,
    max_batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Largest batch, if it is open; 8, or the engine's largest, if left out."
        ),
    ] = None,
    max_queue_delay_us: Annotated[
        int | None, typer.Option(min=0, help="Microseconds a request may wait for a batch.")
    ] = None,
    preferred_batch_sizes: Annotated[
        Numbers | None,
        numbers_option(
            "--preferred-batch-sizes", "Batch sizes the server should prefer, for example 4,8."
        ),
    ] = None,
    instances: Annotated[
        int, typer.Option(min=1, help="Copies of the model on each GPU, or on the CPU.")
    ] = 1,
    kind: Annotated[Kind, typer.Option(help="Where the server runs it.")] = "gpu",
    gpus: Annotated[
        Numbers | None,
        numbers_option("--gpus", "Indices, for example 0,1; all if left out."),
    ] = None,
    warmup: Annotated[
        bool, typer.Option(help="Run a generated frame before the model is reported ready.")
    ] = True,
    force: ForceOption = False,
) -> None:
    """Write a model repository for Triton Inference Server, with a README and a client.

    Example: msfnet triton model.onnx models --name depth
    """
    from msfnet_export.triton import write_triton_model

    options = TritonOptions(
        name=name,
        version=version,
        max_batch_size=max_batch_size,
        max_queue_delay_us=max_queue_delay_us,
        preferred_batch_sizes=preferred_batch_sizes or (),
        instances=instances,
        kind=kind,
        gpus=gpus or (),
        warmup=warmup,
    )
    say(write_triton_model(model, out_dir, options=options, force=force).text())
