"""A separate process from its start to the first depth: the delay of a device after power-on.

As a program it is that process: it imports what runs the model and nothing else.
"""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from msfnet_benchmarks.timing.costs import ColdStart
from msfnet_runtime import DepthEstimator, Engine, Frame, MsfnetError
from msfnet_runtime.preprocess import frame_size
from msfnet_runtime.typed import parse_json, to_json

_FURTHER_FRAMES = 3
_TIMEOUT_S = 600


@dataclass(frozen=True)
class _Moments:
    """The report of one process: seconds since it was started, and its memory."""

    imported_s: float
    opened_s: float
    first_depth_s: float
    peak_bytes: int


def measure_cold_start(
    open_model: Callable[[], Engine], *, name: str = "the model", starts: int = 3
) -> ColdStart:
    """Start a process that opens a model and answers one frame; medians of several starts.

    From the first start on, files are in the system's cache, as they are when a stream is
    restarted.

    Args:
        open_model: opens the model in that process, so it can be pickled: a
            :func:`functools.partial` of a module's function, for instance.
        name: the model's, for messages.
        starts: how often.

    Raises:
        MsfnetError: the model cannot be opened or run, or the process does not end.
    """
    runs = [_start(open_model, name) for _ in range(starts)]
    return ColdStart(
        first_depth_s=median(run.first_depth_s for run in runs),
        imported_s=median(run.imported_s for run in runs),
        opened_s=median(run.opened_s for run in runs),
        peak_bytes=int(median(run.peak_bytes for run in runs)),
        starts=starts,
    )


def _start(open_model: Callable[[], Engine], name: str) -> _Moments:
    """Return the moments that one process reports; both processes read the system's clock."""
    pickled = pickle.dumps(open_model)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "msfnet_benchmarks.timing.cold_start", repr(time.monotonic())],
            input=pickled,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MsfnetError(f"{name} gave no depth within {_TIMEOUT_S} s of its start") from None
    output = done.stderr if done.returncode else done.stdout
    lines = output.decode(errors="replace").strip().splitlines()
    if done.returncode or not lines:
        raise MsfnetError(f"the start of {name} failed: {(lines or ['no reason given'])[-1]}")
    return parse_json(lines[-1], _Moments, f"the start of {name}")


def _run(pickled: bytes, started: float) -> _Moments:
    """Open a model, answer frames, and return the moments in seconds since ``started``."""
    open_model: Callable[[], Engine] = pickle.loads(pickled)
    imported = time.monotonic() - started
    with DepthEstimator(open_model()) as estimator:
        opened = time.monotonic() - started
        spec = estimator.spec
        size = frame_size(spec) if spec.graph == "deploy" else spec.size
        frame = Frame(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
        estimator(frame)
        first = time.monotonic() - started
        for _ in range(_FURTHER_FRAMES):
            estimator(frame)
    return _Moments(imported, opened, first, _peak_bytes())


def _peak_bytes() -> int:
    """Return the largest resident memory of this process; 0 where the system does not report it.

    ``getrusage`` does not work here: on Linux a child's count begins with its parent's.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def main(started: str) -> int:
    """Be the process: print the moments as JSON, or on stderr why there are none."""
    try:
        sys.stdout.write(to_json(_run(sys.stdin.buffer.read(), float(started)), indent=None) + "\n")
    except MsfnetError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
