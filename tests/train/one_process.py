"""Trains three epochs, or continues them; started and killed by test_distributed.py."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from msfnet_train.run import train
from tests.train.datasets import nyu_recipe


def main(data: Path, out: Path, *, slowly: bool) -> None:
    """Train, slowly if asked to, so that the test has time to kill the process."""
    torch.set_num_threads(1)

    def progress(done: int, total: int, what: str) -> None:
        time.sleep(0.5 if slowly and "loss" in what else 0)

    recipe = nyu_recipe(trainer_epochs=3)
    train(recipe, data, out, resume=(out / "last.ckpt").is_file(), progress=progress)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), slowly="slowly" in sys.argv[3:])
