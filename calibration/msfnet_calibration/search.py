"""Searches for the fastest precision of each block within a budget of depth error.

The search measures every unit (a block's convolutions) alone, for its loss of accuracy and its
saving of time. Then it measures growing sets, those units first that save most per loss, and then
the best set changed by one unit at a time. Every set is measured, because neither loss nor saving
is the sum over the units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from msfnet_benchmarks.scoring.protocols import Protocol
from msfnet_calibration.budget import Budget
from msfnet_calibration.search_report import HeldOut, SearchReport, SensitivityRow
from msfnet_calibration.trials import Bench, Opener, Trial
from msfnet_calibration.variants import Choice, Variants
from msfnet_datasets.sample import Sample
from msfnet_runtime import MsfnetError
from msfnet_runtime.precision_records import SearchRecord
from msfnet_runtime.progress import Progress, silent

NOISE = 0.005
"""Share of FP32's latency; a smaller saving cannot be distinguished from none."""

_MARGIN = 0.8
"""Share of the budget that the search may spend: other frames lose a little more or less."""

_CHECKED = 8
"""How many choices are checked on the frames held out before the search gives up."""


class PrecisionSearch:
    """Measures each unit, and finds the fastest choice within a budget.

    Args:
        variants: makes the models.
        open_engine: opens them where they are to run.
        samples: frames with ground truth; every second one is held out for the final check.
        protocol: scores them.
        folder: for the file of trials, with which a stopped search is resumed.
        progress: called after every trial.

    Raises:
        MsfnetError: fewer than two samples, or one that cannot be read.
    """

    def __init__(
        self,
        variants: Variants,
        open_engine: Opener,
        samples: Sequence[Sample],
        protocol: Protocol,
        *,
        folder: Path,
        progress: Progress = silent,
    ) -> None:
        if len(samples) < 2:
            raise MsfnetError(
                "a search needs at least two frames with ground truth; check the data",
                parameter="score",
            )
        self._variants = variants
        self._seen, self._unseen = samples[::2], samples[1::2]
        self._protocol = protocol
        self._progress = progress
        self._bench = Bench(variants, open_engine, self._seen, protocol, folder / "trials.json")
        self._trials: dict[str, Trial] = {}
        self._passed: set[str] = set()

    def __enter__(self) -> PrecisionSearch:
        """Return the search itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the engine and remove the models that were tried."""
        self._bench.__exit__(*error)

    def measure_units(self) -> SearchReport:
        """Try every unit alone, and all but the narrow ones together."""
        units = self._variants.units
        rows = []
        for name, nodes in units.items():
            trial = self._try(Choice.of([name]), name)
            rel, delta1 = (
                getattr(trial.summary, key) - getattr(self._bench.summary, key)
                for key in ("rel", "delta1")
            )
            change = rel / self._bench.summary.rel
            rows.append(SensitivityRow(name, len(nodes), change, delta1, trial.p99, trial.saved))
        blanket = self._try(self._variants.blanket, "all units")
        return SearchReport(
            engine=self._bench.engine,
            protocol=self._protocol.name,
            frames=(len(self._seen), len(self._unseen)),
            reference=self._bench.summary,
            constant=self._bench.constant,
            rows=tuple(rows),
            trials=tuple(self._trials.values()),
            blanket=blanket,
        )

    def choose(self, budget: Budget, path: Path) -> SearchReport:
        """Find the fastest choice within a budget and write its model.

        The choice meets the budget on the frames held out, too, and is faster than FP32, and with
        INT8 in it faster than FP16 where that is: candidates are checked from the fastest on.

        Args:
            budget: what depth may lose against FP32.
            path: where to write the model that was chosen.

        Raises:
            MsfnetError: no choice is faster than FP32 within the budget; the line tells the best
                that was reached.
        """
        report = self.measure_units()
        half = self._bench.confirm(self._try(Choice((), half=True), "all in FP16"))
        base = half.speedup > 1 + NOISE and budget.allows(half.summary, report.reference)
        self._grow(report.rows, budget, base)
        self._improve(budget, base)
        reference = self._hold_out("FP32", Choice(()))
        for trial in self._candidates(budget):
            found = self._hold_out(f"within {budget}", trial.choice)
            higher = half.speedup if base and trial.choice.int8 else 1.0
            if budget.allows(found.summary, reference.summary) and found.speedup > higher:
                break
        else:
            raise MsfnetError(self._refusal(budget))
        others = [
            self._hold_out(name, choice)
            for name, choice in (("FP16", half.choice), ("blanket INT8", report.blanket.choice))
        ]
        self._write(path, trial, budget, (reference, found))
        return replace(
            report,
            trials=tuple(self._trials.values()),
            budget=budget,
            chosen=trial,
            held_out=(reference, *others, found),
        )

    def _grow(self, rows: Sequence[SensitivityRow], budget: Budget, half: bool) -> None:
        """Try growing sets of the units that save time alone."""
        alone = {row.unit: self._trials[Choice.of([row.unit]).key] for row in rows}
        # Units that lose less than their share of the budget come by what they save.
        share = budget.amount / len(rows)

        def worth(unit: str) -> float:
            return alone[unit].saved / max(self._loss(alone[unit], budget), share)

        ranked = sorted((u for u in alone if alone[u].saved > 0), key=worth, reverse=True)
        for count in range(1, len(ranked) + 1):
            self._try(Choice.of(ranked[:count], half), f"the best {count} units")

    def _improve(self, budget: Budget, half: bool) -> None:
        """Change the best set by one unit at a time, as long as that makes it faster."""
        for unit in self._variants.units:
            best = self._best(budget)
            if best is None:
                return
            units = set(best.choice.int8) ^ {unit}
            self._try(Choice.of(units, half), f"the best set changed by {unit}")

    def _best(self, budget: Budget) -> Trial | None:
        """Return the fastest trial that spends no more of the budget than the search may."""
        while True:
            within = [
                trial
                for key, trial in self._trials.items()
                if key not in self._passed and self._loss(trial, budget) <= _MARGIN * budget.amount
            ]
            best = max(within, key=lambda trial: trial.speedup, default=None)
            if best is None or best.confirmed:
                return best
            self._trials[best.choice.key] = self._bench.confirm(best)

    def _candidates(self, budget: Budget) -> Iterator[Trial]:
        """Yield what is faster than FP32 within the budget, the fastest first."""
        for _ in range(_CHECKED):
            best = self._best(budget)
            if best is None or best.speedup <= 1:
                return
            yield best
            self._passed.add(best.choice.key)

    def _loss(self, trial: Trial, budget: Budget) -> float:
        return budget.loss(trial.summary, self._bench.summary)

    def _refusal(self, budget: Budget) -> str:
        faster = [trial for trial in self._trials.values() if trial.speedup > 1]
        if not faster:
            return f"nothing is faster than FP32 on {self._bench.engine}; keep the FP32 model"
        best = min(faster, key=lambda trial: self._loss(trial, budget))
        return (
            f"no choice is faster than FP32 within {budget}; the best that was reached is "
            f"{budget.write(self._loss(best, budget))} at {best.speedup:.2f}x; allow more"
        )

    def _hold_out(self, name: str, choice: Choice) -> HeldOut:
        summary, speedup, latency = self._bench.check(choice, self._unseen)
        return HeldOut(name, summary, speedup, latency)

    def _write(
        self, path: Path, trial: Trial, budget: Budget, pair: tuple[HeldOut, HeldOut]
    ) -> None:
        reference, found = pair
        loss = budget.loss(found.summary, reference.summary)
        record = SearchRecord(
            budget=str(budget),
            change=budget.change(loss),
            protocol=self._protocol.name,
            frames=len(self._unseen),
            speedup=found.speedup,
            engine=self._bench.engine,
        )
        self._variants.write(trial.choice, path, search=record)

    def _try(self, choice: Choice, what: str) -> Trial:
        trial = self._bench.try_choice(choice)
        self._trials[choice.key] = trial
        self._progress(len(self._trials), 0, f"trials, {what}")
        return trial
