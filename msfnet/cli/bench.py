"""``msfnet bench``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfnet.cli.console import STANDARD_OUTPUT, check_outputs, progress, say
from msfnet.cli.options import (
    DATA_HELP,
    FRAMES_HELP,
    PROVIDER_HELP,
    ForceOption,
    JsonOption,
    ListOption,
    Names,
    Numbers,
    ProtocolOption,
    ThreadsOption,
    checked_option,
    names_option,
    numbers_option,
    share_option,
)
from msfnet_runtime.engines.providers import Provider
from msfnet_runtime.errors import MsfnetError

if TYPE_CHECKING:
    from msfnet_benchmarks.bench import BenchPlan
    from msfnet_benchmarks.report.pictures import Picture
    from msfnet_benchmarks.report.report import BenchmarkReport

_EAGER, _SINGLE, _FRAMES = Names(("eager",)), Numbers((1,)), 32
"""Defaults of ``bench``."""


def bench(
    models: Annotated[
        list[Path] | None, typer.Argument(help="ONNX files, engines or checkpoints.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", help="Baseline: a checkpoint, or `pytorch` to find it by its hash."
        ),
    ] = None,
    pytorch: Annotated[
        Names,
        names_option(
            "--pytorch",
            "How checkpoints run: eager, channels-last, compile, autocast or cuda-graph; the first "
            "is the baseline's.",
        ),
    ] = _EAGER,
    provider: Annotated[
        list[str] | None,
        checked_option("--provider", "NAME", Provider.parse, f"{PROVIDER_HELP} Repeatable."),
    ] = None,
    peer: Annotated[
        list[Path] | None,
        typer.Option(help="Another project's ONNX file; only its engine is timed. Repeatable."),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help=DATA_HELP)] = None,
    split: ListOption = None,
    protocol: ProtocolOption = None,
    frames: Annotated[int, typer.Option("--frames", min=0, help=FRAMES_HELP)] = _FRAMES,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds over the frames.")] = 3,
    batches: Annotated[
        Numbers, numbers_option("--batch", "Batch sizes of the throughput, for example 1,4,8.")
    ] = _SINGLE,
    threads: ThreadsOption = 0,
    cold: Annotated[
        bool, typer.Option("--cold", help="Time a start, up to the first depth.")
    ] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Time every layer.")] = False,
    report: Annotated[
        Path | None, typer.Option("--report", help="HTML report to write, with its JSON beside it.")
    ] = None,
    json: JsonOption = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables as Markdown.")] = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="JSON of an earlier run; exit status 1 if anything got worse."),
    ] = None,
    tolerance: Annotated[
        float, share_option("--tolerance", "Allowed regression, for example 5%.")
    ] = 0.05,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure every combination of size=, batch=, threads=, encoder=, preset=, …, for "
            "example size=128x160,192x256. MODEL: a checkpoint, or none. With --json a "
            "stopped sweep is resumed, and points are added. Repeatable."
        ),
    ] = None,
    counts: Annotated[
        bool, typer.Option("--counts", help="With --sweep: count MACs and bytes, time nothing.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Compare latency and depth error of artefacts on the same frames in one run.

    Example: msfnet bench model.onnx model_int8.onnx --against pytorch --data data/nyu_mini
    --protocol nyu_hu --report report.html
    """
    from msfnet.candidates import order_candidates
    from msfnet_benchmarks.bench import BenchPlan, unanswered
    from msfnet_benchmarks.bench import bench as compare_candidates
    from msfnet_benchmarks.report import tables
    from msfnet_benchmarks.report.writer import ReportFiles
    from msfnet_runtime.files import locked
    from msfnet_runtime.typed import to_json

    stored = None if json == STANDARD_OUTPUT else json
    files = ReportFiles(stored, markdown, report, compare, tolerance)
    files.check()
    resumed = stored if sweep else None
    outputs = [path for path in files.outputs if path != resumed]
    inputs = [*(models or ()), against, *(peer or ()), data, split, compare, resumed]
    check_outputs(*outputs, inputs=inputs, force=force)
    pictures: list[Picture] = []
    plan = BenchPlan(
        data=data,
        split=split,
        protocol=protocol,
        frames=frames,
        rounds=rounds,
        batches=batches,
        threads=threads,
        cold=cold,
        profile=profile,
        pictures=report is not None,
    )
    with ExitStack() as stack:
        if sweep:
            _refuse_comparison(plan, against, pytorch, peer)
            if stored:
                stack.enter_context(locked(stored))
            result = _sweep(sweep, models or [], provider or ["cpu"], rounds, counts, stored)
            shown = tables.text(result)
        else:
            plan.check()
            candidates = order_candidates(
                _named(models, counts),
                against=against,
                modes=pytorch,
                providers=provider or ("cpu",),
                peers=peer or (),
                threads=threads,
            )
            baseline = candidates[0].name if against else None
            with progress("bench") as count:
                result, pictures = compare_candidates(
                    candidates, plan, baseline=baseline, progress=count
                )
            shown = "\n".join(filter(None, (tables.text(result), unanswered(result, batches))))
        say(to_json(result) if json == STANDARD_OUTPUT else shown)
        if not files.write(result, pictures, say):
            raise typer.Exit(1)


