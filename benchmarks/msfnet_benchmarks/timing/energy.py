"""Energy and GPU memory that a model uses, as NVML counts them.

NVML counts a whole GPU, so whatever else runs on it is counted, too.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msfnet_benchmarks.timing.core import Clock, time_calls
from msfnet_benchmarks.timing.costs import Energy
from msfnet_runtime import Frame

_SECONDS = 2.0
"""NVML's counter moves in steps of some 20 to 100 ms."""


def measure_energy(
    answer: Callable[[Frame], object],
    frames: Sequence[Frame],
    *,
    gpu: int = 0,
    seconds: float = _SECONDS,
    clock: Clock = time.perf_counter,
) -> Energy | None:
    """Run frames for some seconds; return the energy that the GPU used meanwhile.

    Args:
        answer: answers a frame on that GPU; it is warm already.
        frames: gone through again and again.
        gpu: its index.
        seconds: how long at least.
        clock: seconds; replaced in tests.

    Returns:
        None where NVML or its Python package (``nvidia-ml-py``) is missing, or the GPU does not
        count its energy (before Volta).
    """
    with _device(gpu) as found:
        if found is None:
            return None
        nvml, device = found
        try:
            before = nvml.nvmlDeviceGetTotalEnergyConsumption(device)
            start = clock()
            calls = time_calls(
                {"energy": answer}, frames, rounds=1, seconds=seconds, warmup=0, clock=clock
            )["energy"].ms.size
            elapsed = clock() - start
            joules = (nvml.nvmlDeviceGetTotalEnergyConsumption(device) - before) / 1e3
        except nvml.NVMLError:
            return None
    return Energy(joules / calls, joules / elapsed)


def device_memory(gpu: int = 0) -> int | None:
    """Return how many bytes of the GPU's memory are in use; None where NVML does not tell."""
    with _device(gpu) as found:
        if found is None:
            return None
        nvml, device = found
        return int(nvml.nvmlDeviceGetMemoryInfo(device).used)


@contextmanager
def _device(gpu: int) -> Iterator[tuple[Any, Any] | None]:
    """Yield NVML and its handle of a GPU; None where there is no such thing."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # noqa: BLE001 - the error's class is the missing package's
        yield None
        return
    try:
        device = nvml.nvmlDeviceGetHandleByIndex(gpu)
    except nvml.NVMLError:
        device = None
    try:
        yield None if device is None else (nvml, device)
    finally:
        nvml.nvmlShutdown()
