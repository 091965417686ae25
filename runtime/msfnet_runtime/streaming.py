"""Streams a source through an engine into files, a window or a live page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from msfnet_runtime.engine import Engine
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.estimator import DepthEstimator
from msfnet_runtime.metrics import StreamMetrics
from msfnet_runtime.pipeline import Observer, never, run_pipeline
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sinks import check_sinks, open_sink
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.sinks.window import WindowSink
from msfnet_runtime.sources import SourceOptions, open_source
from msfnet_runtime.stopping import Stop
from msfnet_runtime.stream_stats import StreamStats


@dataclass(frozen=True)
class StreamOptions:
    """Outputs, limits and options of a stream.

    Raises:
        MsfnetError: it goes nowhere.
    """

    out: tuple[str, ...] = ()
    """Outputs, each as :func:`msfnet_runtime.sinks.open_sink` reads it."""
    show: bool = False
    """Open a window."""
    web: str | None = None
    """HOST:PORT of a live page; any but a loopback address needs :attr:`web_token`."""
    web_token: str | None = None
    """Access token for the live page."""
    metrics: int | None = None
    """Port for Prometheus on the loopback address."""
    max_frames: int | None = None
    """Stop after this number of frames."""
    max_fps: float | None = None
    """Run no more frames per second than this."""
    source: SourceOptions = field(default_factory=SourceOptions)
    sinks: SinkOptions = field(default_factory=SinkOptions)

    def __post_init__(self) -> None:
        if not self.out and not self.show and self.web is None:
            raise MsfnetError(
                "no output is named; name a video or a folder such as depth.mp4, or ask "
                "for a window or a live page",
                parameter="out",
            )


def stream(
    engine: Engine,
    source: str,
    options: StreamOptions,
    *,
    announce: Callable[[str], object] = print,
    observers: Sequence[Observer] = (),
    stop: Stop | None = None,
    progress: Progress = silent,
) -> StreamStats:
    """Run every frame of a source through an open engine, which stays open.

    Args:
        engine: the model.
        source: as :func:`~msfnet_runtime.sources.open_source` takes it.
        options: where the stream goes.
        announce: called with the live page's address, once it is served.
        observers: called with a snapshot every second.
        stop: set by Ctrl-C or SIGTERM, which then end the stream as if its source had ended;
            without it they abort.
        progress: called every second as (frames written, total or 0, rate and age).

    Raises:
        MsfnetError: anything that cannot be opened or written.
    """
    from msfnet_runtime.web import WebSink
    from msfnet_runtime.web.sink import parse_address

    def report(stats: StreamStats) -> None:
        progress(stats.frames, stats.total, stats.line())

    check_sinks(options.out, inputs=[source], force=options.sinks.force)
    watching: list[Observer] = [report]
    with ExitStack() as stack:
        if options.metrics is not None:
            watching.append(stack.enter_context(StreamMetrics(options.metrics)))
        frames = stack.enter_context(open_source(source, options.source))
        if stop:
            stack.enter_context(stop.on_signals())
        spec, look = engine.spec, options.sinks
        sinks = [open_sink(each, spec, frames.fps, look) for each in options.out]
        sinks += [WindowSink(spec, look)] if options.show else []
        opened = [stack.enter_context(sink) for sink in sinks]
        if options.web is not None:
            page = WebSink(spec, *parse_address(options.web), options.web_token, options=look)
            opened.append(stack.enter_context(page))
            watching.append(page.observe)
            announce(page.address)
        return run_pipeline(
            frames,
            DepthEstimator(engine),
            opened,
            max_frames=options.max_frames,
            max_fps=options.max_fps,
            observers=[*watching, *observers],
            stop=stop or never,
        )
