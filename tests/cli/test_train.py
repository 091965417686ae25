"""A training that is stopped says what is kept and how it continues."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.train.datasets import write_nyu

SETTINGS = {
    "network.encoder": "mobilenetv3_small_050",
    "network.pretrained": "false",
    "network.decoder_width": "0.0625",
    "data.crop": "[64, 64]",
    "data.inference_size": "[64, 96]",
    "trainer.epochs": "1000",
    "trainer.workers": "1",
    "trainer.batch_size": "4",
}


def stop_training(folder: Path, when: Callable[[], bool], number: int) -> tuple[int, str]:
    """Train in ``folder``, send a signal once ``when`` holds; return status and standard error.

    The signal goes to the whole process group, reading processes too, as a terminal's Ctrl-C does.
    """
    command = [sys.executable, "-m", "msfnet", "train", "nyu_mini", "--data", "data set"]
    for key, value in SETTINGS.items():
        command += ["--set", f"{key}={value}"]
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [*command, "--out", "run"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=errors,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + 200
        while not when() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        os.killpg(process.pid, number)
        try:
            status = process.wait(timeout=100)
        finally:
            process.kill()
    return status, (folder / "errors").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_says_what_is_kept(tmp_path: Path, number: signal.Signals) -> None:
    """One last line; the status is the one that shells give to the signal."""
    write_nyu(tmp_path / "data set")
    last = tmp_path / "run/last.ckpt"

    status, errors = stop_training(tmp_path, last.exists, number)

    assert status == 128 + number, errors
    line = errors.splitlines()[-1]
    assert re.fullmatch(
        r"stopped; run/last\.ckpt holds \d+ of 1000 epochs; .*same command with --resume", line
    ), errors
    assert "Traceback" not in errors


def test_a_training_stopped_in_the_check_of_the_data_has_nothing_to_keep(tmp_path: Path) -> None:
    """The line says so; the same command begins again."""
    write_nyu(tmp_path / "data set")
    begun = (tmp_path / "run/recipe.json").exists

    status, errors = stop_training(tmp_path, begun, signal.SIGINT)

    assert status == 130, errors
    assert errors.splitlines()[-1].startswith("stopped before the first checkpoint"), errors
