"""Energy and GPU memory that a model uses, as NVML counts them.

NVML counts a whole GPU, so whatever else runs on it is counted, too.
"""

from __future__ import annotations

import importlib
import os
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
        gpu: its number, as CUDA counts those that ``CUDA_VISIBLE_DEVICES`` shows.
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
    """Return how many bytes of a GPU's memory are in use; None where NVML does not tell.

    Args:
        gpu: as in :func:`measure_energy`.
    """
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
        device = _handle(nvml, gpu)
    except nvml.NVMLError:
        device = None
    try:
        yield None if device is None else (nvml, device)
    finally:
        nvml.nvmlShutdown()


def _handle(nvml: Any, gpu: int) -> Any:
    """Return NVML's handle of a GPU that CUDA counts; None where the two cannot be matched.

    NVML counts all GPUs in the order of the bus. CUDA counts those that ``CUDA_VISIBLE_DEVICES``
    names, by number or by the beginning of their UUID; where it chooses the order itself, GPUs of
    several kinds are not matched.
    """
    count = nvml.nvmlDeviceGetCount()
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(index) for index in range(count)] if shown is None else shown.split(",")
    name = names[gpu].strip() if gpu < len(names) else ""
    if name.startswith("MIG-"):
        return nvml.nvmlDeviceGetHandleByUUID(name)
    if not name.isdecimal():
        uuids = ((handle, _text(nvml.nvmlDeviceGetUUID(handle))) for handle in handles)
        return next((handle for handle, uuid in uuids if name and uuid.startswith(name)), None)
    by_bus = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if not by_bus and count > 1 and len({nvml.nvmlDeviceGetName(h) for h in handles}) > 1:
        return None
    return handles[int(name)] if int(name) < count else None


def _text(value: str | bytes) -> str:
    """Return text of NVML, whose older packages answer with bytes."""
    return value.decode() if isinstance(value, bytes) else value
