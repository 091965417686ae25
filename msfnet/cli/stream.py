"""``msfnet stream``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from msfnet.cli.console import progress, say
from msfnet.cli.options import (
    ForceOption,
    ProviderOption,
    Size,
    ThreadsOption,
    checked_option,
    size_option,
)
from msfnet.messages import note, put
from msfnet_runtime.colour import COLOUR_MAPS, Layout, colour_table
from msfnet_runtime.depth_storage import PngStorage
from msfnet_runtime.progress import silent
from msfnet_runtime.sinks.options import SinkOptions, parse_lens, parse_range
from msfnet_runtime.sources.options import SourceOptions

_ABORT_S = 5.0
"""Seconds after a second Ctrl-C until the process ends whatever hangs."""

Log = Literal["text", "json"]
"""How a running stream is shown."""


def _check_address(text: str) -> None:
    """Check the address of a live page, whose module is slow to import."""
    from msfnet_runtime.web.sink import parse_address

    parse_address(text)


def stream(
    model: Annotated[Path, typer.Argument(help="Checkpoint, ONNX file or engine.")],
    source: Annotated[
        str,
        typer.Argument(
            help="Camera index or device, URL, GStreamer pipeline, video, image, folder or pattern "
            "of images, or a data set."
        ),
    ],
    out: Annotated[
        list[str] | None,
        typer.Option(
            "--out",
            help="Video (.mp4), folder for 16-bit PNG, npz:FOLDER, ply:FOLDER, .rrd or rerun:. "
            "Repeatable.",
        ),
    ] = None,
    layout: Annotated[
        Layout,
        typer.Option(help="Videos and the window show frame and depth, or depth alone."),
    ] = "side-by-side",
    colours: Annotated[
        str,
        checked_option("--colours", "NAME", colour_table, f"Colour map: {', '.join(COLOUR_MAPS)}."),
    ] = "turbo",
    range_m: Annotated[
        str | None,
        checked_option(
            "--range",
            "NEAR,FAR",
            lambda text: SinkOptions(range_m=parse_range(text)),
            "Depths of the first and the last colour, metres.",
        ),
    ] = None,
    unit: Annotated[
        PngStorage | None,
        typer.Option(help="How 16-bit depth is stored: millimetres, or 256 counts per metre."),
    ] = None,
    lens: Annotated[
        str | None,
        checked_option(
            "--intrinsics",
            "FX,FY,CX,CY",
            parse_lens,
            "Camera, if the source has none: focal lengths and centre in pixels, or the "
            "horizontal field of view, for example 60deg; before any --rotate.",
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show a window.")] = False,
    frames: Annotated[
        int, typer.Option(min=0, help="Stop after this number of frames; 0: all.")
    ] = 0,
    max_fps: Annotated[
        float, typer.Option(min=0.0, help="Highest number of frames per second; 0: no limit.")
    ] = 0.0,
    log: Annotated[
        Log,
        typer.Option(
            help="json: a line of statistics every second on standard error, and the whole run's "
            "on standard output."
        ),
    ] = "text",
    metrics: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Serve Prometheus metrics on this port of 127.0.0.1."),
    ] = None,
    web: Annotated[
        bool, typer.Option("--web", help="Serve a live page on 127.0.0.1:8000.")
    ] = False,
    web_address: Annotated[
        str | None,
        checked_option(
            "--web-address",
            "HOST:PORT",
            _check_address,
            "Serve the live page here instead; needs a token unless it is a loopback address.",
        ),
    ] = None,
    web_token: Annotated[
        str | None,
        typer.Option(
            envvar="MSFNET_WEB_TOKEN", show_default=False, help="Access token for the live page."
        ),
    ] = None,
    rotate: Annotated[
        Literal["0", "90", "180", "270"],
        typer.Option(help="Rotate frames clockwise by this many degrees."),
    ] = "0",
    camera_size: Annotated[
        Size | None,
        size_option("--camera-size", "Size to ask a camera for; it gives the nearest it has."),
    ] = None,
    camera_fps: Annotated[
        float,
        typer.Option(min=0.0, help="Frames per second to ask a camera for; 0: its own rate."),
    ] = 0.0,
    reconnect: Annotated[
        bool,
        typer.Option(
            "--reconnect/--no-reconnect", help="Wait for a lost camera or stream to come back."
        ),
    ] = True,
    timeout_s: Annotated[
        float,
        typer.Option("--timeout", help="Seconds without a frame until a network stream is lost."),
    ] = 10.0,
    provider: ProviderOption = "cpu",
    threads: ThreadsOption = 0,
    force: ForceOption = False,
) -> None:
    """Stream frames through a model; all stages run at the same time.

    Ctrl-C, SIGTERM or SIGHUP finishes the outputs and ends with status 130, 143 or 129, or 0 for a
    camera. A second Ctrl-C aborts.

    Example: msfnet stream model.onnx drive.mp4 --out depth.mp4
    """
    from msfnet.models import open_model
    from msfnet_runtime.sinks import check_sinks
    from msfnet_runtime.stopping import Stop
    from msfnet_runtime.streaming import StreamOptions
    from msfnet_runtime.streaming import stream as run_stream

    options = StreamOptions(
        out=tuple(out or ()),
        show=show,
        web=web_address or ("127.0.0.1:8000" if web else None),
        web_token=web_token,
        metrics=metrics,
        max_frames=frames or None,
        max_fps=max_fps or None,
        source=SourceOptions(
            rotate=int(rotate),
            camera_size=camera_size,
            camera_fps=camera_fps or None,
            reconnect=reconnect,
            timeout_s=timeout_s,
            skip_bad=True,
        ),
        sinks=SinkOptions(
            layout=layout,
            colours=colours,
            range_m=parse_range(range_m) if range_m else None,
            unit=unit,
            lens=parse_lens(lens) if lens else None,
            rotate=int(rotate),
            force=force,
        ),
    )
    check_sinks(options.out, inputs=[model, source], force=force)
    stop, json = Stop(abort_s=_ABORT_S), log == "json"
    with (
        nullcontext(silent) if json else progress("stream") as report,
        open_model(model, provider=provider, threads=threads) as engine,
    ):
        stats = run_stream(
            engine,
            source,
            options,
            announce=lambda address: note("live page", address),
            observers=[lambda stats: put(stats.to_json())] if json else [],
            stop=stop,
            progress=report,
        )
    say(stats.to_json() if json else stats.text())
    if stop.signal and not stats.live:
        raise typer.Exit(128 + stop.signal)
