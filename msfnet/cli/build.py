"""Defines ``msfnet export`` and ``msfnet build``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from msfnet.cli.console import check_outputs, progress, say
from msfnet.cli.options import (
    FRAMES_HELP,
    SOURCE_HELP,
    ForceOption,
    ListOption,
    Names,
    Size,
    names_option,
    parsed_option,
    size_option,
)
from msfnet_export.build_options import BuildOptions, Compatibility, Profile, parse_profile
from msfnet_export.export_options import (
    PASSES,
    Dynamic,
    ExportOptions,
    FloatPrecision,
    Pass,
    RunsOn,
    Verify,
    Weights,
)
from msfnet_runtime.artifacts import Flavour
from msfnet_runtime.spec import Graph

if TYPE_CHECKING:
    from msfnet_runtime import Frame


class Dynamics(tuple[Dynamic, ...]):
    """The dimensions that a graph leaves open."""


class Passes(tuple[Pass, ...]):
    """Passes of an export."""


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint made by `msfnet train`.")],
    out: Annotated[Path, typer.Argument(help="ONNX file to write.")],
    size: Annotated[
        Size | None,
        size_option(
            "--size", "Size of the network's input; the recipe's inference size if left out."
        ),
    ] = None,
    frame_size: Annotated[
        Size | None,
        size_option("--frame-size", "Size of a deploy graph's frames; the network's if left out."),
    ] = None,
    graph: Annotated[
        Graph,
        typer.Option(
            help="deploy: from a uint8 RGB frame to metres; network: from a normalised batch to "
            "the raw prediction."
        ),
    ] = "deploy",
    precision: Annotated[
        FloatPrecision, typer.Option(help="Precision of weights and activations.")
    ] = "fp32",
    dynamic: Annotated[
        Dynamics | None,
        names_option(
            "--dynamic",
            "Dimensions to leave open; an open size takes multiples of 32.",
            choices=get_args(Dynamic),
            kind=Dynamics,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help=f"{SOURCE_HELP} The graph is also compared on them."),
    ] = None,
    split: ListOption = None,
    frames: Annotated[int, typer.Option("--frames", min=0, help=FRAMES_HELP)] = 4,
    verify: Annotated[
        Verify, typer.Option(help="deep compares every block and names the first that differs.")
    ] = "output",
    runs_on: Annotated[
        RunsOn,
        typer.Option(
            "--target",
            help="cpu: less arithmetic, for ONNX Runtime and OpenVINO on a processor; one size, "
            "FP32.",
        ),
    ] = "any",
    weights: Annotated[
        Weights,
        typer.Option(help="beside: in a separate file; large models then start sooner."),
    ] = "inside",
    without: Annotated[
        Passes | None,
        names_option(
            "--no-fold", "Passes to leave out, to measure them.", choices=PASSES, kind=Passes
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Export a checkpoint to ONNX, checked against PyTorch; a graph that differs is not written.

    Example: msfnet export runs/nyu_mini/best.ckpt model.onnx --size 228x304
    """
    from msfnet_export import export_checkpoint

    check_outputs(out, inputs=[checkpoint, data], force=force)
    options = ExportOptions(
        size=size,
        frame_size=frame_size,
        graph=graph,
        precision=precision,
        dynamic=dynamic or (),
        without=without or (),
        runs_on=runs_on,
        weights=weights,
        verify=verify,
    )
    with progress("export") as report:
        result = export_checkpoint(
            checkpoint, out, options, frames=_select(data, split, frames), progress=report
        )
    say(result.text())


def _select(data: str | None, split: str | None, count: int) -> list[Frame]:
    """Return frames spread over a source, 0: all; none where no source is named."""
    if data is None:
        return []
    from msfnet_calibration import select_frames
    from msfnet_datasets.layouts import open_frames

    with open_frames(data, split) as source:
        return select_frames(source, count or sys.maxsize)


def build(
    model: Annotated[Path, typer.Argument(help="ONNX file made by `msfnet export`.")],
    out: Annotated[Path, typer.Argument(help="Engine to write, with its manifest beside it.")],
    flavour: Annotated[
        Flavour, typer.Option(help="Which TensorRT; tensorrt-rtx also builds without a GPU.")
    ] = "tensorrt-rtx",
    architectures: Annotated[
        Names | None,
        names_option(
            "--arch",
            "Compute capabilities, for example sm86,sm89; tensorrt: this GPU's only.",
        ),
    ] = None,
    profiles: Annotated[
        list[Profile] | None,
        parsed_option(
            "--profile",
            "MIN:OPT:MAX",
            parse_profile,
            "Input shapes of a dynamic engine, each batch x height x width, for example "
            "1x64x96:1x224x320:8x480x640. Repeatable.",
        ),
    ] = None,
    workspace_mib: Annotated[
        int, typer.Option("--workspace", min=0, help="Workspace in MiB; 0: no limit.")
    ] = 0,
    optimization_level: Annotated[
        int | None,
        typer.Option(min=0, max=5, help="tensorrt: 0 (builds fastest) to 5 (runs fastest)."),
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="tensorrt: file that keeps the builder's timings.")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="tensorrt: also load in later versions.")
    ] = False,
    hardware_compatibility: Annotated[
        Compatibility | None, typer.Option(help="tensorrt: also run on other GPUs.")
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Allow new weights later; needs a GPU.")
    ] = False,
    strip_weights: Annotated[
        bool,
        typer.Option(
            "--strip-weights",
            help="Leave out the weights, for programs that put them back; needs a GPU.",
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print TensorRT's own messages on standard error.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Build a TensorRT engine. Its precision is that of the ONNX file.

    Example: msfnet build model_fp16.onnx model.engine --arch sm86,sm89
    """
    from msfnet_export.build_engine import build_engine, check_request
    from msfnet_runtime import EngineArtifact

    options = BuildOptions(
        architectures=architectures or (),
        workspace_mib=workspace_mib or None,
        optimization_level=optimization_level,
        timing_cache=timing_cache,
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatibility,
        profiles=tuple(profiles or ()),
        refit=refit,
        strip_weights=strip_weights,
        verbose=verbose,
    )
    check_outputs(out, EngineArtifact.sidecar(out), inputs=[model, timing_cache], force=force)
    check_request(out, flavour, options)
    with progress("build") as report:
        artifact = build_engine(model, out, flavour=flavour, options=options, progress=report)
    say(
        f"{artifact.path}: {artifact.spec.precision.upper()}, {artifact.flavour} "
        f"{artifact.version}, {', '.join(artifact.architectures)}, {artifact.bytes / 1e6:.1f} MB, "
        f"built in {artifact.build_seconds:.1f} s"
    )
