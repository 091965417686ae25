"""One comparison of models as a value: a table for terminals, JSON for programs, a page to read."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.accuracy import AccuracyReport
from msfnet_benchmarks.costs import ColdStart, Energy, FlopBound, LayerCost, Throughput
from msfnet_benchmarks.device_latency import Stage
from msfnet_benchmarks.latency import LatencyReport, Ratio
from msfnet_benchmarks.parity import AGREEMENT, ParityReport
from msfnet_benchmarks.tables import format_table
from msfnet_runtime import MsfnetError
from msfnet_runtime.files import atomic_path

_LIBRARIES = (
    *("msfnet", "numpy", "torch", "onnxruntime", "onnxruntime-gpu"),
    *("tensorrt", "tensorrt-rtx"),
)

SCHEMA = "msfnet-bench/2"
"""Names the fields of the JSON; a reader refuses others."""

TABLE_WIDTH = 100
"""Columns of a terminal that the table fits into, by shortening names where it must."""

WHAT_IS_TIMED = (
    "Timed from a frame in host memory to metric depth in host memory, preprocessing included; "
    "models take turns on every frame, so that a drifting machine slows all of them."
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
class Picture:
    """A picture for the page: a frame, or a model's depth in colours."""

    title: str
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""


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
    """(height, width) of the first frame, pixels."""
    environment: Mapping[str, str]
    created: str
    """ISO 8601."""
    flop_bound: FlopBound | None = None
    """Measured in the same run; None where it was not asked for."""
    schema: str = SCHEMA

    def header(self) -> tuple[str, ...]:
        """Return the headings of :meth:`cells`: of what was measured, and no more."""
        return (
            *("model", "type", "MB"),
            *(["p50", "p90", "p99", "fps"] if self._timed else []),
            *(["speed-up"] if self._timed and self.baseline else []),
            *(["REL", "RMSE", "d1"] if self._scored else []),
            *(["p99 diff"] if self._compared else []),
        )

    def legend(self) -> str:
        """Return what the headings mean, with their units, in one line."""
        return "; ".join(
            [
                *(["p50 to p99: ms per frame"] if self._timed else []),
                *(["RMSE: m"] if self._scored else []),
                *(
                    [f"speed-up and relative p99 diff: against {self.baseline}"]
                    if self.baseline
                    else []
                ),
            ]
        )

    def cells(self) -> list[tuple[str, ...]]:
        """Return the rows under :meth:`header`; a dash where a row has no figure."""
        return [self._cells(row) for row in self.rows]

    @property
    def _timed(self) -> bool:
        return any(row.latency for row in self.rows)

    @property
    def _scored(self) -> bool:
        return any(row.accuracy for row in self.rows)

    @property
    def _compared(self) -> bool:
        return any(row.parity for row in self.rows)

    def _cells(self, row: BenchmarkRow) -> tuple[str, ...]:
        figures: tuple[str, ...] = (row.name, row.precision, f"{row.size_bytes / 1e6:.1f}")
        if self._timed:
            figures += _latency_cells(row.latency)
            if self.baseline:
                figures += (f"{row.speedup.value:.2f}x" if row.speedup else "-",)
        if self._scored:
            figures += _accuracy_cells(row.accuracy)
        if self._compared:
            figures += (f"{row.parity.p99:.1e}" if row.parity else "-",)
        return figures

    def table(self) -> str:
        """Return the comparison as plain text that names protocol and frames."""
        where = f"{self.frames} frames of {self.frame_size[0]}x{self.frame_size[1]}"
        scored = f", scored by {self.protocol}" if self.protocol else ""
        tables = [_fitting(self.header(), self.cells())]
        if self._scored and self._compared:
            tables.append(_fitting(_DEPTH_HEADER, [_depth_cells(row) for row in self.rows]))
        legend = textwrap.wrap(self.legend(), TABLE_WIDTH)
        return "\n".join([f"{where}{scored}", "\n\n".join(tables), *legend])

    def to_json(self) -> str:
        """Return everything measured, image by image, as one JSON object."""
        plain = replace(self, environment=dict(self.environment))
        return json.dumps({"what_is_timed": WHAT_IS_TIMED, **asdict(plain)}, indent=2)

    def write(self, path: Path, pictures: Sequence[Picture] = ()) -> None:
        """Write the page, and the JSON beside it (``report.html``, ``report.json``).

        Args:
            path: of the page.
            pictures: shown on the page in this order; they are not in the JSON.

        Raises:
            MsfnetError: a file cannot be written, ``path`` ends in ``.json``, or plotly is
                missing.
        """
        from msfnet_benchmarks.page import render_page

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


def _latency_cells(latency: LatencyReport | None) -> tuple[str, ...]:
    if latency is None:
        return ("-",) * 4
    times = (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.throughput_fps)
    return tuple(f"{time:.1f}" if time < 1e3 else f"{time:.0f}" for time in times)


def _accuracy_cells(accuracy: AccuracyReport | None) -> tuple[str, ...]:
    if accuracy is None:
        return ("-",) * 3
    summary = accuracy.summary
    return f"{summary.rel:.4f}", f"{summary.rmse:.3f}", f"{summary.delta1:.4f}"


_DEPTH_HEADER = (
    *("model", "REL", "RMSE m", "pooled", "d1"),
    *("p50 diff", "p99 diff", "p99.9 diff", f"d<{AGREEMENT}"),
)


def _depth_cells(row: BenchmarkRow) -> tuple[str, ...]:
    """Return errors against ground truth beside differences from the baseline."""
    errors: tuple[str, ...] = ("-",) * 4
    parity: tuple[str, ...] = ("-",) * 4
    if row.accuracy:
        s = row.accuracy.summary
        errors = (f"{s.rel:.4f}", f"{s.rmse:.4f}", f"{s.rmse_pooled:.4f}", f"{s.delta1:.4f}")
    if row.parity:
        p = row.parity
        parity = (*(f"{d:.1e}" for d in (p.p50, p.p99, p.p999)), f"{p.agreement:.4f}")
    return (row.name, *errors, *parity)


def _fitting(header: Sequence[str], cells: Sequence[tuple[str, ...]]) -> str:
    """Return a table whose names are shortened until it fits the terminal."""
    others = format_table(header[1:], [row[1:] for row in cells]).splitlines()
    names = _shorten([row[0] for row in cells], TABLE_WIDTH - 2 - max(map(len, others)))
    rows = [(name, *row[1:]) for name, row in zip(names, cells, strict=True)]
    return format_table(header, rows)


def _shorten(names: Sequence[str], width: int) -> list[str]:
    """Cut the middle out of names that are too long, unless they could then be mistaken."""
    head, tail = (width - 1) // 2, width // 2
    short = [n if len(n) <= width else f"{n[:head]}…{n[len(n) - tail :]}" for n in names]
    return short if len(set(short)) == len(set(names)) else list(names)


def describe_environment() -> dict[str, str]:
    """Return what the figures were measured on; nothing heavy is imported for it."""
    facts = {
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
    }
    for name in _LIBRARIES:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return facts


def _processor() -> str:
    """Return the processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
