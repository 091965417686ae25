"""Tests that metrics are served on the loopback address in Prometheus' format."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from msfnet_runtime import MsfnetError
from msfnet_runtime.metrics import StreamMetrics
from msfnet_runtime.pipeline import run_pipeline
from msfnet_runtime.stream_stats import FrameTimes
from tests.runtime.streams import Frames, estimator
from tests.runtime.test_stream_stats import STATS


def scrape(address: str) -> dict[str, float]:
    """Return the samples by name and labels, read by Prometheus' parser."""
    with urlopen(address) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        sample.name + "".join(f"|{value}" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def port_of(metrics: StreamMetrics) -> int:
    """Return the port of the server."""
    return urlsplit(metrics.address).port or 0


def test_two_snapshots_are_counted_once_each() -> None:
    """Totals become counters; the frames of an interval fill histograms, in seconds."""
    later = replace(
        STATS,
        frames=92,
        fps=2.0,
        recent=(
            FrameTimes(90, 30.0, 31.0, 1.0, 0.5, 20.0, 2.0, 3.0),
            FrameTimes(91, 700.0, 800.0, 1.0, 0.5, 40.0, 2.0, 3.0),
        ),
    )
    with StreamMetrics(0) as metrics:
        metrics(STATS)
        metrics(later)
        samples = scrape(metrics.address)

    assert samples["msfnet_frames_total"] == 92
    assert samples["msfnet_dropped_frames_total"] == 10
    assert samples["msfnet_skipped_frames_total"] == 2
    assert samples["msfnet_source_losses_total"] == 1
    assert samples["msfnet_age_seconds_count"] == 3
    assert samples["msfnet_age_seconds_sum"] == pytest.approx(0.75)
    assert samples["msfnet_age_seconds_bucket|0.05"] == 2
    assert samples["msfnet_stage_seconds_sum|infer"] == pytest.approx(0.08)
    assert samples["msfnet_fps"] == 2
    assert samples["msfnet_queue_frames|captured"] == 1
    assert samples["process_resident_memory_bytes"] > 1e6
    assert samples["msfnet_engine_info|fake"] == 1


def test_runs_that_share_metrics_are_added_up() -> None:
    """Their snapshots come one after another or in turns; no total falls."""
    first, second = replace(STATS, run=-1, frames=90), replace(STATS, run=-2, frames=5, dropped=0)
    with StreamMetrics(0) as metrics:
        for stats in (first, second, replace(first, frames=100), replace(second, frames=30)):
            metrics(stats)
        samples = scrape(metrics.address)
        assert samples["msfnet_frames_total"] == 130
        assert samples["msfnet_dropped_frames_total"] == 10
        run_pipeline(Frames(7), estimator(), [], observers=[metrics])
        run_pipeline(Frames(4), estimator(), [], observers=[metrics])
        assert scrape(metrics.address)["msfnet_frames_total"] == 130 + 11


def test_only_the_loopback_address_is_served_until_the_close() -> None:
    """Another address of this host refuses connections; so does the port afterwards."""
    with StreamMetrics(0) as metrics:
        port = port_of(metrics)
        socket.create_connection(("127.0.0.1", port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), 1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)


def test_a_port_in_use_is_refused() -> None:
    """The message names the port."""
    with (
        StreamMetrics(0) as first,
        pytest.raises(MsfnetError, match=r"127\.0\.0\.1:\d+: .*another address or port"),
    ):
        StreamMetrics(port_of(first))


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message contains the command that installs it."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MsfnetError, match=r"pip install 'msfnet\[metrics\]'"):
        StreamMetrics(0)
