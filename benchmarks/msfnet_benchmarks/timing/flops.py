"""What the machine's arithmetic allows: the rate of a large matrix product, measured beside models.

A convolution is multiply-adds, and no kernel does them faster than a matrix product whose operands
stay in the caches. A model's multiply-adds over that rate are the least its engine can take; the
share says how much is left to gain by better kernels, and how much only by less arithmetic
(Williams et al. 2009, "Roofline").
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from msfnet_benchmarks.timing.costs import FlopBound
from msfnet_runtime import MsfnetError

SIDE = 2048
"""Of the matrices: 48 MB in all, 8.6 G multiply-adds."""

_RUNS = 5

_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""How the libraries behind NumPy are told; they read it when they are loaded, so in a process of
its own."""

_SCRIPT = """
import json, sys, time
import numpy as np
side, runs = int(sys.argv[1]), int(sys.argv[2])
generator = np.random.default_rng(0)
a, b = (generator.standard_normal((side, side), dtype=np.float32) for _ in range(2))
out = a @ b
seconds = []
for _ in range(runs):
    start = time.perf_counter()
    np.matmul(a, b, out=out)
    seconds.append(time.perf_counter() - start)
print(json.dumps(min(seconds)))
"""


def measure_flop_bound(threads: int = 0, *, side: int = SIDE) -> FlopBound:
    """Time a float32 matrix product in a process of its own; the best of five runs.

    Args:
        threads: of the product; 0 leaves the choice to NumPy's library, which takes all cores.
        side: of the square matrices.

    Raises:
        MsfnetError: the process failed.
    """
    settings = dict.fromkeys(_THREADS, str(threads)) if threads else {}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(side), str(_RUNS)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MsfnetError(f"the matrix product could not be timed ({reason}); free some memory")
    return FlopBound(side**3 / json.loads(done.stdout) / 1e9, threads, side)
