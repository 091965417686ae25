"""The rows of Table III are trained alike but for what they name, and compared over seeds."""

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


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AblationReport, list[str]]:
    """Train two rows over two seeds for an epoch each."""
    root = tmp_path_factory.mktemp("ablation")
    write_nyu(root / "data set")
    told: list[str] = []
    report = run_ablation(
        nyu_recipe(trainer_epochs=1),
        root / "data set",
        root / "out",
        rows=ROWS,
        seeds=(3, 4),
        report=told.append,
    )
    return root, report, told


def test_every_row_is_trained_with_every_seed(
    ablation: tuple[Path, AblationReport, list[str]],
) -> None:
    """Each run lies in its own folder and is what its row and seed say."""
    root, report, told = ablation

    assert [len(report.rows[row]) for row in ROWS] == [2, 2]
    assert told[1] == "run 2/4: usf+eda+batch_loss, seed 3"
    for row in ROWS:
        for seed in (3, 4):
            recipe = load_checkpoint(root / "out" / row / f"seed-{seed}/last.ckpt").recipe
            assert (recipe.ablation, recipe.trainer.seed) == (row, seed)
            usf, attention, batch = TABLE_III[row]
            assert (recipe.network.usf, recipe.network.attention) == (usf, attention)
            assert recipe.loss.batch == batch


def test_the_table_has_mean_and_spread_above_the_papers(
    ablation: tuple[Path, AblationReport, list[str]],
) -> None:
    """The sample standard deviation; the paper's figures are named as unverified."""
    root, report, _ = ablation
    rels = [s.rel for s in report.rows["baseline"]]
    lines = report.text().splitlines()

    row = next(n for n, line in enumerate(lines) if line.startswith("baseline"))
    assert f"{statistics.fmean(rels):.3f} ±{statistics.stdev(rels):.3f}" in lines[row]
    assert lines[row + 1].split()[-6:] == ["0.21", "0.717", "0.081", "0.693", "0.918", "0.977"]
    assert "nobody has verified" in lines[-1]
    kept = json.loads((root / "out/ablation.json").read_text())
    assert kept["rows"]["baseline"][0]["rel"] == rels[0]


def test_finished_runs_are_kept_when_resumed(
    ablation: tuple[Path, AblationReport, list[str]],
) -> None:
    """Only the missing seed is trained; the rest gives the same numbers."""
    root, report, _ = ablation
    before = (root / "out/baseline/seed-3/last.ckpt").stat().st_mtime_ns

    again = run_ablation(
        nyu_recipe(trainer_epochs=1),
        root / "data set",
        root / "out",
        rows=ROWS[:1],
        seeds=(3, 5),
        resume=True,
        report=lambda line: None,
    )

    assert again.rows["baseline"][0] == report.rows["baseline"][0]
    assert (root / "out/baseline/seed-3/last.ckpt").stat().st_mtime_ns == before
    assert (root / "out/baseline/seed-5/last.ckpt").is_file()


def test_what_cannot_be_compared_is_refused(
    ablation: tuple[Path, AblationReport, list[str]],
) -> None:
    """Unknown rows, seeds twice, runs that are there, runs of another recipe."""
    root, _, _ = ablation
    recipe, data = nyu_recipe(trainer_epochs=1), root / "data set"
    with pytest.raises(MsfnetError, match="unknown ablation 'eda'; choose one of baseline"):
        run_ablation(recipe, data, root / "new", rows=("eda",))
    with pytest.raises(MsfnetError, match="give every seed once"):
        run_ablation(recipe, data, root / "new", seeds=(1, 1))
    with pytest.raises(MsfnetError, match="holds a run; add --resume"):
        run_ablation(recipe, data, root / "out", rows=ROWS, seeds=(3,), report=lambda line: None)
    with pytest.raises(MsfnetError, match="is a run of another recipe"):
        run_ablation(
            nyu_recipe(trainer_epochs=2),
            data,
            root / "out",
            rows=ROWS,
            seeds=(3,),
            resume=True,
            report=lambda line: None,
        )
    assert not (root / "new").exists()


def test_the_papers_table_is_complete() -> None:
    """Five rows of six figures, each row at least as good in REL as the one above it."""
    assert list(PAPER) == list(TABLE_III)
    assert [row[0] for row in PAPER.values()] == sorted(
        (r[0] for r in PAPER.values()), reverse=True
    )
