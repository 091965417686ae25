"""Adaptive average pooling out of operators that every engine has."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Grid = tuple[int, int]
"""(height, width) of a feature map."""


class FixedAveragePool(nn.Module):
    """Adaptive average pooling between two known grids, out of operators every engine has.

    Args:
        before: grid of the input.
        after: grid of the output.
        dtype: of the features.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, before: Grid, after: Grid, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        factors = before[0] // after[0], before[1] // after[1]
        self.identity = before == after
        self.whole = before == (factors[0] * after[0], factors[1] * after[1])
        self.pool = nn.AvgPool2d(factors) if self.whole else None
        if not self.whole:
            rows, columns = (pooling_matrix(b, a) for b, a in zip(before, after, strict=True))
            self.register_buffer("rows", torch.from_numpy(rows).to(dtype))
            self.register_buffer("columns", torch.from_numpy(columns.T.copy()).to(dtype))

    def forward(self, features: Tensor, size: Grid) -> Tensor:
        """Average (N, C, *before) to (N, C, *after); ``size`` is known already."""
        if self.identity:
            return features
        if self.pool is not None:
            pooled: Tensor = self.pool(features)
            return pooled
        return torch.matmul(torch.matmul(self.rows, features), self.columns)


def pooling_matrix(before: int, after: int) -> NDArray[np.float64]:
    """Return the (after, before) matrix that averages a line as adaptive pooling does.

    Output i is the mean of inputs floor(i before / after) to ceil((i + 1) before / after).
    """
    matrix = np.zeros((after, before))
    for i in range(after):
        start, end = i * before // after, -(-(i + 1) * before // after)
        matrix[i, start:end] = 1 / (end - start)
    return matrix
