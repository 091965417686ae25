"""Chooses which frames of a source to calibrate on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from msfnet_datasets.frame_statistics import FrameStatistics, describe_frame, frame_hash
from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.source import Source

CANDIDATES = 4
"""Candidates for each frame that is chosen by its appearance."""


def select_frames(
    source: Source,
    count: int,
    *,
    seed: int = 0,
    estimator: Callable[[Frame], DepthMap] | None = None,
    progress: Progress = silent,
) -> list[Frame]:
    """Return ``count`` frames in the source's order; all of them where there are fewer.

    A source of known length is cut into ``count`` equal stretches and one frame is drawn from
    each, so that slow changes along a drive are all covered. From a source of unknown length every
    frame is equally likely (reservoir sampling, Vitter 1985). Only chosen frames are in memory.

    With an estimator, four times as many candidates are drawn in this way, and those are kept that
    differ most from each other in image statistics and predicted depth (farthest-point traversal,
    Gonzalez 1985). No image is kept twice, so fewer are returned where candidates are equal. At
    most four times ``count`` frames are in memory, however long the source is.

    Args:
        source: an opened source.
        count: how many frames, at least 1.
        seed: the same seed draws the same frames.
        estimator: predicts a frame's depth; without it frames are drawn blindly.
        progress: called for every candidate that was described.

    Raises:
        MsfnetError: the count is not positive, the source is live or has no frames.
    """
    if count < 1:
        raise MsfnetError(f"cannot choose {count} frames; ask for at least 1")
    if source.live:
        raise MsfnetError("a live source cannot be sampled; record it to a video first")
    rng = np.random.default_rng(seed)
    drawn = _draw(source, count if estimator is None else CANDIDATES * count, rng)
    if not drawn:
        raise MsfnetError("the source has no frames; check the path")
    if estimator is None:
        return drawn
    candidates = list({frame_hash(frame): frame for frame in reversed(drawn)}.values())[::-1]
    if len(candidates) <= count:
        return candidates
    statistics = []
    for done, frame in enumerate(candidates, start=1):
        statistics.append(describe_frame(frame, estimator(frame)))
        progress(done, len(candidates), "frames described")
    return [candidates[index] for index in _spread(_scaled(statistics), count, rng)]


def _draw(source: Source, count: int, rng: np.random.Generator) -> list[Frame]:
    if source.length is None:
        return _reservoir(source, count, rng)
    return _stratified(source, source.length, count, rng)


def _stratified(source: Source, length: int, count: int, rng: np.random.Generator) -> list[Frame]:
    edges = np.linspace(0, length, min(count, length) + 1).astype(int)
    wanted = {int(rng.integers(low, high)) for low, high in pairwise(edges)}
    return [frame for position, frame in enumerate(source) if position in wanted]


def _reservoir(source: Source, count: int, rng: np.random.Generator) -> list[Frame]:
    kept: list[tuple[int, Frame]] = []
    for position, frame in enumerate(source):
        if position < count:
            kept.append((position, frame))
        elif (slot := int(rng.integers(0, position + 1))) < count:
            kept[slot] = (position, frame)
    return [frame for _, frame in sorted(kept, key=lambda pair: pair[0])]


def _scaled(statistics: Sequence[FrameStatistics]) -> NDArray[np.float64]:
    """Return (N, F) features from their medians, in widths of their 5 % to 95 % spans.

    A feature that a frame lacks is at its median.
    """
    figures = [entry.figures() for entry in statistics]
    names = sorted(set().union(*figures))
    table = np.array([[entry.get(name, np.nan) for name in names] for entry in figures])
    low, middle, high = np.nanpercentile(table, (5, 50, 95), axis=0)
    width = np.where(high > low, high - low, 1)
    scaled: NDArray[np.float64] = np.nan_to_num((table - middle) / width)
    return scaled


def _spread(points: NDArray[np.float64], count: int, rng: np.random.Generator) -> list[int]:
    """Return the sorted indices of ``count`` of the (N, F) points, each far from all before it."""
    chosen = [int(rng.integers(len(points)))]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < count:
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return sorted(chosen)
