from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from msfnet_benchmarks.timing.energy import device_memory, measure_energy
from msfnet_runtime import Frame

FRAMES = [Frame(np.full((2, 2, 3), i, np.uint8), i) for i in range(3)]


class Gpu:
    """A GPU of 50 W whose frames take 20 ms, and the module that tells of it."""

    def __init__(self) -> None:
        self.seconds, self.frames = 0.0, list[int]()
        self.open = 0
        self.counts = True

    class NVMLError(Exception):
        """Replaces NVML's error."""

    def clock(self) -> float:
        """Return the time in seconds."""
        return self.seconds

    def run(self, frame: Frame) -> None:
        """Take 20 ms."""
        self.frames.append(frame.index)
        self.seconds += 0.02

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
        """Count who has it open."""
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Count who has it open."""
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        """Return the index of the one GPU."""
        if index:
            raise self.NVMLError
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, device: int) -> int:  # noqa: N802
        """Return mJ since the driver was loaded."""
        if not self.counts:
            raise self.NVMLError
        return round(7_000_000 + 50e3 * self.seconds)

    def nvmlDeviceGetMemoryInfo(self, device: int) -> SimpleNamespace:  # noqa: N802
        """Return bytes."""
        return SimpleNamespace(used=123 << 20)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """Stand in for NVML's package."""
    made = Gpu()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    return made


def test_energy_is_power_times_time_of_a_frame(gpu: Gpu) -> None:
    """50 W for 20 ms are 1 J; frames are gone through again and again."""
    energy = measure_energy(gpu.run, FRAMES, seconds=1.0, clock=gpu.clock)

    assert energy is not None
    assert energy.watts == pytest.approx(50, rel=1e-3)
    assert energy.joules_per_frame == pytest.approx(1.0, rel=1e-3)
    assert gpu.frames[:4] == [0, 1, 2, 0]
    assert gpu.open == 0


def test_memory_in_use_is_the_whole_gpus(gpu: Gpu) -> None:
    """The memory is in bytes."""
    assert device_memory() == 123 * 2**20
    assert gpu.open == 0


def test_without_nvml_or_a_counter_there_is_no_figure(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old GPU does not count energy; a machine without the package reports nothing."""
    assert device_memory(1) is None
    gpu.counts = False
    assert measure_energy(gpu.run, FRAMES, clock=gpu.clock) is None
    assert gpu.open == 0

    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert measure_energy(gpu.run, FRAMES, clock=gpu.clock) is None
    assert device_memory() is None
