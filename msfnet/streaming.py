"""Streams a source through any model into files or a window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from msfnet_runtime import DepthEstimator, MsfnetError
from msfnet_runtime.progress import Progress, silent

if TYPE_CHECKING:
    from msfnet_runtime.pipeline import Observer
    from msfnet_runtime.sinks.options import SinkOptions
    from msfnet_runtime.sources import SourceOptions
    from msfnet_runtime.stopping import Stop
    from msfnet_runtime.stream_stats import StreamStats


def stream_to(
    model: Path,
    source: str,
    *,
    source_options: SourceOptions | None = None,
    out: Sequence[str | Path] = (),
    options: SinkOptions | None = None,
    show: bool = False,
    max_frames: int | None = None,
    max_fps: float | None = None,
    provider: str = "cpu",
    threads: int = 0,
    metrics: int | None = None,
    web: str | None = None,
    web_token: str | None = None,
    announce: Callable[[str], object] = print,
    observers: Sequence[Observer] = (),
    stop: Stop | None = None,
    progress: Progress = silent,
) -> StreamStats:
    """Run every frame of ``source`` through ``model``.

    Args:
        model: checkpoint, ONNX file or engine.
        source: as :func:`~msfnet_runtime.sources.open_source` takes it.
        source_options: what else is asked of it.
        out: outputs, each as :func:`msfnet_runtime.sinks.open_sink` reads it.
        options: how outputs and the window show depth; None follows the model.
        show: open a window.
        max_frames: stop after so many.
        max_fps: take no more frames than so many per second.
        provider: as :func:`~msfnet_runtime.open_engine` takes it.
        threads: CPU threads; 0 leaves the choice to the library.
        metrics: port for Prometheus on the loopback address.
        web: HOST:PORT of a live page; any but a loopback address takes a token.
        web_token: what the live page's viewers must know.
        announce: called with the live page's address, once it is served.
        observers: called with a snapshot every second.
        stop: set by Ctrl-C or SIGTERM, which then end the stream as if its source had ended;
            without it they abort.
        progress: called every second as (frames written, total or 0, how it goes).

    Raises:
        MsfnetError: nowhere to stream to, or anything that cannot be opened or written.
    """
    from msfnet.models import open_model
    from msfnet_runtime.metrics import StreamMetrics
    from msfnet_runtime.pipeline import never, run_pipeline
    from msfnet_runtime.sinks import open_sink
    from msfnet_runtime.sinks.options import SinkOptions
    from msfnet_runtime.sinks.window import WindowSink
    from msfnet_runtime.sources import SourceOptions, open_source
    from msfnet_runtime.web import WebSink
    from msfnet_runtime.web.server import parse_address

    if not out and not show and web is None:
        raise MsfnetError(
            "nowhere to stream to; pass --out depth.mp4, --out FOLDER, --show or --web"
        )

    def tell(stats: StreamStats) -> None:
        progress(stats.frames, stats.total, stats.line())

    with ExitStack() as stack:
        served = [] if metrics is None else [stack.enter_context(StreamMetrics(metrics))]
        engine = stack.enter_context(open_model(model, provider=provider, threads=threads))
        frames = stack.enter_context(open_source(source, source_options or SourceOptions()))
        if stop:
            stack.enter_context(stop.on_signals())
        chosen = options or SinkOptions()
        sinks = [open_sink(each, engine.spec, frames.fps, chosen) for each in out]
        windows = [WindowSink(engine.spec, chosen)] if show else []
        pages = (
            [WebSink(engine.spec, *parse_address(web), web_token, options=chosen)] if web else []
        )
        opened = [stack.enter_context(sink) for sink in (*sinks, *windows, *pages)]
        for page in pages:
            announce(page.address)
        return run_pipeline(
            frames,
            DepthEstimator(engine),
            opened,
            max_frames=max_frames,
            max_fps=max_fps,
            observers=(tell, *served, *(page.observe for page in pages), *observers),
            stop=stop or never,
        )
