"""A process of its own from its start to the first depth: what a device takes after power-on.

As a program it is that process: it imports what runs the model and nothing else.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from msfnet_benchmarks.timing.costs import ColdStart
from msfnet_runtime import DepthEstimator, Frame, MsfnetError
from msfnet_runtime.preprocess import frame_size

RUNTIME = "msfnet_runtime:open_engine"
"""Opens ONNX files and engines."""

_FURTHER_FRAMES = 3
_PATIENCE_S = 600


def measure_cold_start(
    path: Path,
    *,
    opener: str = RUNTIME,
    options: Mapping[str, Any] | None = None,
    starts: int = 3,
) -> ColdStart:
    """Start a process that opens a model and answers one frame; medians of several starts.

    Files are in the system's cache from the first start on, as they are when a stream is
    restarted.

    Args:
        path: of the model.
        opener: ``module:function`` that opens it as an engine, in the process.
        options: keyword arguments of the opener.
        starts: how often.

    Raises:
        MsfnetError: the model cannot be opened or run, or the process does not end.
    """
    runs = [_start(path, opener, options or {}) for _ in range(starts)]
    return ColdStart(
        first_depth_s=median(run["first"] for run in runs),
        imported_s=median(run["imported"] for run in runs),
        opened_s=median(run["opened"] for run in runs),
        peak_bytes=int(median(run["peak"] for run in runs)),
        starts=starts,
    )


def _start(path: Path, opener: str, options: Mapping[str, Any]) -> dict[str, float]:
    """Return what one process says of itself; its clock is the system's, which is ours."""
    arguments = [str(path), opener, json.dumps(options), repr(time.monotonic())]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "msfnet_benchmarks.timing.cold_start", *arguments],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MsfnetError(f"{path} gave no depth within {_PATIENCE_S} s of its start") from None
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    if done.returncode or not lines:
        raise MsfnetError(f"the start of {path} failed: {(lines or ['it said nothing'])[-1]}")
    return dict(json.loads(lines[-1]))


def _run(path: str, opener: str, options: Mapping[str, Any], started: float) -> dict[str, float]:
    """Open a model, answer frames, and return the moments in seconds since ``started``."""
    module, _, function = opener.partition(":")
    opening = getattr(importlib.import_module(module), function)
    taken = {"imported": time.monotonic() - started}
    with DepthEstimator(opening(path, **options)) as estimator:
        taken["opened"] = time.monotonic() - started
        spec = estimator.spec
        size = frame_size(spec) if spec.graph == "deploy" else spec.size
        frame = Frame(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
        estimator(frame)
        taken["first"] = time.monotonic() - started
        for _ in range(_FURTHER_FRAMES):
            estimator(frame)
    return {**taken, "peak": _peak_bytes()}


def _peak_bytes() -> int:
    """Return the largest resident memory of this process; 0 where the system does not tell.

    ``getrusage`` will not do: on Linux a child's count begins with its parent's.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def main(arguments: list[str]) -> int:
    """Be the process: print the moments as JSON, or on stderr why there are none."""
    path, opener, options, started = arguments
    try:
        sys.stdout.write(json.dumps(_run(path, opener, json.loads(options), float(started))) + "\n")
    except MsfnetError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
