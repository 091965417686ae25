"""``msfnet stream``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msfnet.console import progress, say


def stream(
    model: Annotated[Path, typer.Argument(help="Checkpoint, ONNX file or engine.")],
    source: Annotated[
        str, typer.Argument(help="Camera index, URL, video, folder of images or KITTI drive.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Video (.mp4), or folder for 16-bit PNG depth maps."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show a window.")] = False,
    frames: Annotated[int, typer.Option(min=0, help="Stop after so many; 0: all.")] = 0,
    provider: Annotated[
        str, typer.Option(help="ONNX Runtime's provider: cpu, cuda or tensorrt.")
    ] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: the library's choice.")] = 0,
) -> None:
    """Stream frames through a model, reading, inferring and writing at the same time.

    Example: msfnet stream model.onnx drive.mp4 --out depth.mp4
    """
    from msfnet.streaming import stream_to

    with progress("stream") as report:
        result = stream_to(
            model,
            source,
            out=out,
            show=show,
            max_frames=frames or None,
            provider=provider,
            threads=threads,
            progress=report,
        )
    say(result.text())
