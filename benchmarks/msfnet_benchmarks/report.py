"""One comparison of models as a value: a table for terminals, JSON for programs, a page to read."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from msfnet_benchmarks.accuracy import AccuracyReport
from msfnet_benchmarks.latency import LatencyReport
from msfnet_benchmarks.parity import ParityReport
from msfnet_benchmarks.tables import format_table
from msfnet_runtime.files import atomic_path

_LIBRARIES = ("msfnet", "numpy", "torch", "onnxruntime", "onnxruntime-gpu", "tensorrt")

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
    latency: LatencyReport
    speedup: float | None
    """Median of the baseline over its own; None without a baseline."""
    accuracy: AccuracyReport | None
    """None without a protocol."""
    parity: ParityReport | None
    """Against the baseline; None for the baseline itself."""


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

    def header(self) -> tuple[str, ...]:
        """Return the table's headings: of what was measured, and no more."""
        return (
            *("model", "precision", "MB", "p50 ms", "p90 ms", "p99 ms", "frames/s"),
            *(["speed-up"] if self.baseline else []),
            *(["REL", "RMSE m", "d1"] if self.protocol else []),
            *(["p99 change"] if self.baseline else []),
        )

    def cells(self) -> list[tuple[str, ...]]:
        """Return the table's rows under :meth:`header`."""
        return [self._cells(row) for row in self.rows]

    def _cells(self, row: BenchmarkRow) -> tuple[str, ...]:
        latency = row.latency
        times = (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.throughput_fps)
        scores: tuple[str, ...] = ()
        if row.accuracy:
            summary = row.accuracy.summary
            scores = tuple(f"{v:.4f}" for v in (summary.rel, summary.rmse, summary.delta1))
        return (
            *(row.name, row.precision, f"{row.size_bytes / 1e6:.1f}"),
            *(f"{time:.1f}" for time in times),
            *([f"{row.speedup or 0:.2f}x"] if self.baseline else []),
            *scores,
            *([f"{row.parity.p99:.1e}" if row.parity else "-"] if self.baseline else []),
        )

    def table(self) -> str:
        """Return the comparison as plain text that names protocol and frames."""
        where = f"{self.frames} frames of {self.frame_size[0]}x{self.frame_size[1]}"
        scored = f", scored by {self.protocol}" if self.protocol else ""
        return f"{where}{scored}\n{format_table(self.header(), self.cells())}"

    def to_json(self) -> str:
        """Return everything measured, image by image, as one JSON object."""
        return json.dumps({"what_is_timed": WHAT_IS_TIMED, **asdict(self)}, indent=2)

    def write(self, path: Path) -> None:
        """Write the page, and the JSON beside it (``report.html``, ``report.json``).

        Raises:
            MsfnetError: a file cannot be written, or plotly is missing.
        """
        from msfnet_benchmarks.page import render_page

        page = render_page(self)
        with atomic_path(path) as html, atomic_path(path.with_suffix(".json")) as data:
            html.write_text(page, encoding="utf-8")
            data.write_text(self.to_json() + "\n", encoding="utf-8")


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
