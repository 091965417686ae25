"""What all rooms' tests share: real data, small models, images that are not flat."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest_plugins = ["tests.networks"]


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """Undo what a shell does to commands in the background, whose children would inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real frames, which no repository may carry."""
    folder = Path(os.environ.get("MSFNET_REAL_DATA", Path(__file__).parents[2] / "shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MSFNET_REAL_DATA to its folder")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a seeded generator."""
    return np.random.default_rng(2026)


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    """Return a (97, 131, 3) uint8 image with gradients, edges and texture; odd on both sides."""
    rows, columns = np.mgrid[0:97, 0:131]
    channels = [
        rows * 2 % 256,
        (128 + 100 * np.sin(columns / 7.0)).astype(int),
        np.where((rows // 16 + columns // 16) % 2, 220, 30),
    ]
    return np.stack(channels, axis=-1).astype(np.uint8)
