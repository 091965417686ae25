"""Reports a precision search: tables, JSON, plots of sensitivity and of latency against error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msfnet_benchmarks.scoring.constant import ConstantDepth
from msfnet_benchmarks.scoring.metrics import DepthSummary
from msfnet_benchmarks.tables import format_table
from msfnet_calibration.budget import Budget
from msfnet_calibration.trials import Trial
from msfnet_datasets.figures import new_figure, write_figure
from msfnet_runtime.files import atomic_path
from msfnet_runtime.typed import to_json, to_plain
from msfnet_runtime.words import counted

SENSITIVITY_FILE, PARETO_FILE, JSON_FILE = "sensitivity.png", "pareto.png", "search.json"


@dataclass(frozen=True)
class SensitivityRow:
    """One unit of a model, quantised alone."""

    unit: str
    """A block's convolutions; those with narrow groups are a separate unit."""
    convolutions: int
    rel: float
    """Relative change of REL; above 0 is worse."""
    delta1: float
    """Difference of delta1; below 0 is worse."""
    p99: float
    """99th percentile of the relative difference of depth from FP32."""
    saved: float
    """Share of FP32's latency; below 0 it is slower."""


@dataclass(frozen=True)
class HeldOut:
    """A model on frames that the search did not see."""

    name: str
    summary: DepthSummary
    speedup: float
    """FP32's latency over its, timed in turns for longer than in the search."""
    latency_ms: float
    """Median."""


@dataclass(frozen=True)
class SearchReport:
    """The measurements of a search, and its choice if it had a budget."""

    engine: str
    protocol: str
    frames: tuple[int, int]
    """Frames of the search, and frames held out."""
    reference: DepthSummary
    """FP32 on the frames of the search."""
    constant: ConstantDepth | None
    """The best constant depth on the same frames, for comparison."""
    rows: tuple[SensitivityRow, ...]
    trials: tuple[Trial, ...]
    """Everything that was tried, in order."""
    blanket: Trial
    """All units but the narrow ones."""
    budget: Budget | None = None
    chosen: Trial | None = None
    held_out: tuple[HeldOut, ...] = ()
    """FP32, FP16, blanket INT8 and the chosen one."""

    def text(self) -> str:
        """Return the tables."""
        constant = f" ({self.constant.text()})" if self.constant else ""
        parts = [
            f"{self.engine}, {self.protocol}, {counted(self.frames[0], 'frame')}; FP32 has REL "
            f"{self.reference.rel:.4f}{constant}; one unit in INT8 at a time:",
            self._sensitivity(),
        ]
        if self.budget and self.chosen:
            parts += [
                f"{self.budget} allowed; on {counted(self.frames[1], 'other frame')}:",
                self._comparison(self.budget),
                f"INT8: {', '.join(self.chosen.choice.int8) or 'nothing'}; the rest: "
                f"{'FP16' if self.chosen.choice.half else 'FP32'}",
            ]
        return "\n\n".join(parts)

    def _sensitivity(self) -> str:
        rows = [
            (
                *(row.unit, str(row.convolutions), f"{row.rel:+.2%}", f"{row.delta1:+.4f}"),
                *(f"{row.p99:.1e}", f"{row.saved:+.1%}"),
            )
            for row in self.rows
        ]
        header = ("unit", "convolutions", "REL", "d1", "p99 difference", "latency saved")
        return format_table(header, rows)

    def _comparison(self, budget: Budget) -> str:
        reference = self.held_out[0].summary
        rows = [
            (
                *(found.name, f"{found.summary.rel:.4f}", f"{found.summary.delta1:.4f}"),
                budget.write(budget.loss(found.summary, reference)),
                *(f"{found.latency_ms:.2f}", f"{found.speedup:.2f}x"),
            )
            for found in self.held_out
        ]
        return format_table(("model", "REL", "d1", "change", "p50 ms", "speed"), rows)

    def to_json(self) -> str:
        """Return everything as one JSON object."""
        return to_json({**to_plain(self), "budget": str(self.budget or "")})

    def write(self, folder: Path) -> None:
        """Write the JSON and the plots, each whole or not at all.

        Raises:
            MsfnetError: the folder cannot be written, or matplotlib is missing.
        """
        with atomic_path(folder / JSON_FILE) as partial:
            partial.write_text(self.to_json() + "\n", encoding="utf-8")
        self._draw_sensitivity(folder / SENSITIVITY_FILE)
        if self.chosen:
            self._draw_pareto(folder / PARETO_FILE, self.chosen)

    def _draw_sensitivity(self, path: Path) -> None:
        figure = new_figure(1100, 150 + 26 * len(self.rows))
        left, right = figure.subplots(1, 2, sharey=True)
        places = np.arange(len(self.rows))
        left.barh(places, [100 * row.rel for row in self.rows], color="tab:red")
        left.set_xlabel("change of REL, % (right is worse)")
        left.set_yticks(places, [row.unit for row in self.rows])
        left.invert_yaxis()
        right.barh(places, [100 * row.saved for row in self.rows], color="tab:blue")
        right.set_xlabel("latency saved, % of FP32's (left is slower)")
        for axes in (left, right):
            axes.axvline(0, color="black", linewidth=0.8)
            axes.locator_params(axis="x", nbins=6)
            axes.grid(axis="x", alpha=0.3)
        figure.suptitle(f"One unit in INT8 at a time: {self.protocol}, {self.engine}")
        write_figure(figure, path)

    def _draw_pareto(self, path: Path, chosen: Trial) -> None:
        figure = new_figure(900, 600)
        axes = figure.subplots()
        points = {
            "single units": [t for t in self.trials if len(t.choice.int8) == 1],
            "sets": [t for t in self.trials if len(t.choice.int8) > 1],
            "FP16": [t for t in self.trials if not t.choice.int8],
        }
        for name, trials in points.items():
            x, y = np.array(_spots(trials)).reshape(-1, 2).T
            axes.scatter(x, y, s=18, alpha=0.6, label=name)
        front = _front([(1.0, self.reference.rel), *_spots(self.trials)])
        axes.step(
            *np.array(front).T, where="post", color="black", linewidth=1, label="Pareto front"
        )
        marked = {
            "FP32": ("s", (1.0, self.reference.rel)),
            "blanket INT8": ("^", _spots([self.blanket])[0]),
            "chosen": ("*", _spots([chosen])[0]),
        }
        for name, (marker, spot) in marked.items():
            size = 260 if marker == "*" else 90
            axes.scatter(*spot, marker=marker, s=size, edgecolor="black", label=name, zorder=3)
        if self.budget and self.budget.metric == "rel":
            limit = self.reference.rel * (1 + self.budget.amount)
            if not self.budget.relative:
                limit = self.reference.rel + self.budget.amount
            axes.axhline(limit, color="tab:red", linestyle="--", label=f"budget {self.budget}")
        axes.set_xlabel("latency, FP32 = 1")
        axes.set_ylabel("REL")
        axes.grid(alpha=0.3)
        axes.legend()
        axes.set_title(f"{self.protocol}, {counted(self.frames[0], 'frame')}, {self.engine}")
        write_figure(figure, path)


def _spots(trials: tuple[Trial, ...] | list[Trial]) -> list[tuple[float, float]]:
    return [(1 / trial.speedup, trial.summary.rel) for trial in trials]


def _front(spots: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the spots that no other beats in both latency and error, by latency."""
    front: list[tuple[float, float]] = []
    for spot in sorted(spots):
        if not front or spot[1] < front[-1][1]:
            front.append(spot)
    return front
