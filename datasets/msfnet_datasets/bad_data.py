"""Opens the samples of a data set, every file of them, and finds those that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from msfnet_datasets.sample import Sample
from msfnet_runtime import MsfnetError
from msfnet_runtime.progress import Progress, silent

_MEDIAN_OF = 4096
"""The median of a map is computed from at least this many pixels, where it has them."""

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class BadSample:
    """A sample that cannot be used."""

    name: str
    """The name of the sample."""
    path: Path
    """The file of its ground truth, or the image where it has none."""
    reason: str
    """The reason in one line, which names the file."""


def find_bad(
    samples: Sequence[Sample], *, workers: int = 0, progress: Progress = silent
) -> list[BadSample]:
    """Return the samples whose image or ground truth cannot be used, in their order.

    These are absent, cut short or undecodable files, depth of another type than declared or of
    another size than its image, depth without any measurement or with a median that contradicts
    its unit, and scans with values that are not finite.

    Args:
        samples: what to open.
        workers: threads; 0: one for each core, eight at most.
        progress: called after every sample.
    """
    opened = open_all(samples, lambda _: None, workers=workers, progress=progress)
    return [found for found in opened if isinstance(found, BadSample)]


def open_all(
    samples: Sequence[Sample],
    use: Callable[[NDArray[np.float32]], _Found],
    *,
    workers: int = 0,
    progress: Progress = silent,
) -> list[_Found | BadSample]:
    """Open every image and its ground truth in threads.

    Args:
        samples: what to open.
        use: called with a good sample's ground truth: (H, W) float32 metres, 0 = none.
        workers: threads; 0: one for each core, eight at most.
        progress: called after every sample.

    Returns:
        For each sample what ``use`` returned, or what is wrong with it.
    """
    threads = workers or min(os.cpu_count() or 1, 8)
    opened: list[_Found | BadSample] = []
    bad = 0
    with ThreadPoolExecutor(threads) as pool:
        try:
            for found in pool.map(lambda sample: _open(sample, use), samples):
                opened.append(found)
                bad += isinstance(found, BadSample)
                progress(len(opened), len(samples), f"{bad} bad")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C opens no further file
            raise
    return opened


def _open(sample: Sample, use: Callable[[NDArray[np.float32]], _Found]) -> _Found | BadSample:
    try:
        height, width, _ = sample.frame().image.shape
        depth = sample.ground_truth((height, width))
    except MsfnetError as error:
        return BadSample(sample.name, sample.depth_path, str(error))
    reason = _contradiction(sample, depth[depth > 0])
    return BadSample(sample.name, sample.depth_path, reason) if reason else use(depth)


def _contradiction(sample: Sample, measured: NDArray[np.float32]) -> str:
    """Return why measured depth (N,) cannot be what the sample declares; empty if it can."""
    if not measured.size:
        return f"{sample.depth_path} has no depth inside its image; remove the frame"
    median = float(np.median(measured[:: max(1, measured.size // _MEDIAN_OF)]))
    nearest, farthest = sample.median_m
    if nearest < median < farthest:
        return ""
    return (
        f"{sample.depth_path}: read as {sample.unit}, the median depth is {median:.3g} m, which is "
        f"not between {nearest:g} and {farthest:g}; convert it, or declare its unit"
    )
