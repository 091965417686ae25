"""Serves the statistics of a stream to Prometheus, on the loopback address."""

from __future__ import annotations

from dataclasses import asdict, fields

from msfnet_runtime.closing import Closing
from msfnet_runtime.errors import MsfnetError, requires
from msfnet_runtime.stream_stats import StageTimes, StreamStats

ADDRESS = "127.0.0.1"

_BUCKETS_S = tuple(round(base * scale, 4) for scale in (1e-3, 1e-2, 0.1, 1) for base in (1, 2, 5))
"""Limits of the histograms, seconds: 1 ms to 5 s in steps of about two."""


class StreamMetrics(Closing):
    """Serves statistics of a stream and its process at ``http://127.0.0.1:PORT/metrics``.

    It is an observer of :func:`~msfnet_runtime.pipeline.run_pipeline`, and serves the last
    snapshot.

    Args:
        port: a TCP port; 0 selects a free one.

    Raises:
        MsfnetError: the library is absent, or the port is not available.
    """

    def __init__(self, port: int) -> None:
        with requires("prometheus-client", "metrics"):
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
        self._counted = dict.fromkeys(self._counters, 0)
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
        try:
            self._server, self._thread = library.start_http_server(port, ADDRESS, registry)
        except OSError as error:
            raise MsfnetError(
                f"cannot serve metrics on {ADDRESS}:{port}: {error.strerror}; choose another port"
            ) from None

    @property
    def address(self) -> str:
        """The address to scrape."""
        return f"http://{ADDRESS}:{self._server.server_port}/metrics"

    def __call__(self, stats: StreamStats) -> None:
        """Record one snapshot."""
        for name, counter in self._counters.items():
            total = int(getattr(stats, name))
            counter.inc(total - self._counted[name])
            self._counted[name] = total
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
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
