"""``msfnet triton``: a model for Triton Inference Server."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from msfnet.cli.options import parse_numbers
from msfnet.console import say


class KindName(str, Enum):
    """What a server runs a model on."""

    gpu = "gpu"
    cpu = "cpu"


def triton(
    model: Annotated[Path, typer.Argument(help="ONNX file, or engine of flavour tensorrt.")],
    out_dir: Annotated[Path, typer.Argument(help="Model repository; made if it is missing.")],
    name: Annotated[str, typer.Option(help="Name on the server; the file's if left out.")] = "",
    version: Annotated[int, typer.Option(min=1, help="Number of the version's folder.")] = 1,
    max_batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="For models with an open batch; 8, or what the engine takes."),
    ] = None,
    max_queue_delay_us: Annotated[
        int | None, typer.Option(min=0, help="Microseconds a request may wait for a batch.")
    ] = None,
    preferred_batch_sizes: Annotated[
        str, typer.Option(help="Batches the server should aim at, e.g. 4,8.")
    ] = "",
    instances: Annotated[int, typer.Option(min=1, help="Copies on each GPU, or the CPU.")] = 1,
    kind: Annotated[KindName, typer.Option(help="What the server runs it on.")] = KindName.gpu,
    gpus: Annotated[str, typer.Option(help="Indices of GPUs, e.g. 0,1; all if left out.")] = "",
    warmup: Annotated[
        bool, typer.Option(help="Run a generated frame before the model is reported ready.")
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the model of that name, all its versions.")
    ] = False,
) -> None:
    """Write a model repository for Triton Inference Server, with a README and a client.

    Example: msfnet triton model.onnx models --name depth
    """
    from msfnet_export.triton import write_triton_model
    from msfnet_export.triton_config import TritonOptions

    options = TritonOptions(
        name=name,
        version=version,
        max_batch_size=max_batch_size,
        max_queue_delay_us=max_queue_delay_us,
        preferred_batch_sizes=parse_numbers(preferred_batch_sizes, "batch sizes"),
        instances=instances,
        kind=kind.value,
        gpus=parse_numbers(gpus, "GPUs"),
        warmup=warmup,
    )
    say(write_triton_model(model, out_dir, options=options, force=force).text())
