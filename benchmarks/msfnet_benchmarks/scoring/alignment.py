"""Alignment of a prediction to the ground truth of its own image; results are labelled with it.

Models of relative depth need it to be scored at all, and many papers apply it to metric ones.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime import MsfnetError

Alignment = Literal["median", "least_squares", "least_squares_inverse"]
"""``median``: times the ratio of the medians (Zhou et al. 2017). ``least_squares``: scale and
shift of depth. ``least_squares_inverse``: scale and shift of 1 / depth (Ranftl et al. 2022)."""


def align(
    *,
    prediction: NDArray[np.floating],
    ground_truth: NDArray[np.floating],
    how: Alignment,
    range_m: tuple[float, float],
) -> NDArray[np.float64]:
    """Fit the scored pixels of a prediction to their ground truth.

    Args:
        prediction: (N,) metres, above 0.
        ground_truth: (N,) metres, above 0.
        how: what is fitted.
        range_m: the result is confined to it, metres: a fit with a shift may fall below 0.

    Returns:
        (N,) metres.

    Raises:
        MsfnetError: a least-squares fit to a flat prediction.
    """
    y, g = prediction.astype(np.float64), ground_truth.astype(np.float64)
    if how == "median":
        return np.clip(y * (np.median(g) / np.median(y)), *range_m)
    if how == "least_squares":
        return np.clip(_fitted(y, g), *range_m)
    low, high = range_m
    return np.asarray(1 / np.clip(_fitted(1 / y, 1 / g), 1 / high, 1 / low))


def _fitted(x: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scale * x + shift, the closest to target in the least-squares sense."""
    centred = x - x.mean()
    spread = float(centred @ centred)
    if spread <= 1e-12 * float(x @ x):
        raise MsfnetError("a flat prediction has no scale to fit; align by median")
    scale = float(centred @ (target - target.mean())) / spread
    return np.asarray(scale * centred + target.mean())
