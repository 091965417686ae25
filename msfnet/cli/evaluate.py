"""``msfnet evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfnet.cli.console import check_outputs, progress, show
from msfnet.cli.options import (
    DATA_HELP,
    FRAMES_HELP,
    ForceOption,
    JsonOption,
    ListOption,
    ProtocolOption,
    ProviderOption,
    ThreadsOption,
    png_option,
)
from msfnet_benchmarks.scoring.alignment import Alignment
from msfnet_runtime.depth_storage import PngStorage

if TYPE_CHECKING:
    from msfnet_benchmarks.scoring.evaluation import EvaluationOptions


def evaluate(
    model: Annotated[Path | None, typer.Argument(help="Checkpoint, ONNX file or engine.")] = None,
    data: Annotated[Path | None, typer.Option("--data", help=DATA_HELP)] = None,
    protocol: ProtocolOption = None,
    split: ListOption = None,
    frames: Annotated[int, typer.Option("--frames", min=0, help=FRAMES_HELP)] = 0,
    align: Annotated[
        Alignment | None,
        typer.Option(
            help="Also score predictions aligned to their ground truth, in a separate row."
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
        typer.Option(help="How these PNG files store depth; as their manifest says if left out."),
    ] = None,
    static: Annotated[
        str | None,
        typer.Option("--static", help="Measure flicker: a source whose camera does not move."),
    ] = None,
    json_path: JsonOption = None,
    csv_path: Annotated[Path | None, typer.Option("--csv", help="Write one row per image.")] = None,
    sheet: Annotated[
        Path | None,
        png_option("--sheet", "Write a PNG of the best, median and worst frame."),
    ] = None,
    provider: ProviderOption = "cpu",
    threads: ThreadsOption = 0,
    force: ForceOption = False,
) -> None:
    """Score any artefact under a named protocol; the same code for PyTorch, ONNX and engines.

    Example: msfnet evaluate model.onnx --data data/nyu_mini --protocol nyu_hu --sheet sheet.png
    """
    from msfnet.models import open_model
    from msfnet_benchmarks.scoring.evaluation import EvaluationOptions, evaluate_model

    options = EvaluationOptions(
        model=model,
        predictions=predictions,
        prediction_unit=prediction_unit,
        data=data,
        protocol=protocol,
        samples=split,
        frames=frames,
        alignment=align,
        against=against,
        static=static,
        provider=provider,
        threads=threads,
        csv=csv_path,
        sheet=sheet,
    )
    _check_combination(options)
    inputs = [model, against, data, split, predictions, static]
    check_outputs(csv_path, sheet, json=json_path, inputs=inputs, force=force)
    with progress("evaluate") as report:
        result = evaluate_model(options, open_model=open_model, progress=report)
    show(result.text(), result.to_json(), json_path)


def _check_combination(options: EvaluationOptions) -> None:
    """Refuse options that do not go together.

    Raises:
        MsfnetError: one line for each case.
    """
    from msfnet_runtime import MsfnetError

    if (options.model is None) == (options.predictions is None):
        raise MsfnetError("name either a MODEL or --predictions FOLDER")
    if options.prediction_unit and not options.predictions:
        raise MsfnetError("--prediction-unit needs --predictions FOLDER")
    if (options.data is None) != (options.protocol is None):
        raise MsfnetError("--data and --protocol go together; give both")
    if options.static and not options.model:
        raise MsfnetError("--static needs a MODEL to show its frames to")
    if options.data is None and not options.static:
        raise MsfnetError("name --data FOLDER with --protocol NAME, or --static SOURCE")
    scored = (options.against, options.alignment, options.samples, options.csv, options.sheet)
    if options.data is None and any(scored):
        raise MsfnetError(
            "--against, --align, --list, --csv and --sheet need --data FOLDER with --protocol NAME"
        )
