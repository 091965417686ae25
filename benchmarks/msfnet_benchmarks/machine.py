"""What figures were measured on: the machine, its clocks' limits, its libraries, its threads.

Only what stays the same from one run to the next, so that two runs can be held against each other.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

_LIBRARIES = (
    *("msfnet", "numpy", "opencv-python-headless", "opencv-python", "torch"),
    *("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx"),
)

_THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("OMP_WAIT_POLICY", "OMP_PROC_BIND", "KMP_AFFINITY", "CUDA_VISIBLE_DEVICES"),
)

_CLOCKS = Path("/sys/devices/system/cpu/cpu0/cpufreq")

_GPU_FACTS = {
    "name": "GPU",
    "driver_version": "GPU driver",
    "memory.total": "GPU memory",
    "clocks.max.sm": "GPU clock, at most",
    "clocks.max.memory": "GPU memory clock, at most",
    "power.limit": "GPU power limit",
}
"""What nvidia-smi calls a fact, and what it is called here."""

_TIMEOUT_S = 10.0
"""A driver that hangs must not hang a benchmark."""


def describe_environment(*, threads: int = 0) -> dict[str, str]:
    """Return what the figures were measured on; nothing heavy is imported for it.

    Args:
        threads: what the engines were told; 0: the choice was theirs.
    """
    facts = {
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        **_usable_cores(),
        **_clocks(_CLOCKS),
        **_memory(),
        "threads": str(threads) if threads else "each library's choice",
    }
    facts.update({name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ})
    return {**facts, **_gpus(), **_versions()}


def _versions() -> dict[str, str]:
    facts = {}
    for name in _LIBRARIES:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return facts


def _read(path: Path) -> str:
    """Return a file's text, or nothing where the system does not tell."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _processor() -> str:
    names = re.findall(r"^model name\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    return names[0] if names else platform.processor() or "unknown"


def _usable_cores() -> dict[str, str]:
    """Return how many cores this process may use, where it is told and that is fewer."""
    if sys.platform != "linux":
        return {}
    usable = len(os.sched_getaffinity(0))
    return {"usable cores": str(usable)} if usable != os.cpu_count() else {}


def _clocks(folder: Path) -> dict[str, str]:
    """Return the governor and the limits of the first core's clock, where Linux tells."""
    facts = {}
    if governor := _read(folder / "scaling_governor"):
        facts["governor"] = governor
    low, high = (_read(folder / f"cpuinfo_{end}_freq") for end in ("min", "max"))
    if low.isdecimal() and high.isdecimal():
        facts["clock"] = f"{int(low) / 1e3:.0f}-{int(high) / 1e3:.0f} MHz"
    return facts


def _memory() -> dict[str, str]:
    found = re.search(r"^MemTotal:\s*(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE)
    return {"memory": f"{int(found[1]) * 1024 / 1e9:.1f} GB"} if found else {}


def _gpus() -> dict[str, str]:
    """Return what nvidia-smi tells of every GPU; nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        return {}
    listed = _ask(f"--query-gpu={','.join(_GPU_FACTS)}", "--format=csv,noheader")
    facts = {}
    lines = [line for line in listed.splitlines() if line.count(",") == len(_GPU_FACTS) - 1]
    for index, line in enumerate(lines):
        suffix = f" {index}" if len(lines) > 1 else ""
        for name, value in zip(_GPU_FACTS.values(), line.split(","), strict=True):
            if "N/A" not in value and "Not Supported" not in value:
                facts[f"{name}{suffix}"] = value.strip()
    cuda = re.search(r"CUDA[\w ]* Version\s*:\s*([\d.]+)", _ask() if lines else "")
    return {**facts, "CUDA of the driver": cuda[1]} if cuda else facts


def _ask(*options: str) -> str:
    """Return what nvidia-smi prints; nothing when it fails or does not answer in time."""
    try:
        done = subprocess.run(
            ["nvidia-smi", *options],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
