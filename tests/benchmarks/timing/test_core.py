from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from msfnet_benchmarks.timing.core import (
    END_TO_END,
    Samples,
    clocked,
    speedup,
    time_calls,
    time_stages,
)
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

    timed = time_calls(
        {"a": clock.runner("a", lambda i: next(pace))}, FRAMES, rounds=5, warmup=0, clock=clock
    )
    report = timed["a"].summary()

    expected = np.percentile(taken, (50, 90, 95, 99))
    percentiles = (report.p50_ms, report.p90_ms, report.p95_ms, report.p99_ms)
    assert percentiles == pytest.approx(tuple(expected))
    assert report.mean_ms == pytest.approx(taken.mean())
    assert report.calls_per_s == pytest.approx(1e3 * taken.size / taken.sum())
    assert report.calls == 50
    assert report.round_p50_ms == pytest.approx(tuple(np.median(taken, axis=1)))


def test_models_take_turns_on_every_frame() -> None:
    """A B A B …, the same frame for both, after a warm-up of all in turns as well."""
    clock = Clock()
    runners = {name: clock.runner(name, lambda i: 1) for name in "ab"}

    time_calls(runners, FRAMES[:2], rounds=2, warmup=1, clock=clock)

    turns = [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert clock.calls == [*turns, *turns, *turns]


def test_a_slow_first_call_is_warm_up_and_does_not_count() -> None:
    """Compilation and page faults are not latency."""
    clock = Clock()
    calls = iter([1000.0, *[2.0] * 100])

    timed = time_calls(
        {"a": clock.runner("a", lambda i: next(calls))}, FRAMES, rounds=1, warmup=1, clock=clock
    )
    report = timed["a"].summary()

    assert report.p99_ms == pytest.approx(2)


def test_rounds_show_a_machine_that_drifts() -> None:
    """Twice as slow in the second round."""
    clock = Clock()
    pace = iter([1.0] * 10 + [2.0] * 10)

    timed = time_calls(
        {"a": clock.runner("a", lambda i: next(pace))}, FRAMES, rounds=2, warmup=0, clock=clock
    )
    report = timed["a"].summary()

    assert report.round_p50_ms == pytest.approx((1, 2))


def test_nothing_to_time_is_an_error() -> None:
    """No model, no frame, no round."""
    clock = Clock()
    runner = {"a": clock.runner("a", lambda i: 1)}
    for runners, frames, rounds in (({}, FRAMES, 1), (runner, [], 1), (runner, FRAMES, 0)):
        with pytest.raises(MsfnetError, match="nothing to time"):
            time_calls(runners, frames, rounds=rounds)


def test_the_warm_up_lasts_until_calls_take_alike() -> None:
    """A model that gets faster for 12 calls is called on; one that never settles, 30 times."""
    clock = Clock()
    settling = iter([*np.geomspace(100, 10, 12), *[10.0] * 100])
    restless = iter(np.geomspace(1, 1e3, 200))
    runners = {
        "settling": clock.runner("settling", lambda i: float(next(settling))),
        "restless": clock.runner("restless", lambda i: float(next(restless))),
    }

    timed = time_calls(runners, FRAMES[:1], rounds=6, clock=clock)
    measured = timed["settling"].summary()

    called = [sum(name == which for name, _ in clock.calls) - 6 for which in runners]
    assert 14 <= called[0] <= 18
    assert called[1] == 30
    assert measured.p99_ms == pytest.approx(10)
    assert measured.unstable is None


def test_a_slow_model_is_not_warmed_up_for_minutes() -> None:
    """Five seconds of calls end the warm-up, after one window."""
    clock = Clock()

    time_calls({"a": clock.runner("a", lambda i: 4000)}, FRAMES[:1], rounds=1, clock=clock)

    assert len(clock.calls) == 3 + 1


@pytest.mark.parametrize(
    ("milliseconds", "reason"),
    [
        (np.array([[10, 10.1, 9.9, 10.0]] * 3), None),
        (np.array([[10, 30, 50, 90]] * 3), None),
        (np.array([[10, 10, 10, 10]] * 2 + [[12, 12, 12, 12]]), "drifted by 20 %"),
        (np.linspace(10, 14, 20)[:, None], "drifted"),
        (np.array([[10, 14, 10, 14, 10, 14, 10, 14, 10, 14, 10, 14]]), "spread over"),
        (np.array([[10, 10, 10]]), "3 calls only"),
    ],
)
def test_figures_that_mean_little_are_flagged(
    milliseconds: NDArray[np.float64], reason: str | None
) -> None:
    """Drift and spread are, frames that differ are not, because their difference is not noise."""
    unstable = Samples("a", np.asarray(milliseconds, np.float64)).summary().unstable

    assert (reason is None and unstable is None) or (reason or "-") in str(unstable)


def test_a_ratio_has_the_interval_that_scipy_gives_independent_calls() -> None:
    """Blocks change little where calls are independent; scipy pairs the calls, too."""
    generator = np.random.default_rng(7)
    machine = generator.lognormal(0, 0.2, (3, 60))
    ours, theirs = (v * machine * generator.lognormal(0, 0.05, (3, 60)) for v in (10, 20))

    ratio = speedup(Samples("a", ours).summary(), Samples("b", theirs).summary())

    def of_medians(a: NDArray[np.float64], b: NDArray[np.float64], axis: int) -> object:
        return np.median(b, axis=axis) / np.median(a, axis=axis)

    expected = stats.bootstrap(
        (ours.ravel(), theirs.ravel()), of_medians, paired=True, method="percentile", rng=1
    ).confidence_interval
    assert ratio.value == pytest.approx(np.median(theirs) / np.median(ours))
    width = expected.high - expected.low
    assert ratio.low == pytest.approx(expected.low, abs=0.3 * width)
    assert ratio.high == pytest.approx(expected.high, abs=0.3 * width)


def test_the_interval_holds_the_truth_although_slow_calls_come_in_runs() -> None:
    """Nine of ten intervals contain 2, in 150 runs whose calls depend on the last (0.7)."""
    generator = np.random.default_rng(8)
    held = 0
    for _ in range(150):
        noise = np.empty((2, 150))
        noise[:, 0] = generator.normal(size=2)
        for call in range(1, 150):
            noise[:, call] = 0.7 * noise[:, call - 1] + 0.51**0.5 * generator.normal(size=2)
        ours, theirs = np.array([[10.0], [20.0]]) * np.exp(0.1 * noise)
        ratio = speedup(
            Samples("a", ours.reshape(3, 50)).summary(),
            Samples("b", theirs.reshape(3, 50)).summary(),
        )
        held += ratio.low <= 2 <= ratio.high

    assert held >= 128


def test_runs_that_were_not_taken_in_turns_have_no_ratio() -> None:
    """Another number of calls was another run."""
    ours, theirs = (Samples("a", np.ones((rounds, 4))).summary() for rounds in (2, 3))

    with pytest.raises(MsfnetError, match="not timed in turns"):
        speedup(ours, theirs)


def test_rounds_are_added_until_the_time_is_over() -> None:
    """Whole rounds of 20 calls of 10 ms: eleven of them pass two seconds."""
    clock = Clock()
    runners = {name: clock.runner(name, lambda i: 10) for name in "ab"}

    timed = time_calls(runners, FRAMES, rounds=1, seconds=2.1, warmup=0, clock=clock)

    assert [timed[name].ms.shape for name in "ab"] == [(11, 10)] * 2
    longer = time_calls(runners, FRAMES, rounds=13, seconds=2.1, warmup=0, clock=clock)
    assert longer["a"].ms.shape == (13, 10)


def test_calls_may_report_stages_of_their_own() -> None:
    """Each stage becomes samples, rounds by items; the warm-up looks at the whole call."""
    clock = Clock()
    whole = clocked(clock.runner("a", lambda i: i + 1), clock)

    def staged(frame: Frame) -> dict[str, float]:
        return {**whole(frame), "copy": 0.5, "compute": frame.index}

    stages = time_stages({"a": staged}, FRAMES[:3], rounds=2, warmup=1)["a"]

    assert list(stages) == [END_TO_END, "copy", "compute"]
    np.testing.assert_allclose(stages[END_TO_END].ms, [[1, 2, 3]] * 2)
    np.testing.assert_array_equal(stages["copy"].ms, np.full((2, 3), 0.5))
    np.testing.assert_array_equal(stages["compute"].ms, [[0, 1, 2]] * 2)
