"""The bound that the machine's arithmetic sets."""

from __future__ import annotations

import sys
import time
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from msfnet_benchmarks.timing.costs import FlopBound
from msfnet_benchmarks.timing.flops import THREAD_VARIABLES, measure_flop_bound, product_rate
from msfnet_runtime import MsfnetError


def test_the_bound_is_about_the_rate_of_numpy_here() -> None:
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


def test_the_rate_is_that_of_the_fastest_product() -> None:
    """The fourth of five products takes 2 ms, the others 3 ms; two more are the warm-up."""
    warm_up, start = [0, 3, 1, 3], [1]
    timed = [step for product in (3, 3, 3, 2, 3) for step in (1, product)]
    readings = accumulate([*warm_up, *start, *timed])

    rate = product_rate(64, clock=lambda: next(readings) / 1e3)

    assert rate == pytest.approx(64**3 / 2e-3 / 1e9)


def test_a_product_that_does_not_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold up the comparison for ever."""
    process = tmp_path / "python"
    process.write_text("#!/bin/sh\nexec sleep 30\n")
    process.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(process))
    monkeypatch.setattr("msfnet_benchmarks.timing.flops._TIMEOUT_S", 0.2)

    with pytest.raises(MsfnetError, match=r"more than 0\.2 s"):
        measure_flop_bound()


@pytest.mark.parametrize("threads", [0, 3])
def test_threads_reach_the_library(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through each library's variable, set before it is loaded; none is set for its own choice."""
    process = tmp_path / "python"
    process.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\necho 90.5\n")
    process.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(process))
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)

    assert measure_flop_bound(threads) == FlopBound(90.5, threads, 2048)

    lines = (tmp_path / "environment").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if line.partition("=")[0] in THREAD_VARIABLES)
    assert found == (dict.fromkeys(THREAD_VARIABLES, "3") if threads else {})


def test_the_least_time_of_a_model_is_its_work_over_the_rate() -> None:
    """2 GMAC at 80 GMAC a second are 25 ms."""
    assert FlopBound(80.0, 2, 64).least_ms(2_000_000_000) == pytest.approx(25)


def test_a_process_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line contains the process's own error."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(MsfnetError, match="could not be timed"):
        measure_flop_bound()
