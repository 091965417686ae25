"""The rate that the machine's arithmetic allows: a large matrix product, measured beside models.

A convolution consists of multiply-accumulates (MACs), and no kernel does them faster than a matrix
product whose operands stay in the caches. A model's MACs over that rate are the least time that its
engine can take; the share shows how much better kernels could gain, and how much only less
arithmetic can (Williams et al. 2009, "Roofline").

As a program it is the process that multiplies: the libraries behind NumPy read their number of
threads once, when they are loaded.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np

from msfnet_benchmarks.timing.core import Clock, time_calls
from msfnet_benchmarks.timing.costs import FlopBound
from msfnet_runtime import MsfnetError

SIDE = 2048
"""Side of the square matrices: 48 MB in all, 8.6 GMAC."""

_RUNS = 5
_TIMEOUT_S = 300
"""A product takes well below a second, on a slow and busy machine some seconds."""

THREAD_VARIABLES = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)
"""Environment variables that set the threads of the libraries behind NumPy."""


def measure_flop_bound(threads: int = 0, *, side: int = SIDE) -> FlopBound:
    """Time a float32 matrix product in a separate process; the best of five runs.

    Args:
        threads: of the product; 0 leaves the choice to NumPy's library, which takes all cores.
        side: of the square matrices.

    Raises:
        MsfnetError: the process failed, or did not end.
    """
    settings = dict.fromkeys(THREAD_VARIABLES, str(threads)) if threads else {}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "msfnet_benchmarks.timing.flops", str(side)],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MsfnetError(
            f"the matrix product took more than {_TIMEOUT_S} s; close other programs"
        ) from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MsfnetError(f"the matrix product could not be timed ({reason}); free some memory")
    return FlopBound(float(done.stdout), threads, side)


def product_rate(side: int, *, clock: Clock = time.perf_counter) -> float:
    """Return the GMAC per second of the fastest of five products of side x side matrices."""
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal((side, side), dtype=np.float32) for _ in range(2))
    out = np.empty_like(a)
    samples = time_calls(
        {"product": lambda _: np.matmul(a, b, out=out)}, [None], rounds=_RUNS, warmup=1, clock=clock
    )
    return float(side**3 / samples["product"].ms.min() / 1e6)


if __name__ == "__main__":
    print(product_rate(int(sys.argv[1])))
