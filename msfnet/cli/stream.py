"""``msfnet stream``."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msfnet.cli.options import ProviderOption, parse_size
from msfnet.console import progress, say
from msfnet_runtime.depth_storage import PngStorage
from msfnet_runtime.progress import silent

if TYPE_CHECKING:
    from msfnet_runtime.stream_stats import StreamStats


class Log(str, Enum):
    """How a running stream is shown."""

    TEXT = "text"
    JSON = "json"


class Layout(str, Enum):
    """What a picture shows: frame and depth, one over the other, or depth alone."""

    SIDE_BY_SIDE = "side-by-side"
    OVERLAY = "overlay"
    DEPTH = "depth"


def stream(
    model: Annotated[Path, typer.Argument(help="Checkpoint, ONNX file or engine.")],
    source: Annotated[
        str,
        typer.Argument(
            help="Camera index or device, URL, GStreamer pipeline, video, image, folder of "
            "images, pattern, KITTI drive or NYU list."
        ),
    ],
    out: Annotated[
        list[str] | None,
        typer.Option(
            "--out",
            help="Video (.mp4), folder for 16-bit PNG, npz:FOLDER, ply:FOLDER, .rrd or rerun:. "
            "Repeat it for several.",
        ),
    ] = None,
    layout: Annotated[
        Layout, typer.Option(help="What videos and the window show.")
    ] = Layout.SIDE_BY_SIDE,
    colours: Annotated[
        str, typer.Option(help="Colour map: turbo, magma, viridis, cividis or grey.")
    ] = "turbo",
    colour_range: Annotated[
        str | None,
        typer.Option("--range", metavar="NEAR,FAR", help="Ends of the colours, metres."),
    ] = None,
    unit: Annotated[
        PngStorage | None,
        typer.Option(help="How 16-bit depth is stored: millimetres, or 256 counts per metre."),
    ] = None,
    intrinsics: Annotated[
        str | None,
        typer.Option(
            metavar="FX,FY,CX,CY", help="Camera, where the source knows none; or its view: 60deg."
        ),
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
    rotate: Annotated[
        int, typer.Option(help="Turn frames clockwise: 0, 90, 180 or 270 degrees.")
    ] = 0,
    camera_size: Annotated[
        str, typer.Option(metavar="HxW", help="Ask a camera for this size; it gives the nearest.")
    ] = "",
    camera_fps: Annotated[
        float, typer.Option(min=0.0, help="Ask a camera for this rate; 0: its own.")
    ] = 0.0,
    no_reconnect: Annotated[
        bool, typer.Option("--no-reconnect", help="End when a camera or stream is lost.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds without a frame after which a network stream is lost.")
    ] = 10.0,
    provider: ProviderOption = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: the library's choice.")] = 0,
) -> None:
    """Stream frames through a model, every stage at the same time.

    Ctrl-C or SIGTERM finishes what is written: exit status 130 or 143 for files, 0 for a camera.
    A second Ctrl-C aborts.

    Example: msfnet stream model.onnx drive.mp4 --out depth.mp4
    """
    from msfnet.streaming import stream_to
    from msfnet_runtime.sinks.options import SinkOptions, parse_lens, parse_range
    from msfnet_runtime.sources.options import SourceOptions
    from msfnet_runtime.stopping import Stop

    stop, json = Stop(), log is Log.JSON
    with nullcontext(silent) if json else progress("stream") as report:
        stats = stream_to(
            model,
            source,
            source_options=SourceOptions(
                rotate=rotate,
                camera_size=parse_size(camera_size) if camera_size else None,
                camera_fps=camera_fps or None,
                reconnect=not no_reconnect,
                timeout_s=timeout,
                skip_bad=True,
            ),
            out=out or [],
            options=SinkOptions(
                layout=layout.value,
                colours=colours,
                range_m=parse_range(colour_range) if colour_range else None,
                unit=unit,
                lens=parse_lens(intrinsics) if intrinsics else None,
            ),
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
