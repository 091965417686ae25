"""The rows of Table III differ in what they name only, and are compared over seeds."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from msfnet_runtime import MsfnetError
from msfnet_train import load_checkpoint
from msfnet_train.ablation import PAPER, AblationReport, run_ablation
from msfnet_train.network import TABLE_III
from tests.train.datasets import nyu_recipe, write_nyu

ROWS = ("baseline", "usf+eda+batch_loss")

Ablation = tuple[Path, AblationReport, list[tuple[int, int, str]]]
"""Folder of the data and the runs, comparison, and all progress reports."""


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    """Train two rows over two seeds for an epoch each."""
    root = tmp_path_factory.mktemp("ablation")
    write_nyu(root / "data set")
    reports: list[tuple[int, int, str]] = []
    report = run_ablation(
        nyu_recipe(trainer_epochs=1),
        root / "data set",
        root / "out",
        rows=ROWS,
        seeds=(3, 4),
        progress=lambda *report: reports.append(report),
    )
    return root, report, reports


def test_every_row_is_trained_with_every_seed(ablation: Ablation) -> None:
    """Each run has its own folder, and network, loss and seed follow its name."""
    root, report, _ = ablation

    assert [len(report.rows[row]) for row in ROWS] == [2, 2]
    for row in ROWS:
        for seed in (3, 4):
            recipe = load_checkpoint(root / "out" / row / f"seed-{seed}/last.ckpt").recipe
            assert (recipe.ablation, recipe.trainer.seed) == (row, seed)
            usf, attention, batch = TABLE_III[row]
            assert (recipe.network.usf, recipe.network.attention) == (usf, attention)
            assert recipe.loss.batch == batch


def test_progress_names_the_run(ablation: Ablation) -> None:
    """The order is seed by seed; every run reports its two steps with epoch and loss."""
    steps = [report for report in ablation[2] if "loss" in report[2].rpartition(": ")[2]]

    names = [(row, seed) for seed in (3, 4) for row in ROWS]
    assert [step[:2] for step in steps] == [(1, 2), (2, 2)] * 4
    for number, (row, seed) in enumerate(names, 1):
        for _, _, what in steps[2 * number - 2 : 2 * number]:
            assert what.startswith(f"run {number}/4, {row}, seed {seed}: epoch 1/1: loss ")


def test_the_table_shows_mean_and_spread_with_the_papers_figures(ablation: Ablation) -> None:
    """The spread is the sample standard deviation; the paper's figures are called unverified."""
    root, report, _ = ablation
    rels = [s.rel for s in report.rows["baseline"]]
    lines = report.text().splitlines()

    row = next(n for n, line in enumerate(lines) if line.startswith("baseline"))
    assert f"{statistics.fmean(rels):.3f} ±{statistics.stdev(rels):.3f}" in lines[row]
    assert lines[row + 1].split()[-6:] == ["0.21", "0.717", "0.081", "0.693", "0.918", "0.977"]
    assert "nobody has verified" in lines[-1]
    kept = json.loads((root / "out/ablation.json").read_text())
    assert kept["rows"]["baseline"][0]["rel"] == rels[0]


def test_finished_runs_are_kept_when_resumed(ablation: Ablation) -> None:
    """Only the missing seed is trained; the finished run keeps its numbers."""
    root, report, _ = ablation
    before = (root / "out/baseline/seed-3/last.ckpt").stat().st_mtime_ns

    again = run_ablation(
        nyu_recipe(trainer_epochs=1),
        root / "data set",
        root / "out",
        rows=ROWS[:1],
        seeds=(3, 5),
        resume=True,
    )

    assert again.rows["baseline"][0] == report.rows["baseline"][0]
    assert (root / "out/baseline/seed-3/last.ckpt").stat().st_mtime_ns == before
    assert (root / "out/baseline/seed-5/last.ckpt").is_file()


def test_runs_that_cannot_be_compared_are_refused(ablation: Ablation) -> None:
    """Unknown rows, repeated or missing seeds, existing runs, runs of another recipe."""
    root, _, _ = ablation
    recipe, data = nyu_recipe(trainer_epochs=1), root / "data set"
    with pytest.raises(MsfnetError, match=r"'eda'.*baseline"):
        run_ablation(recipe, data, root / "new", rows=("eda",))
    with pytest.raises(MsfnetError, match=r"seeds \[1, 1\]"):
        run_ablation(recipe, data, root / "new", seeds=(1, 1))
    with pytest.raises(MsfnetError, match="already holds a run"):
        run_ablation(recipe, data, root / "out", rows=ROWS, seeds=(3,))
    with pytest.raises(MsfnetError, match="another recipe"):
        run_ablation(
            nyu_recipe(trainer_epochs=2),
            data,
            root / "out",
            rows=ROWS,
            seeds=(3,),
            resume=True,
        )
    assert not (root / "new").exists()


def test_the_papers_table_is_complete() -> None:
    """Five rows of six figures, each row at least as good in REL as the one above it."""
    assert list(PAPER) == list(TABLE_III)
    assert [row[0] for row in PAPER.values()] == sorted(
        (r[0] for r in PAPER.values()), reverse=True
    )
