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
        self.names, self.asked = ["H100"], list[int]()

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

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """Return how many there are."""
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        """Return the index of a GPU."""
        return index

    def nvmlDeviceGetName(self, device: int) -> str:  # noqa: N802
        """Return the kind of GPU."""
        return self.names[device]

    def nvmlDeviceGetUUID(self, device: int) -> bytes:  # noqa: N802
        """Return a name of its own, as old packages of NVML give it."""
        return f"GPU-{device}abc".encode()

    def nvmlDeviceGetTotalEnergyConsumption(self, device: int) -> int:  # noqa: N802
        """Return mJ since the driver was loaded."""
        if not self.counts:
            raise self.NVMLError
        self.asked.append(device)
        return round(7_000_000 + 50e3 * self.seconds)

    def nvmlDeviceGetMemoryInfo(self, device: int) -> SimpleNamespace:  # noqa: N802
        """Return bytes, of each GPU another number."""
        return SimpleNamespace(used=(123 + device) << 20)


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


@pytest.mark.parametrize(
    ("shown", "gpu_of_cuda", "expected"),
    [
        (None, 2, 2),
        ("2,0", 0, 2),
        ("2,0", 1, 0),
        ("GPU-1a", 0, 1),
        ("0, GPU-2abc", 1, 2),
        ("2,0", 2, None),
        ("7", 0, None),
        ("", 0, None),
    ],
)
def test_the_gpu_is_the_one_that_cuda_counts(
    gpu: Gpu,
    monkeypatch: pytest.MonkeyPatch,
    shown: str | None,
    gpu_of_cuda: int,
    expected: int | None,
) -> None:
    """By number or UUID; a GPU that CUDA does not show has no figure."""
    gpu.names = ["H100"] * 3
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)

    energy = measure_energy(gpu.run, FRAMES, gpu=gpu_of_cuda, seconds=0.1, clock=gpu.clock)

    assert device_memory(gpu_of_cuda) == (None if expected is None else (123 + expected) * 2**20)
    assert (energy is None) == (expected is None)
    assert set(gpu.asked) == ({expected} if expected is not None else set())


def test_gpus_of_several_kinds_are_matched_in_the_order_of_the_bus_only(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA's own order begins with the fastest, which NVML does not know."""
    gpu.names = ["T4", "H100"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert device_memory(1) is None
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert device_memory(1) == 124 * 2**20


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
