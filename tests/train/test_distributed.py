"""Several processes train like one process with the global batch."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from multiprocessing import Manager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import distributed
from torch.multiprocessing.spawn import spawn

from msfnet_train.losses import LossConfig, MSFNetLoss
from tests.train.datasets import write_nyu

ROOT = Path(__file__).parents[2]


def run_script(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start one of this folder's scripts in a new Python process."""
    paths = [ROOT, *(ROOT / room for room in ("runtime", "benchmarks", "train"))]
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name(script)), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def losses(folder: Path) -> list[float]:
    """Return the logged training loss of every step."""
    with (folder / "csv/metrics.csv").open() as file:
        rows = [row["train/loss"] for row in csv.DictReader(file)]
    return [float(loss) for loss in rows if loss]


@pytest.mark.slow
def test_two_processes_of_four_pairs_train_like_one_of_eight(tmp_path: Path) -> None:
    """The weights after two steps are equal, as the softmax of Eq. 4 is over the global batch."""
    data = write_nyu(tmp_path / "data set")
    for processes in (1, 2):
        script = run_script(
            "two_processes.py", str(processes), str(data), str(tmp_path / f"run{processes}")
        )
        answer, errors = script.communicate(timeout=240)
        assert script.returncode == 0, errors
        assert len(answer.splitlines()) == 1, "only the first process prints"

    ends = [
        torch.load(tmp_path / f"run{n}/last.ckpt", weights_only=True)["state_dict"] for n in (1, 2)
    ]
    # Instance norm removes this bias, so its gradient is rounding error, which Adam amplifies.
    idle = "network.usf.rdr.appearance.horizontal.bias"
    changed = 0
    for name, value in ends[0].items():
        if name == idle:
            continue
        torch.testing.assert_close(ends[1][name], value, rtol=1e-5, atol=1e-5)
        changed += value.is_floating_point()
    assert changed > 50


def share_of_loss(
    rank: int, batch: list[NDArray[np.float32]], file: str, results: dict[int, NDArray[np.float32]]
) -> None:
    """Compute one process's loss and its gradient on half of a batch."""
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    prediction, target, valid = (torch.from_numpy(part[rank::2]) for part in batch)
    prediction.requires_grad_()
    terms = MSFNetLoss(LossConfig(batch_weight=1.0, dynamic_range=10.0))(
        prediction, (prediction * 1.5,), target, valid > 0
    )
    terms["loss"].backward()  # type: ignore[no-untyped-call]
    assert prediction.grad is not None
    results[rank] = np.concatenate([[terms["loss"].item()], prediction.grad.numpy().ravel()])
    distributed.destroy_process_group()


def test_the_mean_of_the_processes_losses_is_the_global_loss(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    """Loss and gradient agree although the halves have different numbers of valid pixels."""
    prediction, target = (rng.uniform(1, 9, (8, 1, 24, 32)).astype(np.float32) for _ in range(2))
    valid = rng.random((8, 1, 24, 32)) < np.linspace(0.2, 1, 8)[:, None, None, None]
    valid[:, :, :14, :14] = True  # some whole windows for SSIM
    batch = [prediction, target, valid.astype(np.float32)]
    with Manager() as manager:
        shared = manager.dict()
        spawn(  # type: ignore[no-untyped-call]
            share_of_loss, args=(batch, str(tmp_path / "meet"), shared), nprocs=2
        )
        halves = [shared[0], shared[1]]

    whole = torch.from_numpy(prediction).requires_grad_()
    terms = MSFNetLoss(LossConfig(batch_weight=1.0, dynamic_range=10.0))(
        whole, (whole * 1.5,), torch.from_numpy(target), torch.from_numpy(valid)
    )
    terms["loss"].backward()  # type: ignore[no-untyped-call]
    assert whole.grad is not None
    assert np.mean([half[0] for half in halves]) == pytest.approx(terms["loss"].item(), rel=1e-5)
    for rank, half in enumerate(halves):
        expected = whole.grad.numpy()[rank::2]
        # DDP averages the gradients: each process contributes half of its own.
        np.testing.assert_allclose(half[1:].reshape(expected.shape) / 2, expected, atol=1e-6)


def test_a_killed_run_can_be_resumed(tmp_path: Path) -> None:
    """After SIGKILL in the second epoch it ends with the weights of an uninterrupted run."""
    data = write_nyu(tmp_path / "data set")
    whole = run_script("one_process.py", str(data), str(tmp_path / "whole"))
    assert whole.wait(timeout=120) == 0
    cut = run_script("one_process.py", str(data), str(tmp_path / "cut"), "slowly")
    until = time.monotonic() + 60
    while not (tmp_path / "cut/last.ckpt").exists() and time.monotonic() < until:
        time.sleep(0.02)
    cut.send_signal(signal.SIGKILL)
    assert cut.wait(timeout=30) == -signal.SIGKILL
    stopped = torch.load(tmp_path / "cut/last.ckpt", weights_only=True)["global_step"]
    assert 0 < stopped < 6

    resumed = run_script("one_process.py", str(data), str(tmp_path / "cut"))
    assert resumed.wait(timeout=120) == 0

    ends = [
        torch.load(tmp_path / f"{name}/last.ckpt", weights_only=True) for name in ("whole", "cut")
    ]
    assert ends[0]["global_step"] == ends[1]["global_step"] == 6
    for name, value in ends[0]["state_dict"].items():
        torch.testing.assert_close(ends[1]["state_dict"][name], value, rtol=1e-4, atol=1e-5)
