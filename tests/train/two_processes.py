"""Trains in as many CPU processes as the first argument says; started by test_distributed.py.

Batch norms keep their running statistics: over half a batch they differ from those over a whole
one, and PyTorch's synchronised batch norm needs GPUs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from msfnet_train.module import DepthModule
from msfnet_train.run import is_main_process, train
from tests.train.datasets import nyu_recipe


def freeze_norms(module: DepthModule) -> None:
    """Put every batch norm into evaluation mode for the epoch."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


def main(processes: int, data: Path, out: Path) -> None:
    """Train one epoch on batches of eight in all."""
    torch.set_num_threads(1)
    DepthModule.on_train_epoch_start = freeze_norms  # type: ignore[assignment,method-assign]
    recipe = nyu_recipe(
        trainer_devices=processes,
        trainer_batch_size=8 // processes,
        trainer_epochs=2,
        loss_batch_weight=1.0,
        optimizer_learning_rate=1e-3,
    )
    report = train(recipe, data, out)
    if is_main_process():
        print(f"{report.validation.rel:.6f} {report.images_per_second > 0}")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
