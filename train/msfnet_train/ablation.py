"""Trains the five rows of the paper's ablation (Table III), each with several seeds."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from msfnet_benchmarks.scoring.metrics import HEADINGS, DepthSummary
from msfnet_benchmarks.tables import format_table
from msfnet_runtime import MsfnetError
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.typed import read_json, write_json
from msfnet_train.module import LOGGED_METRICS
from msfnet_train.network import TABLE_III
from msfnet_train.recipe import Recipe
from msfnet_train.run import SUMMARY, Summary, TrainReport, is_main_process, train

COLUMNS = ("", *(HEADINGS[name] for name in LOGGED_METRICS), "runs")

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
    """The validation of every row after its last epoch, one summary per seed."""

    recipe: str
    """The name of the recipe that all rows share."""
    protocol: str
    seeds: tuple[int, ...]
    rows: Mapping[str, tuple[DepthSummary, ...]]
    """The results of each row, by its name in :data:`msfnet_train.TABLE_III`."""

    def text(self) -> str:
        """Return a table of the means and their spread over the seeds, with the paper's figures."""
        cells = []
        for row, summaries in self.rows.items():
            measured = [_spread([getattr(s, name) for s in summaries]) for name in LOGGED_METRICS]
            cells.append((row, *measured, str(len(summaries))))
            rel, rmse, *others = (f"{value:g}" for value in PAPER[row])
            cells.append(("  paper, NYU 795/654", rel, rmse, "", *others, ""))
        images = next(iter(self.rows.values()))[0].images
        return (
            f"{self.recipe}, protocol {self.protocol}, {images} images, after the last epoch, "
            f"seeds {', '.join(map(str, self.seeds))}\n{format_table(COLUMNS, cells)}\n"
            "± is the sample standard deviation over the seeds. The paper's figures are its own, "
            "on its own data; nobody has verified them with this project."
        )


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
    progress: Progress = silent,
) -> AblationReport:
    """Train rows of Table III from one recipe, each with every seed, and compare them.

    All rows are trained with one seed before the next, so that an interrupted run still holds
    complete comparisons.

    Args:
        recipe: what the rows share.
        data: the data set, in the recipe's layout.
        out: folder; every run is written to ``ROW/seed-N``, the comparison to ``ablation.json``.
        rows: names of :data:`msfnet_train.TABLE_III`.
        seeds: seeds of the initial weights, the order of the data and the augmentation.
        resume: keep finished runs and continue the others.
        skip_bad: as for :func:`msfnet_train.run.train`.
        progress: called as :func:`msfnet_train.run.train` calls it, for one run after the other;
            the text names the run.

    Raises:
        MsfnetError: an unknown row, no seed or one named twice, ``out`` holds runs and ``resume``
            is off, or as for :func:`msfnet_train.run.train`.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise MsfnetError(
            f"seeds {list(seeds)}: give at least one, and each only once", parameter="seeds"
        )
    recipes = {row: recipe.ablated(row) for row in rows}
    runs = [(seed, row) for seed in seeds for row in recipes]
    done: dict[str, list[DepthSummary]] = {row: [] for row in rows}
    for number, (seed, row) in enumerate(runs, 1):
        seeded = replace(recipes[row], trainer=replace(recipe.trainer, seed=seed))
        folder = Path(out) / row / f"seed-{seed}"
        report = _finished(seeded, folder) if resume else None
        if report is None:
            report = train(
                seeded,
                data,
                folder,
                resume=resume and (folder / "last.ckpt").is_file(),
                skip_bad=skip_bad,
                progress=_prefixed(progress, f"run {number}/{len(runs)}, {row}, seed {seed}: "),
            )
        done[row].append(report.validation)
    summaries = {row: tuple(results) for row, results in done.items()}
    result = AblationReport(recipe.name, recipe.data.protocol, tuple(seeds), summaries)
    if is_main_process():
        write_json(Path(out) / "ablation.json", result)
    return result


def _prefixed(progress: Progress, prefix: str) -> Progress:
    return lambda done, total, what: progress(done, total, prefix + what)


def _finished(recipe: Recipe, folder: Path) -> TrainReport | None:
    """Return the report of a finished run of this recipe, or None if the run is not finished."""
    if not (folder / SUMMARY).is_file():
        return None
    before = read_json(folder / SUMMARY, Summary).recipe
    if Recipe.from_dict(before, f"{folder / SUMMARY}") != recipe:
        raise MsfnetError(f"{folder} holds a run of another recipe; choose another folder")
    return TrainReport.read(folder)
