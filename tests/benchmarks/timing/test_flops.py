"""The bound that the machine's arithmetic sets."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from msfnet_benchmarks.timing.costs import FlopBound
from msfnet_benchmarks.timing.flops import measure_flop_bound
from msfnet_runtime import MsfnetError


def test_the_bound_is_about_what_numpy_reaches_here() -> None:
    """Within a factor of five of a product timed in this process: machines are noisy."""
    side = 1024
    a = np.random.default_rng(0).standard_normal((side, side), dtype=np.float32)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)

    bound = measure_flop_bound(side=side)

    here = side**3 / min(seconds) / 1e9
    assert here / 5 < bound.gmacs_per_s < here * 5
    assert (bound.threads, bound.side) == (0, side)


def test_one_thread_is_not_faster_than_all() -> None:
    """Threads reach the library; with leeway for noise."""
    assert measure_flop_bound(1).gmacs_per_s < 2 * measure_flop_bound().gmacs_per_s


def test_the_least_time_of_a_model_is_its_work_over_the_rate() -> None:
    """2 G multiply-adds at 80 G a second are 25 ms."""
    assert FlopBound(80.0, 2, 64).least_ms(2_000_000_000) == pytest.approx(25)


def test_a_process_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own last words."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(MsfnetError, match="could not be timed"):
        measure_flop_bound()
