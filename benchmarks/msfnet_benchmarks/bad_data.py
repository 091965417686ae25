"""Finds the samples of a data set that cannot be used, by opening every file once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from msfnet_benchmarks.sample import Sample
from msfnet_runtime import MsfnetError
from msfnet_runtime.progress import Progress, silent


@dataclass(frozen=True)
class BadSample:
    """A sample that cannot be used."""

    name: str
    """The sample's."""
    path: Path
    """Of its ground truth."""
    reason: str
    """In one line, which names the file at fault."""


def find_bad(
    samples: Sequence[Sample], *, workers: int = 0, progress: Progress = silent
) -> list[BadSample]:
    """Return the samples whose image or ground truth cannot be used, in their order.

    These are absent, cut short or undecodable files, depth of another type than declared or of
    another size than its image, depth without any measurement, scans with values that are none.

    Args:
        samples: what to open.
        workers: threads; 0: one for each core, eight at most.
        progress: told after every sample.
    """
    threads = workers or min(os.cpu_count() or 1, 8)
    bad = []
    with ThreadPoolExecutor(threads) as pool:
        for done, found in enumerate(pool.map(_find, samples), 1):
            if found is not None:
                bad.append(found)
            progress(done, len(samples), f"{len(bad)} bad")
    return bad


def _find(sample: Sample) -> BadSample | None:
    try:
        height, width, _ = sample.frame().image.shape
        if (sample.ground_truth((height, width)) > 0).any():
            return None
        reason = f"{sample.depth_path} gives its image no depth; remove the frame"
    except MsfnetError as error:
        reason = str(error)
    return BadSample(sample.name, sample.depth_path, reason)
