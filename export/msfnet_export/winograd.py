"""A 3x3 convolution with a quarter of the multiplications, by Winograd's scheme F(4x4, 3x3).

After Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016). Every tile of
4x4 outputs is interpolated from products at 6x6 points instead of 4x4 times 3x3 products.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from msfnet_export.pooling import Grid

TILE = 4
"""Outputs of one tile along each axis."""

_POINTS = TILE + 2
_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_KERNEL = (
    torch.tensor(
        [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]],
        dtype=torch.float64,
    )
    / 24
)
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    dtype=torch.float64,
)


class WinogradConv(nn.Module):
    """A 3x3 convolution of stride 1 with a zero padding of 1, on one grid.

    Args:
        weight: (O, C, 3, 3).
        bias: (O,), or None.
        grid: (height, width) of input and output.
    """

    transform: Tensor
    kernels: Tensor
    gather: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, grid: Grid) -> None:
        super().__init__()
        dtype, points = weight.dtype, _POINTS**2
        kernels = torch.einsum("ai,ocij,bj->aboc", _KERNEL, weight.detach().double(), _KERNEL)
        self._grid = grid
        self._tiles = tuple(-(-side // TILE) for side in grid)
        self.register_buffer("kernels", kernels.reshape(-1, weight.shape[1], 1, 1).to(dtype))
        self.register_buffer("transform", _both(_INPUT).reshape(points, 1, 6, 6).to(dtype))
        self.register_buffer("gather", _both(_OUTPUT).reshape(TILE**2, points).to(dtype))
        self.register_buffer("bias", None if bias is None else bias.detach().reshape(-1, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, C, *grid) to (N, O, *grid)."""
        images, channels = features.shape[:2]
        (height, width), (rows, columns) = self._grid, self._tiles
        beyond = rows * TILE - height, columns * TILE - width
        planes = features.reshape(images * channels, 1, height, width)
        if any(beyond):
            planes = functional.pad(planes, (0, beyond[1], 0, beyond[0]))
        points = functional.conv2d(planes, self.transform, stride=TILE, padding=1)
        points = points.reshape(images, channels, _POINTS**2, rows * columns).transpose(1, 2)
        points = points.reshape(images, -1, rows, columns)
        products = functional.conv2d(points, self.kernels, groups=_POINTS**2)
        values = torch.matmul(self.gather, products.reshape(images, _POINTS**2, -1))
        values = values.reshape(images, TILE**2, -1, rows * columns).transpose(1, 2)
        whole = functional.pixel_shuffle(values.reshape(images, -1, rows, columns), TILE)
        whole = whole[..., :height, :width]
        return whole if self.bias is None else whole + self.bias


def _both(matrix: Tensor) -> Tensor:
    """Return the transform along both axes: (a, b, i, j)."""
    return torch.einsum("ai,bj->abij", matrix, matrix)
