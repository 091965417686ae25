"""INT8 from real frames: ``msfnet calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfnet.cli.console import check_outputs, progress, say
from msfnet.cli.options import (
    FRAMES_HELP,
    SOURCE_HELP,
    ForceOption,
    ListOption,
    ProtocolOption,
    SeedOption,
    ThreadsOption,
    checked_option,
)
from msfnet_calibration.budget import Budget
from msfnet_calibration.calibration_options import CalibrationOptions
from msfnet_runtime.precision_records import CalibrationMethod, CalibrationTarget


def calibrate(
    model: Annotated[Path, typer.Argument(help="FP32 ONNX file made by `msfnet export`.")],
    out: Annotated[Path, typer.Argument(help="INT8 ONNX file to write.")],
    data: Annotated[
        str, typer.Option("--data", help=f"{SOURCE_HELP} Of a data set, training frames.")
    ],
    split: ListOption = None,
    frames: Annotated[int, typer.Option("--frames", min=0, help=FRAMES_HELP)] = 64,
    method: Annotated[
        CalibrationMethod, typer.Option(help="How the ranges of activations are chosen.")
    ] = "percentile",
    runs_on: Annotated[
        CalibrationTarget,
        typer.Option("--target", help="Where it is to run: TensorRT, or ONNX Runtime on the CPU."),
    ] = "tensorrt",
    reduced_range: Annotated[
        bool | None,
        typer.Option(
            "--reduced-range/--full-range",
            help="For the CPU: weights of 7 bits, for x86 processors without VNNI; as this "
            "processor needs if left out.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        checked_option(
            "--budget",
            "LIMIT",
            Budget.parse,
            "Choose each block's precision by measurement: the fastest model within this "
            "limit, for example 'rel +1%' or 'delta1 -0.003'.",
        ),
    ] = None,
    sensitivity: Annotated[
        bool,
        typer.Option("--sensitivity", help="Measure the error and the time of each block alone."),
    ] = False,
    protocol: ProtocolOption = None,
    score: Annotated[
        Path | None,
        typer.Option("--score", help="Data set to score on; the one of --data if left out."),
    ] = None,
    score_split: Annotated[
        str | None, typer.Option("--score-list", help="List of the data set to score on.")
    ] = None,
    score_frames: Annotated[
        int,
        typer.Option(min=0, help="Number of frames to score, 0: all; every second is held out."),
    ] = 256,
    threads: ThreadsOption = 0,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for measurements; MODEL.calibration beside OUT if left out."),
    ] = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
) -> None:
    """Make an INT8 model (Q/DQ) from real frames.

    Measurements are kept: another method does not run the frames again, and a search that was
    stopped is resumed.

    Example: msfnet calibrate model.onnx int8.onnx --data data/nyu_mini --target cpu
    --budget "rel +1%" --protocol nyu_hu
    """
    from msfnet_calibration.calibrate import calibrate_model

    check_outputs(out, inputs=[model, data, score], force=force)
    options = CalibrationOptions(
        data=data,
        split=split,
        frames=frames,
        method=method,
        runs_on=runs_on,
        reduced_range=reduced_range,
        budget=budget or "",
        sensitivity=sensitivity,
        protocol=protocol,
        score=score,
        score_split=score_split,
        score_frames=score_frames,
        threads=threads,
        work=work,
        seed=seed,
    )
    with progress("calibrate") as report:
        result = calibrate_model(model, out, options, progress=report)
    say(result.text())
