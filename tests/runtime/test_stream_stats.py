"""Tests the statistics of a stream: of the whole run, of each interval, in bounded memory."""

from __future__ import annotations

import json

import numpy as np
import pytest

from msfnet_runtime.stream_stats import (
    AgeCounts,
    Ages,
    FrameTimes,
    Meter,
    QueueDepths,
    StageTimes,
    StreamStats,
)
from tests.runtime.virtual_clock import VirtualClock

STATS = StreamStats(
    frames=90,
    total=0,
    dropped=10,
    skipped=2,
    losses=1,
    seconds=3.0,
    fps=30.0,
    age=Ages(21.4, 35.0, 50.0),
    written_age=Ages(22.0, 36.0, 61.0),
    stages=StageTimes(1.25, 0.5, 20.5, 2.0, 3.0),
    queues=QueueDepths(1, 0, 0, 1),
    engine="fake",
    live=True,
    recent=(FrameTimes(89, 20.0, 21.0, 1.0, 0.5, 20.0, 2.0, 3.0),),
)


def test_the_report_reads_as_three_lines() -> None:
    """It contains rate, drops, skips, losses, ages, stages and the engine."""
    text = STATS.text()

    assert len(text.splitlines()) == 3
    for part in ("90 frames in 3.0 s", "30.0 frames/s", "10 older frames dropped"):
        assert part in text
    for part in ("2 unreadable frames skipped", "source lost 1 time\n"):
        assert part in text
    for part in ("21 ms", "50 ms", "61 ms", "20.5 ms", "fake"):
        assert part in text


def test_a_snapshot_is_one_line_of_json() -> None:
    """It contains everything but the single frames, nested as in Python."""
    line = STATS.to_json()
    values = json.loads(line)

    assert "\n" not in line
    assert values["age"] == {"p50_ms": 21.4, "p90_ms": 35.0, "p99_ms": 50.0}
    assert (values["frames"], values["queues"]["finished"], values["live"]) == (90, 1, True)
    assert "recent" not in values


def test_counted_ages_give_percentiles_to_a_percent(rng: np.random.Generator) -> None:
    """They agree with NumPy over five orders of magnitude; values out of range are accepted."""
    values = rng.lognormal(3, 2, 20_000)
    counts = AgeCounts()
    assert counts.ages() == Ages()
    for value in values:
        counts.add(value)

    ages = counts.ages()

    expected = np.percentile(values, (50, 90, 99))
    np.testing.assert_allclose((ages.p50_ms, ages.p90_ms, ages.p99_ms), expected, rtol=0.02)
    for value in (0.0, 1e12):
        AgeCounts().add(value)


def test_an_interval_has_its_own_frames_and_the_run_has_all(rng: np.random.Generator) -> None:
    """Means, ages and rates of an interval count its own frames, those of the run all frames."""
    frames = [FrameTimes(n, *rng.uniform(1, 50, 7)) for n in range(60)]
    clock = VirtualClock()
    meter = Meter(clock)
    for times in frames[:40]:
        meter.add(times)
    clock.sleep(2)
    first = meter.interval()
    for times in frames[40:]:
        meter.add(times)
    clock.sleep(0.5)
    second, third, whole = meter.interval(), meter.interval(), meter.whole()

    assert (first.frames, second.frames, third.frames, whole.frames) == (40, 60, 60, 60)
    assert (first.fps, second.fps, whole.fps) == pytest.approx((20, 40, 24))
    assert (first.seconds, second.seconds, whole.seconds) == pytest.approx((2, 2.5, 2.5))
    assert second.recent == tuple(frames[40:])
    ages = [times.age_ms for times in frames[40:]]
    assert second.age.p90_ms == pytest.approx(np.percentile(ages, 90))
    infer = np.array([times.infer_ms for times in frames])
    assert second.stages.infer_ms == pytest.approx(infer[40:].mean())
    assert whole.stages.infer_ms == pytest.approx(infer.mean())
    assert (third.fps, third.age, third.stages) == (0.0, Ages(), StageTimes())


def test_a_meter_does_not_grow() -> None:
    """If nobody reads it for hours, it keeps the newest frames and counts all of them."""
    meter = Meter()
    for number in range(10_000):
        meter.add(FrameTimes(number, *[1.0] * 7))

    interval = meter.interval()

    assert (interval.frames, interval.recent[-1].frame) == (10_000, 9_999)
    assert len(interval.recent) < 5_000
