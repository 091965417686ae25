"""``msfnet bench`` and ``msfnet evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfnet.cli.options import ProviderOption, parse_names, parse_numbers, parse_share
from msfnet.console import progress, say

if TYPE_CHECKING:
    from msfnet.bench_outputs import BenchOutputs
    from msfnet_benchmarks.report.report import BenchmarkReport


def evaluate(
    model: Annotated[Path | None, typer.Argument(help="Checkpoint, ONNX file or engine.")] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder of frames with ground truth: KITTI raw or NYU."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", help="Evaluation protocol, e.g. nyu_hu or kitti_raw."),
    ] = None,
    samples: Annotated[
        str | None, typer.Option("--list", help="A list of the data set, or a list file.")
    ] = None,
    frames: Annotated[
        int, typer.Option(min=0, help="Score only so many, spread over the list; 0: all.")
    ] = 0,
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
        str | None,
        typer.Option(help="Counts of these PNG: mm, or 256 to a metre; else their manifest says."),
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


def bench(
    models: Annotated[
        list[Path] | None, typer.Argument(help="ONNX files, engines or checkpoints.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", help="The baseline: a checkpoint, or `pytorch` to find it by its hash."
        ),
    ] = None,
    pytorch: Annotated[
        str,
        typer.Option(
            help="How checkpoints run: eager,channels-last,compile,autocast,cuda-graph; the first "
            "is the baseline's."
        ),
    ] = "eager",
    provider: Annotated[
        list[str] | None,
        typer.Option(help="What runs ONNX files: cpu, cuda, tensorrt or openvino; repeatable."),
    ] = None,
    peer: Annotated[
        list[Path] | None,
        typer.Option(help="Another project's ONNX file, engine only; repeatable."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Frames with ground truth: KITTI raw or NYU.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="Score each artefact under this protocol.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames that are timed and scored.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds over the frames.")] = 3,
    batch: Annotated[str, typer.Option(help="Batch sizes of the throughput, e.g. 1,4,8.")] = "1",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: the library's choice.")] = 0,
    cold: Annotated[bool, typer.Option("--cold", help="Measure process start to depth.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Time every layer.")] = False,
    report: Annotated[
        Path | None, typer.Option("--report", help="HTML report; its JSON lands beside it.")
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write all as JSON.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables as Markdown.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="JSON of an earlier run; status 1 if anything got worse.")
    ] = None,
    tolerance: Annotated[str, typer.Option(help="By how much it may, e.g. 5%.")] = "5%",
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure every combination of size=, batch=, threads=, encoder=, preset=, …, e.g. "
            "size=128x160,192x256; repeatable. MODEL: a checkpoint, or none. With --json it goes "
            "on where it was stopped."
        ),
    ] = None,
    counts: Annotated[
        bool, typer.Option("--counts", help="With --sweep: count arithmetic and bytes, time none.")
    ] = False,
) -> None:
    """Compare latency and depth error of artefacts on the same frames in one run.

    Example: msfnet bench model.onnx model_int8.onnx --against pytorch --data data/nyu_mini
    --protocol nyu_hu --report report.html
    """
    from msfnet.bench_outputs import BenchOutputs
    from msfnet.measuring import BenchRequest, bench_models, unanswered

    outputs = BenchOutputs(json_path, markdown, compare, parse_share(tolerance))
    if sweep:
        result = _sweep(sweep, models or [], counts, rounds, provider or ["cpu"], outputs, report)
        if not outputs.write(result, say):
            raise typer.Exit(1)
        return
    request = BenchRequest(
        _named(models, counts),
        against=against,
        modes=parse_names(pytorch),
        providers=provider or ("cpu",),
        peers=peer or (),
        data=data,
        protocol=protocol,
        frames=frames,
        rounds=rounds,
        batches=parse_numbers(batch, "batch sizes"),
        threads=threads,
        cold=cold,
        profile=profile,
        page=report,
        files=outputs.files(),
    )
    with progress("bench") as report_progress:
        result = bench_models(request, progress=report_progress)
    say(result.table())
    if fixed := unanswered(result, request.batches):
        say(fixed)
    if report:
        say(f"report: {report}")
    if not outputs.write(result, say):
        raise typer.Exit(1)


def _named(models: list[Path] | None, counts: bool) -> list[Path]:
    """Return the models of a comparison.

    Raises:
        MsfnetError: there are none, or an option is a sweep's.
    """
    from msfnet_runtime import MsfnetError

    if counts:
        raise MsfnetError("--counts goes with --sweep; leave it out, or sweep e.g. preset=lite")
    if not models:
        raise MsfnetError("nothing to compare; name a model, or sweep e.g. --sweep preset=lite")
    return models


def _sweep(
    axes: list[str],
    models: list[Path],
    counts: bool,
    rounds: int,
    providers: list[str],
    outputs: BenchOutputs,
    page: Path | None,
) -> BenchmarkReport:
    from msfnet.sweeping import CALLS_A_ROUND, SweepRequest, one_of, parse_axes, sweep
    from msfnet_benchmarks.report.report import check_page_path
    from msfnet_runtime.files import check_writable

    for path in (*outputs.files(), *([page] if page else [])):
        check_writable(path)
    if page:
        check_page_path(page)
    request = SweepRequest(
        parse_axes(axes),
        checkpoint=one_of(models, "checkpoint"),
        calls=CALLS_A_ROUND * rounds,
        counts_only=counts,
        provider=one_of(providers, "provider") or "cpu",
        json_path=outputs.json,
    )
    with progress("sweep") as report_progress:
        result = sweep(request, report_progress)
    say(result.table())
    if page:
        result.write(page)
        say(f"report: {page}")
    return result
