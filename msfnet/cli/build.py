"""From checkpoint to engine: ``msfnet export`` and ``build``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfnet.cli.options import parse_names, parse_size, refuse_existing
from msfnet.console import progress, say

if TYPE_CHECKING:
    from msfnet_runtime import Frame


class GraphName(str, Enum):
    """Which graph an export writes."""

    deploy = "deploy"
    network = "network"


class FloatPrecision(str, Enum):
    """The floating-point precisions an export writes."""

    fp32 = "fp32"
    fp16 = "fp16"


class ExportTarget(str, Enum):
    """Where an export is to run."""

    any = "any"
    cpu = "cpu"


class WeightsPlace(str, Enum):
    """Where an export's weights lie."""

    inside = "inside"
    beside = "beside"


class VerifyName(str, Enum):
    """How an export is held against PyTorch."""

    output = "output"
    deep = "deep"


class FlavourName(str, Enum):
    """Which TensorRT builds the engine."""

    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint made by `msfnet train`.")],
    out: Annotated[Path, typer.Argument(help="ONNX file to write.")],
    size: Annotated[
        str, typer.Option(help="Network input HxW; the recipe's inference size if left out.")
    ] = "",
    frame_size: Annotated[
        str, typer.Option(help="Frame HxW of a deploy graph; the network's size if left out.")
    ] = "",
    graph: Annotated[GraphName, typer.Option(help="What the graph spans.")] = GraphName.deploy,
    precision: Annotated[
        FloatPrecision, typer.Option(help="Precision of weights and activations.")
    ] = FloatPrecision.fp32,
    dynamic: Annotated[
        str, typer.Option(help="Leave open: batch, size (multiples of 32), or batch,size.")
    ] = "",
    data: Annotated[
        str, typer.Option("--data", help="Real frames to compare on as well: drive, folder, video.")
    ] = "",
    frames: Annotated[int, typer.Option(min=1, help="How many of those frames.")] = 4,
    verify: Annotated[
        VerifyName, typer.Option(help="deep compares every block, and names what departs.")
    ] = VerifyName.output,
    target: Annotated[
        ExportTarget,
        typer.Option(
            help="cpu: fewer multiplications, for ONNX Runtime and OpenVINO on a processor; one "
            "size, FP32."
        ),
    ] = ExportTarget.any,
    weights: Annotated[
        WeightsPlace,
        typer.Option(help="beside: in a file of their own; large models then start sooner."),
    ] = WeightsPlace.inside,
    no_fold: Annotated[
        str,
        typer.Option(
            help="Passes to leave out, to measure them: adaptive-pooling, up-blocks, "
            "convolutions, batch-norm, resizing, winograd."
        ),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Export a checkpoint to ONNX, checked against PyTorch; a graph that differs is not written.

    `deploy` takes a uint8 RGB frame and answers metres; `network` takes a normalised batch and
    answers the raw prediction.

    Example: msfnet export runs/nyu_mini/best.ckpt model.onnx --size 228x304
    """
    from msfnet_export import export_checkpoint

    refuse_existing(out, force)
    with progress("export") as report:
        result = export_checkpoint(
            checkpoint,
            out,
            size=parse_size(size) if size else None,
            frame_size=parse_size(frame_size) if frame_size else None,
            graph=graph.value,
            precision=precision.value,
            dynamic=parse_names(dynamic),  # type: ignore[arg-type]  # checked by the callee
            runs_on=target.value,
            weights=weights.value,
            without=parse_names(no_fold),  # type: ignore[arg-type]  # checked by the callee
            frames=_select(data, frames),
            verify=verify.value,
            progress=report,
        )
    say(result.text())


def _select(data: str, count: int) -> list[Frame]:
    """Return frames spread over a source; none where no source is named."""
    if not data:
        return []
    from msfnet_calibration import select_frames
    from msfnet_runtime.sources import open_source

    with open_source(data) as source:
        return select_frames(source, count)


class CompatibilityName(str, Enum):
    """Other GPUs an engine of ``tensorrt`` can be built for."""

    ampere_plus = "ampere-plus"
    same_compute_capability = "same-compute-capability"


def build(
    model: Annotated[Path, typer.Argument(help="ONNX file made by `msfnet export`.")],
    out: Annotated[Path, typer.Argument(help="Engine to write; its manifest goes beside it.")],
    flavour: Annotated[
        FlavourName, typer.Option(help="tensorrt-rtx also builds without a GPU.")
    ] = FlavourName.tensorrt_rtx,
    arch: Annotated[
        str, typer.Option(help="Compute capabilities, e.g. sm86,sm89; tensorrt: this GPU's.")
    ] = "",
    profile: Annotated[
        list[str] | None,
        typer.Option(
            help="What a dynamic engine takes, MIN:OPT:MAX of batch x height x width, e.g. "
            "1x64x96:1x224x320:8x480x640; may be repeated."
        ),
    ] = None,
    workspace: Annotated[int, typer.Option(min=0, help="Workspace in MiB; 0: no limit.")] = 0,
    optimization_level: Annotated[
        int | None, typer.Option(help="tensorrt: 0 (quick to build) to 5 (quick to run).")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="tensorrt: file that keeps what the builder has timed.")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="tensorrt: load under later versions, too.")
    ] = False,
    hardware_compatibility: Annotated[
        CompatibilityName | None, typer.Option(help="tensorrt: run on other GPUs, too.")
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Let the weights be replaced later; needs a GPU.")
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
    force: Annotated[bool, typer.Option("--force", help="Replace an existing engine.")] = False,
) -> None:
    """Build a TensorRT engine. Precision is the ONNX file's own: nothing is lowered silently.

    Example: msfnet build model_fp16.onnx model.engine --arch sm86,sm89
    """
    from msfnet_export.build_engine import build_engine
    from msfnet_export.build_options import BuildOptions, parse_profile

    refuse_existing(out, force)
    options = BuildOptions(
        architectures=parse_names(arch),
        workspace_mib=workspace or None,
        optimization_level=optimization_level,
        timing_cache=timing_cache,
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatibility.value if hardware_compatibility else None,
        profiles=tuple(parse_profile(text) for text in profile or ()),
        refit=refit,
        strip_weights=strip_weights,
        verbose=verbose,
    )
    with progress("build") as report:
        artifact = build_engine(model, out, flavour=flavour.value, options=options, progress=report)
    say(
        f"{artifact.path}: {artifact.spec.precision.upper()}, {artifact.flavour} "
        f"{artifact.version}, {', '.join(artifact.architectures)}, {artifact.bytes / 1e6:.1f} MB, "
        f"built in {artifact.build_seconds:.1f} s"
    )
