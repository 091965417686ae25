"""``msfnet data``: make frames with ground truth, or look at those you have."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from msfnet.cli.options import parse_size
from msfnet.console import progress, say

app = typer.Typer(
    help="Make generated scenes in real formats, or check a data set.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Layout(str, Enum):
    """The formats generated scenes are written in."""

    kitti = "kitti"
    nyu = "nyu"


@app.command()
def synthesize(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    layout: Annotated[
        Layout, typer.Option(help="kitti: raw drives of streets; nyu: rooms in DenseDepth's way.")
    ],
    scenes: Annotated[int, typer.Option(min=1, help="Drives or rooms.")] = 4,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each.")] = 24,
    size: Annotated[str, typer.Option(help="HxW; the data set's own size if left out.")] = "",
    seed: Annotated[int, typer.Option(help="The same seed renders the same pixels.")] = 0,
) -> None:
    """Render textured streets or rooms with exact depth, and write them as KITTI or NYU do.

    Example: msfnet data synthesize data/streets --layout kitti --scenes 4 --frames 24
    """
    from msfnet_benchmarks.synthesize import synthesize_kitti, synthesize_nyu

    chosen = parse_size(size) if size else None
    with progress("synthesize") as report:
        if layout is Layout.kitti:
            synthesize_kitti(
                out,
                drives=scenes,
                frames=frames,
                seed=seed,
                size=chosen or (375, 1242),
                progress=report,
            )
        else:
            synthesize_nyu(
                out,
                scenes=scenes,
                frames=frames,
                seed=seed,
                size=chosen or (480, 640),
                progress=report,
            )
    say(f"{out}: {scenes * frames} frames in {layout.value}'s layout")


@app.command()
def check(
    path: Annotated[
        Path, typer.Argument(help="KITTI raw drives, NYU in DenseDepth's layout, or images.")
    ],
) -> None:
    """Report what a data set holds: counts, missing files, sizes, units and depth range.

    Example: msfnet data check data/nyu_mini
    """
    from msfnet_benchmarks.check import check_data

    with progress("check") as report:
        result = check_data(path, progress=report)
    say(result.text())
