"""One comparison of models as a value: a table for terminals, JSON for programs, a page to read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.report import report_tables
from msfnet_benchmarks.report.report_tables import Table
from msfnet_benchmarks.scoring.accuracy import AccuracyReport
from msfnet_benchmarks.scoring.parity import ParityReport
from msfnet_benchmarks.timing.costs import ColdStart, Energy, FlopBound, LayerCost, Throughput
from msfnet_benchmarks.timing.device_latency import Stage
from msfnet_benchmarks.timing.latency import LatencyReport, Ratio
from msfnet_runtime import MsfnetError
from msfnet_runtime.files import atomic_path
from msfnet_runtime.words import counted

SCHEMA = "msfnet-bench/2"
"""Names the fields of the JSON; a reader refuses others."""

WHAT_IS_TIMED = (
    "Timed from a frame in host memory to metric depth in host memory, preprocessing included; "
    "models take turns on every frame, so that a drifting machine slows all of them."
)

WHAT_A_SWEEP_TIMES = (
    "Timed from batch to answer, engine alone, one point after the other; the machine's arithmetic "
    "is measured beside each."
)


@dataclass(frozen=True)
class BenchmarkRow:
    """One model."""

    name: str
    engine: str
    """What really ran it."""
    precision: str
    size_bytes: int
    """On disk."""
    latency: LatencyReport | None
    """None where nothing was timed."""
    speedup: Ratio | None
    """How many times as fast as the baseline; None without a baseline."""
    accuracy: AccuracyReport | None
    """None without a protocol."""
    parity: ParityReport | None
    """Against the baseline; None for the baseline itself."""
    engine_latency: LatencyReport | None = None
    """From batch to answer: without preparing and finishing."""
    stages: Mapping[str, Stage] = field(default_factory=dict)
    """What one frame takes by stage, in the order of a stream: decode to write, milliseconds."""
    throughput: tuple[Throughput, ...] = ()
    """By batch size."""
    cold_start: ColdStart | None = None
    energy: Energy | None = None
    """None where no GPU counts it."""
    device_bytes: int | None = None
    """Of the GPU's memory, taken by the open model; None on a CPU."""
    macs: int | None = None
    """Multiply-adds for one image, as the spec tells; None where it does not."""
    parameters: int | None = None
    layers: tuple[LayerCost, ...] = ()
    """By falling time; empty where nothing was profiled."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of a sweep: what this row has on every axis, e.g. ``{"size": "192x256"}``; empty else."""
    flop_bound: FlopBound | None = None
    """Measured beside this row with its threads; None: the report's holds."""


@dataclass(frozen=True, eq=False)
class ColourScale:
    """What the colours of a picture mean."""

    colours: NDArray[np.uint8]
    """(256, 3) RGB, from the low end to the high one."""
    marks: tuple[tuple[float, str], ...]
    """Where along the colours (0 to 1) which figure stands."""
    unit: str


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture for the page: a frame, a model's depth in colours, or its error."""

    title: str
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    group: str = "Depth"
    """Pictures of one group stand side by side under it."""
    scale: ColourScale | None = None
    """None: the colours are the camera's."""


@dataclass(frozen=True)
class BenchmarkReport:
    """Models compared on the same frames in one run."""

    title: str
    rows: tuple[BenchmarkRow, ...]
    baseline: str | None
    """Name of the row that the others are held against."""
    protocol: str | None
    """Name of the evaluation protocol."""
    data: str | None
    """Where the frames come from; None for generated ones."""
    frames: int
    frame_size: tuple[int, int]
    """(height, width) of the first frame, pixels; a sweep has none: (0, 0)."""
    environment: Mapping[str, str]
    created: str
    """ISO 8601."""
    flop_bound: FlopBound | None = None
    """Measured in the same run; None where it was not asked for."""
    schema: str = SCHEMA

    def tables(self) -> list[Table]:
        """Return the comparison, and further tables of what else was measured."""
        return report_tables.tables(self)

    def table(self) -> str:
        """Return the comparison as plain text that names protocol and frames."""
        return report_tables.text(self)

    def markdown(self) -> str:
        """Return the comparison for a pull request, in GitHub's Markdown."""
        return report_tables.markdown(self)

    def bound_share(self, row: BenchmarkRow) -> float | None:
        """Return the share of the FLOP bound that a row's engine reaches; None if not measured."""
        bound = row.flop_bound or self.flop_bound
        if bound is None or row.macs is None or row.engine_latency is None:
            return None
        images = int(row.settings.get("batch", "1"))
        return images * bound.least_ms(row.macs) / row.engine_latency.p50_ms

    def shown(self) -> str:
        """Return what the models were shown, in words."""
        if any(row.settings for row in self.rows):
            return (
                f"{counted(self.frames, 'call')} a point, random input"
                if self.frames
                else "counts only"
            )
        return f"{counted(self.frames, 'frame')} of {self.frame_size[0]}x{self.frame_size[1]}"

    def what_is_timed(self) -> str:
        """Return what the times are of, in a sentence."""
        swept = any(row.settings for row in self.rows)
        return WHAT_A_SWEEP_TIMES if swept else WHAT_IS_TIMED

    def stage_names(self) -> list[str]:
        """Return the stages that any row was timed by, in the order of a stream."""
        return list(dict.fromkeys(name for row in self.rows for name in row.stages))

    def run_facts(self) -> list[tuple[str, str]]:
        """Return what was run: when, on what, by which engines."""
        return [
            ("created", self.created),
            ("frames", self.shown()),
            ("data", self.data or "generated"),
            ("protocol", self.protocol or "none"),
            *((f"engine of {row.name}", row.engine) for row in self.rows if row.engine),
        ]

    def to_json(self) -> str:
        """Return everything measured, image by image, as one JSON object.

        ``bench_schema.json`` beside this module describes it. A figure that is no number (nothing
        was valid) or infinite is null: JSON has neither.
        """
        rows = [
            replace(row, stages=dict(row.stages), settings=dict(row.settings)) for row in self.rows
        ]
        plain = replace(self, rows=tuple(rows), environment=dict(self.environment))
        content = _finite({"what_is_timed": self.what_is_timed(), **asdict(plain)})
        return json.dumps(content, indent=2, allow_nan=False)

    def write(self, path: Path, pictures: Sequence[Picture] = ()) -> None:
        """Write the page, and the JSON beside it (``report.html``, ``report.json``).

        Args:
            path: of the page.
            pictures: shown on the page in this order; they are not in the JSON.

        Raises:
            MsfnetError: a file cannot be written, ``path`` ends in ``.json``, or plotly is
                missing.
        """
        from msfnet_benchmarks.report.page import render_page

        check_page_path(path)
        page = render_page(self, pictures)
        with atomic_path(path) as html, atomic_path(path.with_suffix(".json")) as data:
            html.write_text(page, encoding="utf-8")
            data.write_text(self.to_json() + "\n", encoding="utf-8")


def check_page_path(path: Path) -> None:
    """Refuse a page's path that its JSON would overwrite.

    Raises:
        MsfnetError: it ends in ``.json``.
    """
    if path.suffix.lower() == ".json":
        raise MsfnetError(f"{path} is the name of the JSON; name the page, e.g. report.html")


def _finite(value: Any) -> Any:
    """Return plain data with null in place of numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
