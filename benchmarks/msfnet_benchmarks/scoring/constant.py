"""What a constant depth scores: a model that is no better has learnt nothing from the pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.scoring.metrics import DepthSummary, ScoredPixels

_LOG_RANGE = float(np.log(1e-3)), float(np.log(1e5))
_LOG_BIN = 1e-4
"""Depths are counted in bins of 0.01 %, from 1 mm to 100 km; each bin has its own mean."""


@dataclass(frozen=True)
class ConstantDepth:
    """The best constant depth: one number for every pixel of every image, and its metrics."""

    depth_m: float
    """The constant of the smallest REL on the ground truth that is scored, metres."""
    summary: DepthSummary
    """Its metrics, accurate within 0.01 %."""

    def text(self) -> str:
        """Return it with its REL."""
        return f"a constant depth of {self.depth_m:.3g} m has REL {self.summary.rel:.4f}"


class ConstantAccumulator:
    """Finds the best constant depth of any number of images in little memory."""

    def __init__(self) -> None:
        low, high = _LOG_RANGE
        # By bin of depth: the share of an image's pixels, and that share over their depth.
        self._shares = np.zeros((2, round((high - low) / _LOG_BIN)))
        # By image: pixels, and the means of g, g^2, ln g and (ln g)^2.
        self._images: list[tuple[float, ...]] = []

    def add(self, ground_truth: NDArray[np.floating]) -> None:
        """Count one image's scored ground truth: (N,) metres, at least one, finite and above 0."""
        g, count = ground_truth, self._shares.shape[1]
        log = np.log(g)
        bins = ((log - _LOG_RANGE[0]) / _LOG_BIN).astype(np.intp).clip(0, count - 1)
        for row, weights in enumerate((None, 1 / g)):
            self._shares[row] += np.bincount(bins, weights, count) / g.size
        means = (float(np.mean(v, dtype=np.float64)) for v in (g, g * g, log, log * log))
        self._images.append((g.size, *means))

    def best(self) -> ConstantDepth | None:
        """Return the constant of the smallest mean REL so far; None if nothing was added.

        It is the median of the ground truth with each pixel weighted by 1/g, every image alike.
        """
        if not self._images:
            return None
        share, inverse = self._shares[:, self._shares[0] > 0] / len(self._images)
        depths, total = share / inverse, np.cumsum(inverse)
        constant = float(depths[np.searchsorted(total, total[-1] / 2)])
        against = ScoredPixels(np.full(depths.shape, constant), depths)
        squared = np.square(constant - depths)
        pixels, mean, square, log, log_square = np.array(self._images).T
        variance = np.maximum(0, log_square - log**2)
        within = [float(share @ against.within(1.25**k)) for k in (1, 2, 3)]
        summary = DepthSummary(
            rel=float(share @ np.abs(against.ratio - 1)),
            sq_rel=float(share @ (squared / depths)),
            rmse=float(np.sqrt(np.maximum(0, constant**2 - 2 * constant * mean + square)).mean()),
            rmse_log=float(np.sqrt(np.square(np.log(constant) - log) + variance).mean()),
            log10=float(share @ np.abs(np.log10(against.ratio))),
            silog=float(100 * np.sqrt(variance).mean()),
            delta1=within[0],
            delta2=within[1],
            delta3=within[2],
            pixels=int(pixels.sum()),
            rmse_pooled=float(np.sqrt(share @ squared)),
            images=len(self._images),
        )
        return ConstantDepth(constant, summary)
