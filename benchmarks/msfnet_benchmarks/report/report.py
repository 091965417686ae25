"""One benchmark as plain data: what was measured of each model, and on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from msfnet_benchmarks.scoring.accuracy import AccuracyReport
from msfnet_benchmarks.scoring.parity import ParityReport
from msfnet_benchmarks.timing.core import Ratio, Summary
from msfnet_benchmarks.timing.costs import (
    ColdStart,
    DeviceRun,
    Energy,
    FlopBound,
    LayerCost,
    Throughput,
)

SCHEMA: Literal["msfnet-bench/3"] = "msfnet-bench/3"
"""Names the fields of the JSON; a reader refuses others."""

WHAT_IS_TIMED = (
    "Timed from a frame in host memory to metric depth in host memory, preprocessing included; "
    "models take turns on every frame, so that a drifting machine slows all of them."
)


@dataclass(frozen=True)
class BenchmarkRow:
    """One model."""

    name: str
    engine: str
    """The library, version and device that ran it; empty where nothing was run."""
    precision: str
    size_bytes: int
    """On disk."""
    latency: Summary | None = None
    """The time from frame to depth; None where that was not timed."""
    speedup: Ratio | None = None
    """How many times as fast as the baseline; None without a baseline."""
    accuracy: AccuracyReport | None = None
    """None without a protocol."""
    parity: ParityReport | None = None
    """Difference from the baseline; None for the baseline itself."""
    engine_latency: Summary | None = None
    """The time from batch to answer, without preparing and finishing."""
    stages: Mapping[str, Summary] = field(default_factory=dict)
    """Time of one frame by stage, in the order of a stream: decode to write; or of one batch on
    the device, as trtexec defines the stages."""
    throughput: tuple[Throughput, ...] = ()
    """The throughput of each batch size."""
    cold_start: ColdStart | None = None
    energy: Energy | None = None
    """None where no GPU counts it."""
    device_bytes: int | None = None
    """GPU memory that the open model uses; None on a CPU."""
    macs: int | None = None
    """Multiply-accumulates for one image; None where the model's file does not name them."""
    parameters: int | None = None
    layers: tuple[LayerCost, ...] = ()
    """The layers, the slowest first; empty where nothing was profiled."""
    batch: int = 1
    """Images in one timed call."""
    input_size: tuple[int, int] | None = None
    """(height, width) of the network's input, pixels."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Its value on every axis of a sweep, such as ``{"size": "192x256"}``; empty elsewhere."""
    flop_bound: FlopBound | None = None
    """Measured beside this row with its threads; None: the report's counts."""
    device_run: DeviceRun | None = None
    """How the device's stages were timed; None where they were not."""


@dataclass(frozen=True)
class BenchmarkReport:
    """Models compared on the same frames in one run."""

    title: str
    rows: tuple[BenchmarkRow, ...]
    baseline: str | None
    """Name of the row that the others are compared with."""
    protocol: str | None
    """Name of the evaluation protocol."""
    data: str | None
    """Where the frames come from; None for generated ones."""
    frames: int
    """Timed frames; in a sweep the calls at each point."""
    frame_size: tuple[int, int]
    """(height, width) of the first frame, pixels; a sweep has none: (0, 0)."""
    environment: Mapping[str, str]
    created: str
    """ISO 8601."""
    flop_bound: FlopBound | None = None
    """Measured in the same run; None where it was not asked for."""
    what_is_timed: str = WHAT_IS_TIMED
    """A sentence that says what the times cover."""
    schema: Literal["msfnet-bench/3"] = SCHEMA

    @property
    def swept(self) -> bool:
        """Whether the rows are points of a sweep."""
        return any(row.settings for row in self.rows)

    def bound_share(self, row: BenchmarkRow) -> float | None:
        """Return the share of the FLOP bound that a row's engine reaches; None if not measured."""
        bound = row.flop_bound or self.flop_bound
        if bound is None or row.macs is None or row.engine_latency is None:
            return None
        return row.batch * bound.least_ms(row.macs) / row.engine_latency.p50_ms
