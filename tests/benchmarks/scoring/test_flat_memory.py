"""Memory and misuse: what must stay true however many images there are and whoever calls."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from mypy import api as mypy
from numpy.typing import NDArray

from msfnet_benchmarks.scoring.accuracy import AccuracyAccumulator
from msfnet_benchmarks.scoring.parity import ParityAccumulator
from msfnet_benchmarks.scoring.protocols import PROTOCOLS
from msfnet_benchmarks.scoring.steadiness import measure_flicker
from msfnet_datasets.sample import Sample
from msfnet_runtime import DepthMap, Frame

IMAGES = 10_000


def truth(size: tuple[int, int]) -> NDArray[np.float32]:
    """Return a small map."""
    return np.linspace(5, 60, 24, dtype=np.float32).reshape(4, 6)


@pytest.mark.slow
def test_ten_thousand_images_take_no_more_memory_than_a_thousand(tmp_path: Path) -> None:
    """Only an image's row of results stays, less than a kilobyte; parity and flicker keep none."""
    protocol = PROTOCOLS["kitti_raw_full"]
    sample = Sample("drive/0", tmp_path / "0.png", tmp_path / "0.bin", truth)
    scores, parity = AccuracyAccumulator(protocol), ParityAccumulator(protocol.bins_m)
    depth, everywhere = truth((4, 6)), np.ones((4, 6), np.bool_)
    answers = [DepthMap(depth * np.float32(s), everywhere) for s in (1.0, 1.1)]
    frame = Frame(np.zeros((4, 6, 3), np.uint8))

    def work(images: int) -> None:
        for index in range(images):
            scores.add(sample, answers[index % 2], depth)
            parity.add(candidate=answers[index % 2], reference=answers[0])

    tracemalloc.start()
    try:
        work(IMAGES // 10)
        before = tracemalloc.get_traced_memory()[0]
        work(IMAGES - IMAGES // 10)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.reset_peak()
        start = tracemalloc.get_traced_memory()[0]
        measure_flicker(lambda f: answers[0], (frame for _ in range(IMAGES // 10)))
        flicker_peak = tracemalloc.get_traced_memory()[1] - start
    finally:
        tracemalloc.stop()

    assert scores.report().summary.images == IMAGES
    assert grown / (IMAGES - IMAGES // 10) < 1024
    assert flicker_peak < 100_000


SNIPPET = """
import numpy as np
from msfnet_benchmarks.scoring.alignment import align
from msfnet_benchmarks.scoring.metrics import depth_metrics, scored_pixels
from msfnet_benchmarks.scoring.parity import ParityAccumulator
from msfnet_benchmarks.scoring.protocols import PROTOCOLS
from msfnet_runtime import DepthMap
y, g, v = np.ones((2, 2), np.float32), np.ones((2, 2), np.float32), np.ones((2, 2), np.bool_)
d = DepthMap(y, v)
"""

CACHE = ".mypy_cache"

SWAPPABLE = (
    "depth_metrics(y, g, v)",
    "scored_pixels(y, g, v)",
    "align(y, g, 'median', (1.0, 2.0))",
    "PROTOCOLS['kitti_raw'].score(y, g)",
    "PROTOCOLS['kitti_raw'].pixels(y, g)",
    "ParityAccumulator().add(d, d)",
)


def test_swapped_arguments_do_not_type_check(tmp_path: Path) -> None:
    """Prediction and ground truth have one type, so nothing takes them by position."""
    root = Path(__file__).parents[3]
    snippet = tmp_path / "snippet.py"
    right = "depth_metrics(prediction=y, ground_truth=g, valid=v)"
    snippet.write_text("\n".join([SNIPPET.strip(), right, *SWAPPABLE]) + "\n")
    options = ["--config-file", str(root / "pyproject.toml"), "--cache-dir", str(root / CACHE)]

    printed, complaints, _ = mypy.run([str(snippet), *options])

    assert not complaints
    errors = {int(line.split(":")[1]) for line in printed.splitlines() if ": error: " in line}
    first = len(SNIPPET.strip().splitlines()) + 2
    assert errors == set(range(first, first + len(SWAPPABLE))), printed


@pytest.mark.parametrize("call", SWAPPABLE)
def test_swapped_arguments_do_not_run(call: str) -> None:
    """The call fails even where types are not checked."""
    names: dict[str, object] = {}
    exec(SNIPPET, names)
    with pytest.raises(TypeError, match="positional"):
        exec(call, names)
