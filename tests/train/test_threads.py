"""PyTorch's threads sleep while they wait, unless the user has chosen otherwise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_LEFT_OUT = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")


def openmp_settings(statement: str, **variables: str) -> str:
    """Return what OpenMP prints of its settings in a process that runs a statement.

    OpenMP prints them when it is loaded, that is, with the environment of that moment.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
    done = subprocess.run(
        [sys.executable, "-c", statement],
        env={**kept, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_DISPLAY_ENV": "verbose"}
        | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "from msfnet_export import export_network",
        "from msfnet.candidates import model_candidate as m; from pathlib import Path; "
        "Path('x.ckpt').touch(); m(Path('x.ckpt'))",
    ],
)
def test_threads_sleep_while_they_wait(
    statement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever imports torch first, OpenMP is loaded with the passive policy."""
    monkeypatch.chdir(tmp_path)

    settings = openmp_settings(statement)

    assert "GOMP_SPINCOUNT = '0'" in settings


def test_the_users_own_choice_stays() -> None:
    """A spin count in the environment is not overridden."""
    settings = openmp_settings("import msfnet_train", GOMP_SPINCOUNT="777")

    assert "GOMP_SPINCOUNT = '777'" in settings


def test_torch_is_imported_by_the_rooms_that_set_the_policy() -> None:
    """The front door and the lower rooms import torch only through train and export."""
    folders = ("msfnet", "calibration", "benchmarks", "datasets", "runtime")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 100

    found = [
        str(path.relative_to(ROOT))
        for path in sources
        if re.search(r"^\s*(import|from) (torch|timm|lightning)\b", path.read_text("utf-8"), re.M)
    ]

    assert found == ["msfnet/sweep.py"]  # after msfnet_train and msfnet_export
