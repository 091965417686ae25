"""Decoder blocks for CPUs, where fewer MACs save time; on GPUs fewer moved bytes do.

Winograd's scheme F(4x4, 3x3) needs a quarter of the multiplications of a 3x3 convolution: every
tile of 4x4 outputs is interpolated from products at 6x6 points (Lavin and Gray, "Fast Algorithms
for Convolutional Neural Networks", 2016).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from msfnet_export.modules import Grid, conv_like, replace_modules
from msfnet_train.blocks import DecoderBlock

_CHANNELS = 128
"""With fewer channels in or out Winograd's transforms cost more than they save."""

_SHARE = 0.5
"""Largest share of the MACs of a resized map's convolution at which
:class:`ResizedConv` is faster: its matrix products are slower than a convolution."""

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


class CheapDecoderBlock(nn.Module):
    """A decoder block with equal results and fewer MACs, between two known grids.

    Args:
        block: the block to replace.
        below: grid of what comes from below.
        grid: of the skips and the output.
        resizing: multiply what comes from below before resizing it, where that is cheaper.
        winograd: convolve by Winograd's scheme, where that is cheaper.
    """

    def __init__(
        self, block: DecoderBlock, below: Grid, grid: Grid, *, resizing: bool, winograd: bool
    ) -> None:
        super().__init__()
        conv, skips = block.first.conv, block.skip_channels
        own = conv.in_channels - skips
        self._grid = grid
        self.resized = (
            ResizedConv(conv.weight[:, :own], below, grid)
            if resizing and _resizing_pays(conv.out_channels, own, below, grid)
            else None
        )
        if self.resized is not None:
            conv = conv_like(conv, conv.weight[:, own:], conv.bias)
        self.first = _cheap(conv, grid, winograd)
        self.second = _cheap(block.second.conv, grid, winograd)
        self.activation = block.first.activation

    def forward(self, below: Tensor, *skips: Tensor) -> Tensor:
        """Map (N, in, *below) and skips (N, C_i, *grid) to (N, out, *grid)."""
        if self.resized is not None:
            answer = self.first(torch.cat(skips, dim=1)) + self.resized(below)
        else:
            larger = functional.interpolate(
                below, size=self._grid, mode="bilinear", align_corners=False
            )
            answer = self.first(torch.cat([larger, *skips], dim=1))
        output: Tensor = self.activation(self.second(self.activation(answer)))
        return output


class ResizedConv(nn.Module):
    """A 3x3 convolution, zero padding 1, of a map resized bilinearly: both are linear.

    The channels are multiplied on the small grid, into nine maps for every output; two products
    with constant matrices resize, shift and add those.

    Args:
        weight: (O, C, 3, 3).
        before: grid of the input.
        after: grid it is resized to.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, weight: Tensor, before: Grid, after: Grid) -> None:
        super().__init__()
        outputs, channels = weight.shape[:2]
        self._before, self._after, self._outputs = before, after, outputs
        self.multiply = nn.Conv2d(channels, 9 * outputs, 1, bias=False, dtype=weight.dtype)
        with torch.no_grad():
            by_column = weight.permute(0, 3, 2, 1)  # (O, kernel column, kernel row, C)
            self.multiply.weight.copy_(by_column.reshape(9 * outputs, channels, 1, 1))
        rows, columns = (_shifted(b, a) for b, a in zip(before, after, strict=True))
        down = torch.cat(list(rows), dim=1).repeat(1, 3)
        self.register_buffer("rows", down.to(weight.dtype))
        self.register_buffer("columns", columns.transpose(1, 2).contiguous().to(weight.dtype))

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, C, *before) to (N, O, *after)."""
        images, (height, width) = features.shape[0], self._before
        maps = self.multiply(features).reshape(images * self._outputs, 3, 3 * height, width)
        wide = torch.matmul(maps, self.columns)
        wide = wide.reshape(images * self._outputs, 9 * height, self._after[1])
        return torch.matmul(self.rows, wide).reshape(images, self._outputs, *self._after)


def cheapen_decoder(
    network: nn.Module, grids: Mapping[str, tuple[Grid, Grid]], without: Collection[str]
) -> tuple[str, ...]:
    """Replace decoder blocks by ones of fewer MACs; return the names of all replaced.

    Requires: inputs of the size the grids were observed at. Ensures: equal answers, borders
    included.
    """
    resizing, winograd = (name not in without for name in ("resizing", "winograd"))

    def make(name: str, block: DecoderBlock) -> nn.Module | None:
        if not (resizing or winograd):
            return None
        cheap = CheapDecoderBlock(block, *grids[name], resizing=resizing, winograd=winograd)
        return cheap.requires_grad_(False)

    return replace_modules(network, DecoderBlock, make)


def _resizing_pays(outputs: int, channels: int, before: Grid, after: Grid) -> bool:
    """Compare the MACs of convolving a resized map with those of resizing last."""
    (height, width), (rows, columns) = before, after
    apart = 9 * channels * height * width + 9 * height * columns * (width + rows)
    return outputs * apart < _SHARE * 9 * channels * rows * columns * outputs


def _shifted(before: int, after: int) -> Tensor:
    """Return (3, after, before): resizing a line, seen by each tap of a 3-tap kernel."""
    line = torch.eye(before, dtype=torch.float64)[None]
    resize = functional.interpolate(line, size=after, mode="linear", align_corners=False)[0].T
    padded = functional.pad(resize, (0, 0, 1, 1))
    return torch.stack([padded[tap : tap + after] for tap in range(3)])


def _cheap(conv: nn.Conv2d, grid: Grid, winograd: bool) -> nn.Module:
    if winograd and min(conv.in_channels, conv.out_channels) >= _CHANNELS:
        return WinogradConv(conv.weight, conv.bias, grid)
    return conv


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
