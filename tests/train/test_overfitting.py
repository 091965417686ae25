"""The network overfits eight real pairs: network, losses and data work together."""

from __future__ import annotations

from pathlib import Path

import pytest

from msfnet_train.recipe import load_recipe
from msfnet_train.run import train


@pytest.mark.slow
def test_the_network_overfits_eight_real_pairs(real_data: Path, tmp_path: Path) -> None:
    """REL falls below 0.05 on the pairs themselves, in evaluation mode under nyu_hu."""
    root = tmp_path / "pairs"
    (root / "data").mkdir(parents=True)
    lines = (real_data / "nyu_mini/data/nyu2_train.csv").read_text().splitlines()
    rows = "".join(f"{lines[i]}\n" for i in range(0, len(lines), len(lines) // 8 + 1))
    for name in ("train", "val"):
        (root / f"data/nyu2_{name}.csv").write_text(rows)
    (root / "data/nyu2_train").symlink_to(real_data / "nyu_mini/data/nyu2_train")
    settings = [
        "trainer.epochs=160",
        "trainer.validate_every=160",
        "trainer.batch_size=8",
        "trainer.workers=0",
        "trainer.average_decay=0.0",
        "optimizer.learning_rate=4e-3",
        "optimizer.weight_decay=0.0",
        *("augmentation.colour_jitter=0", "augmentation.zoom=1", "augmentation.erase=0"),
        *("augmentation.flip=0", "augmentation.channel_permutation=0"),
    ]
    recipe = load_recipe("nyu_mini", settings)

    report = train(recipe, root, tmp_path / "run")

    assert report.validation.images == 8
    assert report.validation.rel < 0.05
