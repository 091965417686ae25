"""Table III: the five rows of the paper's ablation, each trained over several seeds."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType

from msfnet_benchmarks.scoring.metrics import DepthSummary
from msfnet_benchmarks.tables import format_table
from msfnet_runtime import MsfnetError
from msfnet_runtime.files import atomic_path
from msfnet_train.network import TABLE_III
from msfnet_train.recipe import Recipe
from msfnet_train.run import SUMMARY, TrainReport, is_main_process, train

COLUMNS = ("rel", "rmse", "rmse_pooled", "log10", "delta1", "delta2", "delta3")

HEADINGS = ("", "REL", "RMSE m", "pooled m", "log10", "d1", "d2", "d3", "runs")

PAPER: Mapping[str, tuple[float, float, float, float, float, float]] = MappingProxyType(
    {
        "baseline": (0.21, 0.717, 0.081, 0.693, 0.918, 0.977),
        "usf": (0.197, 0.728, 0.079, 0.704, 0.926, 0.982),
        "usf+cbam_s": (0.189, 0.752, 0.078, 0.713, 0.928, 0.982),
        "usf+eda": (0.176, 0.703, 0.073, 0.737, 0.935, 0.985),
        "usf+eda+batch_loss": (0.173, 0.658, 0.071, 0.748, 0.945, 0.989),
    }
)
"""Table III as printed: REL, RMSE, log10, delta1 to delta3 on NYU's labelled set (795 / 654).

Nobody has verified them with this project. The paper does not say how its RMSE is averaged.
"""


@dataclass(frozen=True)
class AblationReport:
    """Every row's validation after its last epoch, seed by seed."""

    recipe: str
    """The name of the recipe all rows share."""
    protocol: str
    seeds: tuple[int, ...]
    rows: Mapping[str, tuple[DepthSummary, ...]]
    """By the names of :data:`msfnet_train.TABLE_III`."""

    def text(self) -> str:
        """Return the table: means and their spread over the seeds, above the paper's figures."""
        cells = []
        for row, summaries in self.rows.items():
            measured = [_spread([getattr(s, name) for s in summaries]) for name in COLUMNS]
            cells.append((row, *measured, str(len(summaries))))
            rel, rmse, *others = (f"{value:g}" for value in PAPER[row])
            cells.append(("  paper, NYU 795/654", rel, rmse, "", *others, ""))
        head = (
            f"{self.recipe}, protocol {self.protocol}, {next(iter(self.rows.values()))[0].images} "
            f"images, after the last epoch, seeds {', '.join(map(str, self.seeds))}"
        )
        return (
            f"{head}\n{format_table(HEADINGS, cells)}\n"
            "± is the sample standard deviation over the seeds. The paper's figures are its own, "
            "on its own data; nobody has verified them with this project."
        )

    def to_json(self) -> str:
        """Return every run's metrics as JSON."""
        return json.dumps(asdict(self), indent=2)


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.3f}"
    return f"{mean} ±{statistics.stdev(values):.3f}" if len(values) > 1 else mean


def run_ablation(
    recipe: Recipe,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    rows: Sequence[str] = tuple(TABLE_III),
    seeds: Sequence[int] = (0,),
    resume: bool = False,
    skip_bad: bool = False,
    report: Callable[[str], None] = print,
) -> AblationReport:
    """Train rows of Table III from one recipe, each with every seed, and compare them.

    Seed by seed, so that a run that is cut short has whole comparisons.

    Args:
        recipe: what the rows share.
        data: the data set, in the recipe's layout.
        out: folder; every run lands in ``ROW/seed-N``, the comparison in ``ablation.json``.
        rows: names of :data:`msfnet_train.TABLE_III`.
        seeds: of initial weights, order and augmentation.
        resume: keep finished runs and continue the others.
        skip_bad: as :func:`msfnet_train.run.train`.
        report: told a line before each run.

    Raises:
        MsfnetError: an unknown row, no seed, ``out`` holds runs and ``resume`` is off, or as
            :func:`msfnet_train.run.train`.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise MsfnetError("give every seed once, e.g. --seeds 0,1")
    recipes = {row: recipe.ablated(row) for row in rows}
    done: dict[str, list[DepthSummary]] = {row: [] for row in rows}
    for number, seed in enumerate(seeds):
        for place, (row, ablated) in enumerate(recipes.items(), 1):
            run = Path(out) / row / f"seed-{seed}"
            report(f"run {number * len(rows) + place}/{len(seeds) * len(rows)}: {row}, seed {seed}")
            seeded = replace(ablated, trainer=replace(ablated.trainer, seed=seed))
            done[row].append(_run(seeded, data, run, resume, skip_bad).validation)
    result = AblationReport(
        recipe.name,
        recipe.data.protocol,
        tuple(seeds),
        {row: tuple(summaries) for row, summaries in done.items()},
    )
    if is_main_process():
        with atomic_path(Path(out) / "ablation.json") as partial:
            partial.write_text(result.to_json() + "\n", encoding="utf-8")
    return result


def _run(
    recipe: Recipe, data: str | os.PathLike[str], folder: Path, resume: bool, skip_bad: bool
) -> TrainReport:
    """Train one row with one seed, or take or continue what is there."""
    if resume and (folder / SUMMARY).is_file():
        before = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["recipe"]
        if Recipe.from_dict(before, f"of {folder}") == recipe:
            return TrainReport.read(folder)
        raise MsfnetError(f"{folder} is a run of another recipe; choose another folder")
    return train(
        recipe, data, folder, resume=resume and (folder / "last.ckpt").is_file(), skip_bad=skip_bad
    )