def _refuse_comparison(
    plan: BenchPlan, against: str | None, pytorch: Names, peer: list[Path] | None
) -> None:
    """Refuse options of a comparison beside a sweep, which would ignore them.

    Raises:
        MsfnetError: one was given; the line says what to write instead, where there is something.
    """
    given = {
        "--data": plan.data,
        "--list": plan.split,
        "--protocol": plan.protocol,
        "--against": against,
        "--peer": peer,
        "--cold": plan.cold,
        "--profile": plan.profile,
        "--pytorch": tuple(pytorch) != tuple(_EAGER),
        "--frames": plan.frames != _FRAMES,
        "--threads": plan.threads,
        "--batch": tuple(plan.batches) != tuple(_SINGLE),
    }
    for option, value in given.items():
        if value:
            axis = option.removeprefix("--")
            instead = f"; write --sweep {axis}=1,4" if axis in ("threads", "batch") else ""
            raise MsfnetError(
                f"{option} is for comparisons and has no effect on a sweep; leave it out{instead}"
            )


def _named(models: list[Path] | None, counts: bool) -> list[Path]:
    """Return the models of a comparison.

    Raises:
        MsfnetError: there are none, or an option is a sweep's.
    """
    if counts:
        raise MsfnetError(
            "--counts needs --sweep; leave it out, or sweep, for example, preset=lite"
        )
    if not models:
        raise MsfnetError(
            "nothing to compare; name a model, or sweep with for example --sweep preset=lite"
        )
    return models


def _sweep(
    axes: list[str],
    models: list[Path],
    providers: list[str],
    rounds: int,
    counts: bool,
    json: Path | None,
) -> BenchmarkReport:
    """Measure the points of a sweep.

    Raises:
        MsfnetError: several models or providers, or as the sweep.
    """
    from tempfile import gettempdir

    from msfnet.sweep import sweep_points
    from msfnet_benchmarks.sweep import SweepPlan, sweep
    from msfnet_runtime.files import temporary_folder

    for values, what in ((models, "checkpoint"), (providers, "provider")):
        if len(values) > 1:
            raise MsfnetError(f"a sweep takes one {what}, not {len(values)}; sweep them one by one")
    checkpoint = models[0] if models else None
    exports = Path(gettempdir()) / "msfnet-sweep"  # what a killed sweep left there is removed
    with temporary_folder(exports) as folder, progress("sweep") as count:
        points = sweep_points(axes, folder, checkpoint=checkpoint, provider=providers[0])
        return sweep(points, SweepPlan(rounds, counts, checkpoint, json), progress=count)
