"""Chooses which frames of a source to calibrate on."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from msfnet_runtime import Frame, MsfnetError
from msfnet_runtime.source import Source


def select_frames(source: Source, count: int, *, seed: int = 0) -> list[Frame]:
    """Return ``count`` frames in the source's order; all of them where there are fewer.

    A source of known length is cut into ``count`` equal stretches and one frame is drawn from
    each, so that slow changes along a drive are all met. Of one of unknown length every frame is
    equally likely (reservoir sampling, Vitter 1985). Only the chosen frames are held.

    Args:
        source: an opened source.
        count: how many frames, at least 1.
        seed: the same seed draws the same frames.

    Raises:
        MsfnetError: the count is not positive, the source is live or has no frames.
    """
    if count < 1:
        raise MsfnetError(f"cannot choose {count} frames; ask for at least 1")
    if source.live:
        raise MsfnetError("a live source cannot be sampled; record it to a video first")
    rng = np.random.default_rng(seed)
    chosen = (
        _reservoir(source, count, rng)
        if source.length is None
        else _stratified(source, source.length, count, rng)
    )
    if not chosen:
        raise MsfnetError("the source has no frames; check the path")
    return chosen


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
