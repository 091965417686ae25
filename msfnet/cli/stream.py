"""``msfnet stream``."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfnet.console import progress, say
from msfnet_runtime.progress import silent

if TYPE_CHECKING:
    from msfnet_runtime.stream_stats import StreamStats


class Log(str, Enum):
    """How a running stream is shown."""

    TEXT = "text"
    JSON = "json"


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
    max_fps: Annotated[
        float, typer.Option(min=0.0, help="Take no more frames per second; 0: no limit.")
    ] = 0.0,
    log: Annotated[
        Log, typer.Option(help="json: one line every second on standard error, then the report.")
    ] = Log.TEXT,
    metrics: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Serve Prometheus on this port of 127.0.0.1."),
    ] = None,
    web: Annotated[
        bool, typer.Option("--web", help="Serve a live page on 127.0.0.1:8000.")
    ] = False,
    web_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve it there instead; any but a loopback address takes a token.",
        ),
    ] = None,
    web_token: Annotated[
        str | None,
        typer.Option(
            envvar="MSFNET_WEB_TOKEN", show_default=False, help="What the page's viewers must know."
        ),
    ] = None,
    provider: Annotated[
        str, typer.Option(help="ONNX Runtime's provider: cpu, cuda or tensorrt.")
    ] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: the library's choice.")] = 0,
) -> None:
    """Stream frames through a model, every stage at the same time.

    Ctrl-C or SIGTERM finishes what is written: exit status 130 or 143 for files, 0 for a camera.
    A second Ctrl-C aborts.

    Example: msfnet stream model.onnx drive.mp4 --out depth.mp4
    """
    from msfnet.streaming import stream_to
    from msfnet_runtime.stopping import Stop

    stop, json = Stop(), log is Log.JSON
    with nullcontext(silent) if json else progress("stream") as report:
        stats = stream_to(
            model,
            source,
            out=out,
            show=show,
            max_frames=frames or None,
            max_fps=max_fps or None,
            provider=provider,
            threads=threads,
            metrics=metrics,
            web=web_address or ("127.0.0.1:8000" if web else None),
            web_token=web_token,
            announce=_announce,
            observers=[_print_json] if json else [],
            stop=stop,
            progress=report,
        )
    say(stats.to_json() if json else stats.text())
    if stop.signal and not stats.live:
        raise typer.Exit(128 + stop.signal)


def _print_json(stats: StreamStats) -> None:
    """Print a snapshot on standard error."""
    print(stats.to_json(), file=sys.stderr, flush=True)


def _announce(address: str) -> None:
    """Print where the live page is, on standard error."""
    print(f"live page: {address}", file=sys.stderr, flush=True)
