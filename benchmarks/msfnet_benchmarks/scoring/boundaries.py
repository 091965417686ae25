"""The F1 score of depth boundaries: how well a prediction keeps the edges of objects.

As Bochkovskii et al. 2024 (Depth Pro, Sec. 4) define it: two neighbouring pixels are parted by an
occluding contour at threshold t where one is more than t times as deep as the other. Precision
and recall compare the directed contours of prediction and ground truth pixel by pixel; F1 is
averaged over ten thresholds from 1.05 to 1.25, each weighted by itself. Here the contours of all
images are counted together, and a pair of pixels counts where both have ground truth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = np.linspace(1.05, 1.25, 10)

_LEVELS = (np.log(THRESHOLDS) + 1e-6).astype(np.float32)
"""Raised by more than the rounding of float32 logarithms: a step of exactly t is no contour."""

_STRIP = 64
"""Rows processed at once, so that their arrays stay in the processor's cache."""


class BoundaryCounts:
    """Counts contours over any number of images in constant memory."""

    def __init__(self) -> None:
        # Contours at each threshold: in both, in the prediction, in the ground truth.
        self._counts = np.zeros((3, THRESHOLDS.size), np.int64)

    def add(
        self,
        *,
        prediction: NDArray[np.floating],
        ground_truth: NDArray[np.floating],
        valid: NDArray[np.bool_],
    ) -> None:
        """Count the contours of one image: (H, W) metres, and where both are compared."""
        rows = valid.shape[0]
        for top in range(0, rows, _STRIP):
            strip = slice(top, top + _STRIP + 1)  # one row shared with the next strip
            self._add_strip(prediction[strip], ground_truth[strip], valid[strip])

    def _add_strip(
        self,
        prediction: NDArray[np.floating],
        ground_truth: NDArray[np.floating],
        valid: NDArray[np.bool_],
    ) -> None:
        y, g = (
            np.log(np.where(valid, depth, 1), dtype=np.float32)
            for depth in (prediction, ground_truth)
        )
        own = min(_STRIP, valid.shape[0])
        for earlier, later in (
            (np.s_[:own, :-1], np.s_[:own, 1:]),
            (np.s_[:-1], np.s_[1:]),
        ):
            both = valid[earlier] & valid[later]
            self._add_steps(y[later] - y[earlier], g[later] - g[earlier], both)

    def _add_steps(
        self, y: NDArray[np.float32], g: NDArray[np.float32], both: NDArray[np.bool_]
    ) -> None:
        """Count the steps of log depth from pixel to neighbour; most are below any threshold."""
        steep = both & (np.maximum(np.abs(y), np.abs(g)) > _LEVELS[0])
        y, g = y[steep], g[steep]
        y_level, g_level = (np.searchsorted(_LEVELS, np.abs(step)) for step in (y, g))
        shared = np.where(np.sign(y) == np.sign(g), np.minimum(y_level, g_level), 0)
        for row, level in enumerate((shared, y_level, g_level)):
            reached = np.bincount(level, minlength=THRESHOLDS.size + 1)
            self._counts[row] += reached[::-1].cumsum()[-2::-1]

    def f1(self) -> float | None:
        """Return the weighted F1 over the thresholds; None where the ground truth has no contour.

        2 P R / (P + R) with P = both / predicted and R = both / true is 2 both / (predicted +
        true).
        """
        both, predicted, true = self._counts
        if not true[0]:
            return None
        scores = 2 * both / np.maximum(predicted + true, 1)
        return float(np.average(scores, weights=THRESHOLDS))
