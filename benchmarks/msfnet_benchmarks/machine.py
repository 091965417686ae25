"""Describes the machine: processor, GPUs, limits of the clocks, libraries, threads.

Only facts that stay the same from one run to the next, so that two runs can be compared.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
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
    "compute_cap": "GPU compute capability",
    "driver_version": "GPU driver",
    "memory.total": "GPU memory",
    "clocks.max.sm": "GPU clock, at most",
    "clocks.max.memory": "GPU memory clock, at most",
    "power.limit": "GPU power limit",
}
"""Facts of a GPU: nvidia-smi's name of the field, and the name here."""

_TIMEOUT_S = 10.0
"""A driver that hangs must not hang a benchmark."""


def describe_environment(*, threads: int = 0) -> dict[str, str]:
    """Return the facts of this machine by name; nothing heavy is imported for it.

    Args:
        threads: number of threads that the engines were given; 0: the choice was theirs.
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
    return {**facts, **_gpus(), **library_versions(_LIBRARIES)}


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of the distributions that are installed, by name."""
    facts = {}
    for name in names:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return facts


def query_gpus() -> tuple[list[dict[str, str]], str]:
    """Return the facts that nvidia-smi knows of every GPU, and the reason where there is none."""
    if shutil.which("nvidia-smi") is None:
        return [], "no nvidia-smi, so no NVIDIA driver"
    listed = _ask(f"--query-gpu={','.join(_GPU_FACTS)}", "--format=csv,noheader")
    if listed is None:
        return [], "nvidia-smi does not answer"
    lines = [line for line in listed.splitlines() if line.count(",") == len(_GPU_FACTS) - 1]
    gpus = [
        {
            name: value.strip()
            for name, value in zip(_GPU_FACTS.values(), line.split(","), strict=True)
            if "N/A" not in value and "Not Supported" not in value
        }
        for line in lines
    ]
    return gpus, "" if gpus else "nvidia-smi finds none"


def _read(path: Path) -> str:
    """Return a file's text, or nothing where the system has none."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _processor() -> str:
    names = re.findall(r"^model name\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    return names[0] if names else platform.processor() or "unknown"


def has_int8_products() -> bool:
    """Return whether the processor adds products of unsigned and signed 8 bits without saturation.

    x86 processors do with VNNI or AMX instructions, others always. Where the system does not list
    its instructions, the answer is no.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i686", "x86"):
        return True
    flags = re.findall(r"^flags\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    return bool(flags) and not {"avx512_vnni", "avx_vnni", "amx_int8"}.isdisjoint(flags[0].split())


def _usable_cores() -> dict[str, str]:
    """Return the number of cores that this process may use, where that is limited."""
    if sys.platform != "linux":
        return {}
    usable = len(os.sched_getaffinity(0))
    return {"usable cores": str(usable)} if usable != os.cpu_count() else {}


def _clocks(folder: Path) -> dict[str, str]:
    """Return the governor and the limits of the first core's clock, where Linux reports them."""
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
    """Return the facts of every GPU, numbered where there are several, and the driver's CUDA."""
    gpus, _ = query_gpus()
    facts = {
        f"{name} {index}" if len(gpus) > 1 else name: value
        for index, gpu in enumerate(gpus)
        for name, value in gpu.items()
    }
    cuda = re.search(r"CUDA[\w ]* Version\s*:\s*([\d.]+)", (gpus and _ask()) or "")
    return {**facts, "CUDA of the driver": cuda[1]} if cuda else facts


def _ask(*options: str) -> str | None:
    """Return nvidia-smi's output; None when it fails or does not answer in time."""
    try:
        done = subprocess.run(
            ["nvidia-smi", *options],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
