"""INT8 from real frames: ``msfnet calibrate``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from msfnet.cli.options import refuse_existing
from msfnet.console import progress, say


class Method(str, Enum):
    """How activation ranges are chosen from the calibration frames."""

    entropy = "entropy"
    minmax = "minmax"
    percentile = "percentile"


class TargetName(str, Enum):
    """Where the INT8 model is to run."""

    tensorrt = "tensorrt"
    cpu = "cpu"


def calibrate(
    model: Annotated[Path, typer.Argument(help="FP32 ONNX file made by `msfnet export`.")],
    out: Annotated[Path, typer.Argument(help="INT8 ONNX file to write.")],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="Calibration frames: drive, folder, video, NYU list, NYU folder (its train list).",
        ),
    ],
    frames: Annotated[int, typer.Option(min=1, help="How many frames to calibrate on.")] = 64,
    method: Annotated[
        Method, typer.Option(help="How activation ranges are chosen.")
    ] = Method.percentile,
    target: Annotated[
        TargetName,
        typer.Option(help="Where it is to run: TensorRT, or ONNX Runtime on the CPU."),
    ] = TargetName.tensorrt,
    budget: Annotated[
        str,
        typer.Option(
            help="Choose each block's precision by measurement: the fastest that keeps e.g. "
            "'rel +1%' or 'delta1 -0.003'."
        ),
    ] = "",
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Measure what each block alone costs and saves.")
    ] = False,
    protocol: Annotated[
        str, typer.Option(help="Scores --budget and --sensitivity, e.g. nyu_hu.")
    ] = "",
    score: Annotated[
        Path | None, typer.Option("--score", help="Frames with ground truth; --data if left out.")
    ] = None,
    list_name: Annotated[str, typer.Option("--list", help="A list of those frames.")] = "",
    score_frames: Annotated[
        int, typer.Option(min=2, help="Score so many; every second one is held out.")
    ] = 256,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: ONNX Runtime's choice.")] = 0,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder of what is measured; MODEL.calibration beside OUT if left out."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the frames' selection.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Make an INT8 model (Q/DQ) from real frames.

    What was measured is kept: another method does not run the frames again, and a search that
    was stopped goes on.

    Example: msfnet calibrate model.onnx int8.onnx --data data/nyu_mini --target cpu
    --budget "rel +1%" --protocol nyu_hu
    """
    from msfnet_calibration.calibrate import CalibrationRequest, calibrate_model

    refuse_existing(out, force)
    request = CalibrationRequest(
        model=model,
        out=out,
        data=data,
        frames=frames,
        method=method.value,
        target=target.value,
        budget=budget,
        sensitivity=sensitivity,
        protocol=protocol,
        score=score,
        samples=list_name or None,
        score_frames=score_frames,
        threads=threads,
        work=work,
        seed=seed,
    )
    with progress("calibrate") as report:
        result = calibrate_model(request, progress=report)
    say(result.text())
