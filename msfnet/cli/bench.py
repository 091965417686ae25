"""``msfnet bench`` and ``msfnet evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfnet.cli.options import DataPath, ProtocolName
from msfnet.console import progress, say


def evaluate(
    model: Annotated[Path, typer.Argument(help="Checkpoint, ONNX file or engine.")],
    data: DataPath,
    protocol: ProtocolName,
    out: Annotated[
        Path | None, typer.Option("--json", help="Also write the result, image by image.")
    ] = None,
    frames: Annotated[int, typer.Option(min=0, help="Score only so many; 0: all.")] = 0,
    provider: Annotated[
        str, typer.Option(help="ONNX Runtime's provider: cpu, cuda or tensorrt.")
    ] = "cpu",
) -> None:
    """Score any artefact under a named protocol; the same code for PyTorch, ONNX and engines.

    Example: msfnet evaluate model.onnx --data data/nyu_mini --protocol nyu_hu
    """
    from msfnet.measuring import evaluate_model
    from msfnet_runtime.files import check_writable

    if out:
        check_writable(out)
    with progress("evaluate") as report:
        result = evaluate_model(
            model, data, protocol, max_frames=frames or None, provider=provider, progress=report
        )
    if out:
        result.write_json(out)
    say(result.text())


def bench(
    models: Annotated[list[Path], typer.Argument(help="ONNX files, engines or checkpoints.")],
    against: Annotated[
        str | None,
        typer.Option(
            "--against", help="The baseline: a checkpoint, or `pytorch` to find it by its hash."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Frames with ground truth: KITTI raw or NYU.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="Score each artefact under this protocol.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="HTML report; its JSON lands beside it.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames that are timed and scored.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds over the frames.")] = 3,
    provider: Annotated[
        str, typer.Option(help="ONNX Runtime's provider: cpu, cuda or tensorrt.")
    ] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: the library's choice.")] = 0,
) -> None:
    """Compare latency and depth error of artefacts on the same frames in one run.

    Example: msfnet bench model.onnx model_int8.onnx --against pytorch --data data/nyu_mini
    --protocol nyu_hu --report report.html
    """
    from msfnet.measuring import bench_models

    with progress("bench") as report_progress:
        result = bench_models(
            models,
            against=against,
            data=data,
            protocol=protocol,
            frames=frames,
            rounds=rounds,
            provider=provider,
            threads=threads,
            page=report,
            progress=report_progress,
        )
    say(result.table())
    if report:
        say(f"report: {report}")
