from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from msfnet_benchmarks.latency import measure_latency
from msfnet_runtime import Frame, MsfnetError

FRAMES = [Frame(np.full((2, 2, 3), i, np.uint8), i) for i in range(10)]


class Clock:
    """A clock that only runners move."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls: list[tuple[str, int]] = []

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.seconds

    def runner(self, name: str, milliseconds: Callable[[int], float]) -> Callable[[Frame], None]:
        """Return a runner that takes so long for the frame of an index."""

        def run(frame: Frame) -> None:
            self.calls.append((name, frame.index))
            self.seconds += milliseconds(frame.index) / 1e3

        return run


def test_percentiles_are_numpys_over_all_timed_calls() -> None:
    """No two calls take alike, a few take long; throughput is frames over time, not 1 / p50."""
    clock, taken = Clock(), np.random.default_rng(4).lognormal(2, 1, (5, 10))
    pace = iter(taken.ravel().tolist())

    (report,) = measure_latency(
        {"a": clock.runner("a", lambda i: next(pace))}, FRAMES, rounds=5, warmup=0, clock=clock
    )

    expected = np.percentile(taken, (50, 90, 99))
    assert (report.p50_ms, report.p90_ms, report.p99_ms) == pytest.approx(tuple(expected))
    assert report.mean_ms == pytest.approx(taken.mean())
    assert report.throughput_fps == pytest.approx(1e3 * taken.size / taken.sum())
    assert report.calls == 50
    assert report.round_p50_ms == pytest.approx(tuple(np.median(taken, axis=1)))


def test_models_take_turns_on_every_frame() -> None:
    """A B A B …, the same frame for both, after a warm-up of all."""
    clock = Clock()
    runners = {name: clock.runner(name, lambda i: 1) for name in "ab"}

    measure_latency(runners, FRAMES[:2], rounds=2, warmup=1, clock=clock)

    turns = [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert clock.calls == [("a", 0), ("b", 0), *turns, *turns]


def test_a_slow_first_call_is_warm_up_and_does_not_count() -> None:
    """Compilation and page faults are not latency."""
    clock = Clock()
    calls = iter([1000.0, *[2.0] * 100])

    (report,) = measure_latency(
        {"a": clock.runner("a", lambda i: next(calls))}, FRAMES, rounds=1, warmup=1, clock=clock
    )

    assert report.p99_ms == pytest.approx(2)


def test_rounds_show_a_machine_that_drifts() -> None:
    """Twice as slow in the second round."""
    clock = Clock()
    pace = iter([1.0] * 10 + [2.0] * 10)

    (report,) = measure_latency(
        {"a": clock.runner("a", lambda i: next(pace))}, FRAMES, rounds=2, warmup=0, clock=clock
    )

    assert report.round_p50_ms == pytest.approx((1, 2))


def test_nothing_to_time_is_an_error() -> None:
    """No model, no frame, no round."""
    clock = Clock()
    runner = {"a": clock.runner("a", lambda i: 1)}
    for runners, frames, rounds in (({}, FRAMES, 1), (runner, [], 1), (runner, FRAMES, 0)):
        with pytest.raises(MsfnetError, match="nothing to time"):
            measure_latency(runners, frames, rounds=rounds)
