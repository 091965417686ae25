"""Costs of a model besides its latency: rate by batch, start, memory, energy, layers, arithmetic.

These are values only; the modules beside this one measure them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Throughput:
    """The number of images that an engine answers per second in batches of one size."""

    batch: int
    """Images in one call."""
    images_per_s: float
    """Images per second of the median call."""
    p50_ms: float
    """The median time of one call, milliseconds."""


@dataclass(frozen=True)
class ColdStart:
    """A separate process from its start to the first depth map."""

    first_depth_s: float
    """The median time from its start until the first depth map is in host memory, seconds."""
    imported_s: float
    """The part until the runtime was imported, seconds; a library that runs models comes after."""
    opened_s: float
    """The part until the model was open, seconds."""
    peak_bytes: int
    """The process's largest resident memory, some frames later."""
    starts: int
    """How often it was started."""


@dataclass(frozen=True)
class Energy:
    """The energy that the GPU used while a model ran, as NVML counts it."""

    joules_per_frame: float
    watts: float


@dataclass(frozen=True)
class LayerCost:
    """One node of a graph as its engine ran it."""

    name: str
    operator: str
    block: str
    """The model's block that it belongs to; empty where the spec names none."""
    ms: float
    """Median over the profiled runs."""
    share: float
    """The layer's share of the sum over all layers."""


@dataclass(frozen=True)
class FlopBound:
    """The rate that the machine's arithmetic reaches: that of one large matrix product."""

    gmacs_per_s: float
    """GMAC per second, float32, the best of several runs."""
    threads: int
    """Threads of the product; 0: the library's choice."""
    side: int
    """The matrices are side x side."""

    def least_ms(self, macs: int) -> float:
        """Return the milliseconds that so many MACs take at that rate."""
        return macs / self.gmacs_per_s / 1e6


@dataclass(frozen=True)
class DeviceRun:
    """The settings of a tool that timed an engine's stages; other settings give other figures."""

    cuda_graph: bool
    """The engine's work was replayed as one CUDA graph."""
    transfers: bool
    """The copies in and out are part of what was measured."""
    overlapped: bool
    """Runs were started before the last was done, so the rate is not 1 / latency."""
