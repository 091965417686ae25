"""Passes for processors, which repay fewer multiplications where GPUs repay fewer bytes moved."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from msfnet_export.pooling import Grid
from msfnet_export.winograd import WinogradConv
from msfnet_train.blocks import DecoderBlock

_CHANNELS = 128
"""Fewer in or out do not repay Winograd's transforms."""

_SHARE = 0.5
"""Of the multiplications of a resized map's convolution: more do not repay the matrices."""


class CheapDecoderBlock(nn.Module):
    """A decoder block that answers alike with fewer multiplications, between two known grids.

    Args:
        block: what to answer like.
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
            conv = _sliced(conv, own)
        self.first = _cheap(conv, grid, winograd)
        self.second = _cheap(block.second.conv, grid, winograd)
        self.activation = block.first.activation

    def forward(self, below: Tensor, *skips: Tensor) -> Tensor:
        """(N, in, *below) and skips (N, C_i, *grid) to (N, out, *grid)."""
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
) -> None:
    """Replace decoder blocks by ones of fewer multiplications.

    Requires: inputs of the size the grids were observed at. Ensures: equal answers, borders
    included.
    """
    resizing, winograd = (name not in without for name in ("resizing", "winograd"))
    for name, block in list(network.named_modules()):
        if isinstance(block, DecoderBlock) and (resizing or winograd):
            parent, _, own = name.rpartition(".")
            cheap = CheapDecoderBlock(block, *grids[name], resizing=resizing, winograd=winograd)
            setattr(network.get_submodule(parent), own, cheap.requires_grad_(False))


def _resizing_pays(outputs: int, channels: int, before: Grid, after: Grid) -> bool:
    """Compare multiplications of a convolution of a resized map with the other way's."""
    (height, width), (rows, columns) = before, after
    apart = 9 * channels * height * width + 9 * height * columns * (width + rows)
    return outputs * apart < _SHARE * 9 * channels * rows * columns * outputs


def _shifted(before: int, after: int) -> Tensor:
    """Return (3, after, before): resizing a line, seen by each tap of a 3-tap kernel."""
    line = torch.eye(before, dtype=torch.float64)[None]
    resize = functional.interpolate(line, size=after, mode="linear", align_corners=False)[0].T
    padded = functional.pad(resize, (0, 0, 1, 1))
    return torch.stack([padded[tap : tap + after] for tap in range(3)])


def _sliced(conv: nn.Conv2d, start: int) -> nn.Conv2d:
    """Return the convolution of the input's channels from ``start`` on."""
    sliced = nn.Conv2d(
        conv.in_channels - start, conv.out_channels, 3, padding=1, dtype=conv.weight.dtype
    )
    with torch.no_grad():
        sliced.weight.copy_(conv.weight[:, start:])
        if conv.bias is not None and sliced.bias is not None:
            sliced.bias.copy_(conv.bias)
    return sliced


def _cheap(conv: nn.Conv2d, grid: Grid, winograd: bool) -> nn.Module:
    if winograd and min(conv.in_channels, conv.out_channels) >= _CHANNELS:
        return WinogradConv(conv.weight, conv.bias, grid)
    return conv
