"""``msfnet evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfnet.cli.options import (
    DATA_HELP,
    FRAMES_HELP,
    ListOption,
    ProtocolOption,
    ProviderOption,
)
from msfnet.console import progress, say
from msfnet_runtime.depth_storage import PngStorage


def evaluate(
    model: Annotated[Path | None, typer.Argument(help="Checkpoint, ONNX file or engine.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help=DATA_HELP)] = None,
    protocol: ProtocolOption = None,
    samples: ListOption = None,
    frames: Annotated[int, typer.Option(min=0, help=FRAMES_HELP)] = 0,
    align: Annotated[
        str | None,
        typer.Option(
            help="Also score aligned depth, apart: median, least_squares or least_squares_inverse."
        ),
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="Compare with this model, frame by frame.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", help="In place of MODEL: a folder of 16-bit PNG depth."),
    ] = None,
    prediction_unit: Annotated[
        PngStorage | None,
        typer.Option(help="How these PNG files store depth; else their manifest says."),
    ] = None,
    static: Annotated[
        str | None,
        typer.Option("--static", help="Measure flicker: a source whose camera does not move."),
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured.")
    ] = None,
    csv_path: Annotated[Path | None, typer.Option("--csv", help="Write one row an image.")] = None,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", help="Write a PNG of the best, median and worst frame."),
    ] = None,
    provider: ProviderOption = "cpu",
) -> None:
    """Score any artefact under a named protocol; the same code for PyTorch, ONNX and engines.

    Example: msfnet evaluate model.onnx --data data/nyu_mini --protocol nyu_hu --sheet sheet.png
    """
    from msfnet.models import open_model
    from msfnet_benchmarks.scoring.evaluation import EvaluationRequest, Outputs, evaluate_model

    _check_combination(
        model=model,
        predictions=predictions,
        unit=prediction_unit,
        data=data,
        protocol=protocol,
        static=static,
        of_scores=(against, align, samples, csv_path, sheet),
    )
    request = EvaluationRequest(
        model=model,
        predictions=predictions,
        prediction_unit=prediction_unit,
        data=data,
        protocol=protocol,
        samples=samples,
        max_frames=frames or None,
        alignment=align,
        against=against,
        static=static,
        provider=provider,
    )
    with progress("evaluate") as report:
        outputs = Outputs(json_path, csv_path, sheet)
        result = evaluate_model(request, outputs, open_model=open_model, progress=report)
    say(result.text())


def _check_combination(
    *,
    model: Path | None,
    predictions: Path | None,
    unit: PngStorage | None,
    data: Path | None,
    protocol: str | None,
    static: str | None,
    of_scores: tuple[Path | str | None, ...],
) -> None:
    """Refuse options that do not go together.

    Raises:
        MsfnetError: one line for each case.
    """
    from msfnet_runtime import MsfnetError

    if (model is None) == (predictions is None):
        raise MsfnetError("name a MODEL or --predictions FOLDER, one of the two")
    if unit and not predictions:
        raise MsfnetError("--prediction-unit goes with --predictions FOLDER")
    if (data is None) != (protocol is None):
        raise MsfnetError("--data and --protocol go together; give both")
    if static and not model:
        raise MsfnetError("--static needs a MODEL to show its frames to")
    if data is None and not static:
        raise MsfnetError("name --data FOLDER with --protocol NAME, or --static SOURCE")
    if data is None and any(of_scores):
        raise MsfnetError(
            "--against, --align, --list, --csv and --sheet need --data FOLDER with --protocol NAME"
        )
