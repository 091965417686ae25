"""What a model costs besides its latency: rate by batch, start, memory, energy, layers, arithmetic.

Values only; they are measured by the modules that name them in their functions.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Throughput:
    """How many images a second an engine answers in batches of one size."""

    batch: int
    """Images in one call."""
    images_per_s: float
    """From the median call."""
    p50_ms: float
    """Of one call, milliseconds."""


@dataclass(frozen=True)
class ColdStart:
    """A process of its own from its start to the first depth map."""

    first_depth_s: float
    """From starting the process until the first depth map was in host memory, median, seconds."""
    imported_s: float
    """Of that, until the runtime was imported, seconds; a library that runs models comes after."""
    opened_s: float
    """Of that, until the model was open, seconds."""
    peak_bytes: int
    """The process's largest resident memory, some frames later."""
    starts: int
    """How often it was started."""


@dataclass(frozen=True)
class Energy:
    """What the GPU drew while a model ran, as NVML counts it."""

    joules_per_frame: float
    watts: float


@dataclass(frozen=True)
class LayerCost:
    """One node of a graph as its engine ran it."""

    name: str
    operator: str
    block: str
    """The model's block it belongs to; empty where the spec does not tell."""
    ms: float
    """Median over the profiled runs."""
    share: float
    """Of the sum over all layers."""


@dataclass(frozen=True)
class FlopBound:
    """What the machine's arithmetic allows: the rate of one large matrix product."""

    gmacs_per_s: float
    """10^9 multiply-adds a second, float32, the best of several runs."""
    threads: int
    """Of the product; 0: the library's choice."""
    side: int
    """The matrices are side x side."""

    def least_ms(self, macs: int) -> float:
        """Return what so many multiply-adds take at that rate, milliseconds."""
        return macs / self.gmacs_per_s / 1e6
