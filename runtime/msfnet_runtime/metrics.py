"""Serves the statistics of a stream to Prometheus, on the loopback address."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from msfnet_runtime.closing import Closing
from msfnet_runtime.libraries import require
from msfnet_runtime.stream_stats import StageTimes, StreamStats
from msfnet_runtime.web.guard import Guard, respond
from msfnet_runtime.web.server import listen, serving

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

ADDRESS = "127.0.0.1"

CONNECTIONS = 32
"""Largest number of connections."""

_BUCKETS_S = tuple(round(base * scale, 4) for scale in (1e-3, 1e-2, 0.1, 1) for base in (1, 2, 5))
"""Limits of the histograms, seconds: 1 ms to 5 s in steps of about two."""


class StreamMetrics(Closing):
    """Serves statistics of a stream and its process at ``http://127.0.0.1:PORT/metrics``.

    It is an observer of :func:`~msfnet_runtime.pipeline.run_pipeline`, also of several runs: their
    frames are added up, and rate and queues are those of the last snapshot.

    Args:
        port: a TCP port; 0 selects a free one.

    Raises:
        MsfnetError: the library is absent, or the port is not available.
    """

    def __init__(self, port: int) -> None:
        require("prometheus_client", "uvicorn")
        import prometheus_client as library

        registry = library.CollectorRegistry()
        library.ProcessCollector(registry=registry)
        library.PlatformCollector(registry=registry)
        library.GCCollector(registry=registry)
        self._counters = {
            name: library.Counter(f"msfnet_{full}", text, registry=registry)
            for name, full, text in (
                ("frames", "frames", "Frames written"),
                ("dropped", "dropped_frames", "Frames of a live source that a newer one replaced"),
                ("skipped", "skipped_frames", "Frames that could not be decoded"),
                ("losses", "source_losses", "Times the source was lost and came back"),
            )
        }
        self._age, self._written_age = (
            library.Histogram(f"msfnet_{name}", text, buckets=_BUCKETS_S, registry=registry)
            for name, text in (
                ("age_seconds", "From capture to depth available"),
                ("written_age_seconds", "From capture to depth written"),
            )
        )
        self._stage = library.Histogram(
            "msfnet_stage_seconds",
            "Time of a frame in a stage",
            ["stage"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._fps = library.Gauge("msfnet_fps", "Frames written per second", registry=registry)
        self._queue = library.Gauge(
            "msfnet_queue_frames", "Frames waiting after a stage", ["queue"], registry=registry
        )
        self._engine = library.Info("msfnet_engine", "What runs the model", registry=registry)
        listening = listen("metrics", ADDRESS, port)
        self._port = listening.getsockname()[1]
        self._counted: Counter[tuple[int, str]] = Counter()
        self._served = ExitStack()

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                text = library.generate_latest(registry)
                await respond(send, 200, library.CONTENT_TYPE_LATEST, text)

        app = Guard(answer, ADDRESS, self._port)
        self._served.enter_context(serving(app, listening, CONNECTIONS, websockets=False))

    @property
    def address(self) -> str:
        """The address to scrape."""
        return f"http://{ADDRESS}:{self._port}/metrics"

    def __call__(self, stats: StreamStats) -> None:
        """Record one snapshot."""
        for name, counter in self._counters.items():
            total = int(getattr(stats, name))
            counter.inc(total - self._counted[stats.run, name])
            self._counted[stats.run, name] = total
        for times in stats.recent:
            self._age.observe(times.age_ms / 1000)
            self._written_age.observe(times.written_age_ms / 1000)
            for field in fields(StageTimes):
                stage = self._stage.labels(field.name.removesuffix("_ms"))
                stage.observe(getattr(times, field.name) / 1000)
        self._fps.set(stats.fps)
        for name, waiting in asdict(stats.queues).items():
            self._queue.labels(name).set(waiting)
        self._engine.info({"name": stats.engine})

    def close(self) -> None:
        """Stop the server."""
        self._served.close()
