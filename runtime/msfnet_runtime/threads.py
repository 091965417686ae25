"""Sets how threads of OpenMP, which PyTorch computes with, wait for work (docs/decisions/0003)."""

from __future__ import annotations

import os

_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Environment variables by which a user chooses how the threads wait."""


def sleep_while_waiting() -> None:
    """Let OpenMP's threads sleep while they wait, in this process and in those it starts.

    It works before the first import of torch: OpenMP reads its environment when it is loaded.
    Whatever the user has set stays.
    """
    if not any(name in os.environ for name in _SETTINGS):
        os.environ["OMP_WAIT_POLICY"] = "passive"
