"""Rewrites parts of a network that exporters and engines handle badly, exactly.

Adaptive average pooling to a fixed grid becomes an ordinary pooling where the ratios are whole
numbers, and two constant matrices elsewhere: it is linear and separable. An Up-block that is
followed by a pooling over whole shuffle cells (convolution, pixel shuffle, mean) is one linear
map, and becomes one strided convolution. Everything else is left alone: pixel shuffle exports to
DepthToSpace and the channel minimum to ReduceMin.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msfnet_train.blocks import AdaptiveAveragePool, SubPixelUpsample

Grid = tuple[int, int]
"""(height, width) of a feature map."""


def lower(network: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy of ``network`` for inputs of the example's shape, in evaluation mode.

    Args:
        network: any module with :class:`AdaptiveAveragePool` inside; left as it is.
        example: (N, 3, H, W) float32, run once to learn the grids.
    """
    lowered = copy.deepcopy(network).eval()
    grids = _observe_pools(lowered, example)
    for name, (before, after) in grids.items():
        parent = lowered.get_submodule(name.rpartition(".")[0])
        up = getattr(parent, "up", None)
        if isinstance(up, SubPixelUpsample) and _folds(up.scale, before, after):
            parent.up = fold_up_block(up, before[0] // after[0])
            parent.pool = FixedAveragePool(after, after)
        else:
            setattr(parent, name.rpartition(".")[2], FixedAveragePool(before, after))
    return lowered


def _folds(scale: int, before: Grid, after: Grid) -> bool:
    """Tell whether a pooling averages whole ``scale`` x ``scale`` cells, alike along both axes."""
    factor = before[0] // after[0]
    whole = before == (factor * after[0], factor * after[1])
    return whole and factor % scale == 0


def _observe_pools(network: nn.Module, example: Tensor) -> dict[str, tuple[Grid, Grid]]:
    """Return the input and output grids of every adaptive pooling, by module name."""
    grids: dict[str, tuple[Grid, Grid]] = {}
    handles = [
        module.register_forward_pre_hook(_recorder(grids, name))
        for name, module in network.named_modules()
        if isinstance(module, AdaptiveAveragePool)
    ]
    try:
        with torch.inference_mode():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return grids


def _recorder(
    grids: dict[str, tuple[Grid, Grid]], name: str
) -> Callable[[nn.Module, tuple[Tensor, Grid]], None]:
    def record(module: nn.Module, arguments: tuple[Tensor, Grid]) -> None:
        features, size = arguments
        grids[name] = (features.shape[-2], features.shape[-1]), (int(size[0]), int(size[1]))

    return record


class FixedAveragePool(nn.Module):
    """Adaptive average pooling between two known grids, out of operators every engine has.

    Args:
        before: grid of the input.
        after: grid of the output.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, before: Grid, after: Grid) -> None:
        super().__init__()
        factors = before[0] // after[0], before[1] // after[1]
        self.identity = before == after
        self.pool: nn.AvgPool2d | None = None
        if before == (factors[0] * after[0], factors[1] * after[1]):
            self.pool = nn.AvgPool2d(factors)
        else:
            rows, columns = (pooling_matrix(b, a) for b, a in zip(before, after, strict=True))
            self.register_buffer("rows", torch.from_numpy(rows))
            self.register_buffer("columns", torch.from_numpy(columns.T.copy()))

    def forward(self, features: Tensor, size: Grid) -> Tensor:
        """Average (N, C, *before) to (N, C, *after); ``size`` is known already."""
        if self.identity:
            return features
        if self.pool is not None:
            pooled: Tensor = self.pool(features)
            return pooled
        return torch.matmul(torch.matmul(self.rows, features), self.columns)


def pooling_matrix(before: int, after: int) -> NDArray[np.float32]:
    """Return the (after, before) matrix that averages a line as adaptive pooling does.

    Output i is the mean of inputs floor(i before / after) to ceil((i + 1) before / after).
    """
    matrix = np.zeros((after, before), np.float32)
    for i in range(after):
        start, end = i * before // after, -(-(i + 1) * before // after)
        matrix[i, start:end] = 1 / (end - start)
    return matrix


class FoldedUpBlock(nn.Module):
    """An Up-block and the pooling behind it as one strided convolution."""

    def __init__(self, squeeze: nn.Conv2d, expand: nn.Conv2d) -> None:
        super().__init__()
        self.squeeze = squeeze
        self.expand = expand

    def forward(self, features: Tensor) -> Tensor:
        """Map the features to the pooled grid."""
        output: Tensor = self.expand(self.squeeze(features))
        return output


def fold_up_block(up: SubPixelUpsample, factor: int) -> FoldedUpBlock:
    """Fold the average over ``factor`` x ``factor`` pixels into an Up-block's convolution.

    Pixel shuffle puts channels c r² to c r² + r² - 1 into one r x r cell, so their mean is the
    cell's: the convolution with the mean of those kernels. What remains is an average over
    k x k pixels, k = factor / r: the kernel shifted to all k² places, averaged, at stride k.
    Zero padding is the same at every place, so borders are exact too.

    Args:
        up: the Up-block.
        factor: how far the pooling reduces its output; a multiple of its scale.
    """
    cells = up.scale**2
    with torch.no_grad():
        weight, bias = (
            parameter.reshape(-1, cells, *parameter.shape[1:]).mean(1)
            for parameter in up.expand.parameters()
        )
        stride = factor // up.scale
        out_channels, in_channels, height, width = weight.shape
        kernel = weight.new_zeros(
            out_channels, in_channels, height + stride - 1, width + stride - 1
        )
        for row in range(stride):
            for column in range(stride):
                kernel[:, :, row : row + height, column : column + width] += weight / stride**2
        expand = nn.Conv2d(in_channels, out_channels, kernel.shape[-1], stride=stride, padding=1)
        expand.weight.copy_(kernel)
        expand.bias.copy_(bias)  # type: ignore[union-attr]
    return FoldedUpBlock(up.squeeze, expand)
