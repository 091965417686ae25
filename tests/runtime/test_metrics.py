"""Metrics are served on the loopback address, as Prometheus reads them."""

from __future__ import annotations

import builtins
import socket
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from msfnet_runtime import MsfnetError
from msfnet_runtime.metrics import StreamMetrics
from msfnet_runtime.stream_stats import FrameTimes
from tests.runtime.test_stream_stats import STATS


def scrape(address: str) -> dict[str, float]:
    """Return the samples by name and labels, as Prometheus' own parser reads them."""
    with urlopen(address) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        sample.name + "".join(f"|{value}" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def port_of(metrics: StreamMetrics) -> int:
    """Return the port that is served."""
    return urlsplit(metrics.address).port or 0


def test_two_snapshots_are_counted_once_each() -> None:
    """Totals become counters, the frames of an interval fill histograms, in seconds."""
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


def test_only_this_machine_is_answered_and_closing_ends_it() -> None:
    """Another of this host's addresses refuses; so does the port afterwards."""
    with StreamMetrics(0) as metrics:
        port = port_of(metrics)
        socket.create_connection(("127.0.0.1", port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), 1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)


def test_a_port_in_use_is_one_line() -> None:
    """Naming the port and what to do."""
    with (
        StreamMetrics(0) as first,
        pytest.raises(MsfnetError, match=r"127\.0\.0\.1:\d+: .*another port"),
    ):
        StreamMetrics(port_of(first))


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "prometheus_client":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MsfnetError, match=r"pip install 'msfnet\[metrics\]'"):
        StreamMetrics(0)
