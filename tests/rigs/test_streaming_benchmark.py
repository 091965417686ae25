"""The streaming benchmark runs every part, and its ratios are those of what it measured."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from msfnet_runtime import DepthEstimator
from msfnet_runtime.stream_stats import Ages
from tests.onnx_models import conv_model
from tests.rigs.streaming_benchmark import (
    LIVE_FPS,
    LIVE_LATENCY_S,
    LiveFrames,
    SlowedEngine,
    StreamingReport,
    main,
    measure_streaming,
)
from tests.runtime.streams import estimator, frame
from tests.runtime.test_stream_stats import STATS
from tests.specs import network_spec


def test_every_part_is_measured(tmp_path: Path) -> None:
    """All frames of the videos, and a live source that a slow engine cannot follow."""
    onnx.save(conv_model(network_spec(32, 64)), tmp_path / "model.onnx")
    with DepthEstimator.open(tmp_path / "model.onnx") as model:
        report = measure_streaming(
            model.engine, frames=12, seconds=1.0, rounds=1, sizes=((48, 64), (64, 96))
        )

    assert report.small.frames == report.large.frames == 12
    assert report.live.frames + report.live.dropped == round(1.0 * LIVE_FPS)
    assert report.live.dropped > 5
    assert 1000 * LIVE_LATENCY_S <= report.latency_ms < 3000 * LIVE_LATENCY_S
    assert report.live.age.p50_ms > report.latency_ms
    assert report.latency_p99_ms >= report.latency_ms
    assert min(report.engine_fps, report.plain_fps) > 0


def test_ratios_and_limit_follow_from_what_was_measured() -> None:
    """Two intervals of 33.3 ms and one and a half latencies of 60 ms are 156.7 ms."""
    report = StreamingReport(
        engine_fps=40.0,
        small=replace(STATS, fps=39.0),
        plain_fps=20.0,
        large=replace(STATS, fps=30.0),
        live=replace(STATS, age=Ages(80.0, 90.0, 94.0)),
        latency_ms=60.0,
        latency_p99_ms=71.0,
    )

    assert (report.of_engine, report.over_plain) == (0.975, 1.5)
    assert report.age_limit_ms == pytest.approx(156.67, abs=0.01)
    for part in ("0.97", "1.50", "94 / 157 ms", "0.60", "99% 71 ms"):
        assert part in report.text()


def test_a_slowed_engine_answers_as_the_engine_does() -> None:
    """Only later."""
    fast = estimator()
    batch = fast.prepare(frame(3))
    slow = SlowedEngine(fast.engine, 0.05)

    start = time.monotonic()
    assert (slow.infer(batch) == fast.infer(batch)).all()
    assert time.monotonic() - start >= 0.05
    assert len(slow.latencies_s) == 1


def test_live_frames_come_by_the_clock() -> None:
    """Whoever looks late gets the next at once, and the clock is not pushed back."""
    start = time.monotonic()
    for number, _ in enumerate(LiveFrames([frame(0).image], seconds=0.4)):
        time.sleep(0.1 * (number == 2))

    assert number == 11
    assert 11 / LIVE_FPS <= time.monotonic() - start < 11 / LIVE_FPS + 0.15


def test_a_missing_model_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """It is an error on standard error, with status 1."""
    assert main(["nowhere.onnx"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
