"""``msfnet data``: generate frames with ground truth, or check a data set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from msfnet.cli.console import check_outputs, progress, say, show
from msfnet.cli.options import (
    ForceOption,
    JsonOption,
    ListOption,
    SeedOption,
    Size,
    help_alone,
    png_option,
    size_option,
)
from msfnet_datasets.layouts import Layout
from msfnet_runtime.depth_storage import DepthStorage
from msfnet_runtime.words import counted

app = typer.Typer(
    help="Generate scenes in the formats of real data sets, or check a data set.",
    callback=help_alone,
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.command()
def synthesize(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    layout: Annotated[
        Literal["kitti", "nyu"],
        typer.Option(help="kitti: raw drives of streets; nyu: rooms in DenseDepth's layout."),
    ],
    scenes: Annotated[int, typer.Option(min=1, help="Drives or rooms.")] = 4,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each drive or room.")] = 24,
    size: Annotated[
        Size | None,
        size_option("--size", "Size of the frames; that of the real data set if left out."),
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """Render textured streets or rooms with exact depth, and write them as KITTI or NYU do.

    Example: msfnet data synthesize data/streets --layout kitti --scenes 4 --frames 24
    """
    from msfnet_datasets.synthesize import synthesize_kitti, synthesize_nyu

    if layout == "kitti":
        write, usual = partial(synthesize_kitti, drives=scenes), (375, 1242)
    else:
        write, usual = partial(synthesize_nyu, scenes=scenes), (480, 640)
    with progress("synthesize") as report:
        write(out, frames=frames, seed=seed, size=size or usual, progress=report)
    say(f"{out}: {counted(scenes * frames, 'frame')} in {layout}'s layout")


@app.command()
def check(
    path: Annotated[
        Path, typer.Argument(help="KITTI raw drives, NYU in any layout, RGB-D pairs, or images.")
    ],
    split: ListOption = None,
    layout: Annotated[
        Layout | None, typer.Option(help="The data's layout; recognised if left out.")
    ] = None,
    depth: Annotated[
        DepthStorage | None,
        typer.Option(help="How depth is stored; as the layout has it if left out."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Open every file; exit status 1 if any is bad or missing.")
    ] = False,
    sheet: Annotated[
        Path | None,
        png_option("--sheet", "PNG to draw frames, depth and histograms into."),
    ] = None,
    json_path: JsonOption = None,
    force: ForceOption = False,
) -> None:
    """Report what a data set holds: counts, missing and bad files, sizes, units, depth.

    Example: msfnet data check data/nyu_mini --all --sheet sheet.png
    """
    from msfnet_datasets.check import check_data
    from msfnet_datasets.data_sheet import draw_sheet

    check_outputs(sheet, json=json_path, inputs=[path, split], force=force)
    with progress("check") as report:
        result = check_data(
            path,
            layout=layout,
            name=split or "",
            depth=depth,
            every=every,
            progress=report,
        )
        if sheet:
            draw_sheet(result, sheet, progress=report)
    show(result.text(), result.to_json(), json_path)
    if result.bad or (every and result.missing):
        raise typer.Exit(1)
