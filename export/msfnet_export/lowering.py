"""Passes over a network that replace what exporters and engines handle badly, exactly.

Every pass states what it requires and what it ensures, rewrites only where its requirement holds,
computes new weights in float64, and returns the names of the modules that it replaced. What needs
no pass: pixel shuffle exports as DepthToSpace in CRD mode, the channel's mean, minimum and maximum
as one reduction each. Batch norm is folded in the exported graph, see
:mod:`msfnet_export.graph_passes`.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional

from msfnet_export.cpu_decoder import cheapen_decoder
from msfnet_export.export_options import PASSES, RUNS_ON, Pass, RunsOn
from msfnet_export.modules import FixedAveragePool, Grid, conv_like, hooked, replace_modules
from msfnet_runtime import MsfnetError
from msfnet_train.blocks import AdaptiveAveragePool, DecoderBlock, SubPixelUpsample

Grids = dict[str, tuple[Grid, Grid]]
"""Input and output grid of every adaptive pooling, Up-block and decoder block, by module name."""


def lower(
    network: nn.Module,
    example: Tensor,
    *,
    without: Collection[Pass] = (),
    any_size: bool = False,
    runs_on: RunsOn = "any",
) -> nn.Module:
    """Return a copy of ``network`` for inputs of the example's shape, in evaluation mode.

    Args:
        network: any module with the blocks of :mod:`msfnet_train.blocks` inside; left as it is.
        example: (N, 3, H, W), of the network's type, run once to learn the grids.
        without: passes to leave out.
        any_size: for every input whose sides are multiples of 32, not the example's alone.
        runs_on: ``cpu``: with the passes for CPUs; for the example's size alone.

    Raises:
        MsfnetError: an unknown pass or target, or ``any_size`` and a pooling whose ratio is not a
            whole number.
    """
    if runs_on not in RUNS_ON:
        raise MsfnetError(f"unknown target {runs_on!r}; choose {', '.join(RUNS_ON)}")
    for name in without:
        if name not in PASSES:
            raise MsfnetError(f"unknown pass {name!r}; choose {', '.join(PASSES)}")
    lowered = copy.deepcopy(network).eval()
    grids = observe_grids(lowered, example)
    if any_size:
        double_in_decoder(lowered)
    if "up-blocks" not in without:
        fold_up_blocks(lowered, grids)
    if "convolutions" not in without:
        merge_convolutions(lowered, grids, any_size)
    if "adaptive-pooling" not in without:
        fix_pools(lowered, grids, any_size)
    if runs_on == "cpu":
        cheapen_decoder(lowered, grids, without)
    return lowered


def observe_grids(network: nn.Module, example: Tensor) -> Grids:
    """Return the grids that a network's poolings, Up-blocks and decoder blocks see."""
    grids: Grids = {}

    def record(name: str, features: Tensor, output: Tensor) -> None:
        (height, width), (rows, columns) = features.shape[-2:], output.shape[-2:]
        grids[name] = (int(height), int(width)), (int(rows), int(columns))

    kinds = AdaptiveAveragePool, SubPixelUpsample, DecoderBlock
    names = [name for name, module in network.named_modules() if isinstance(module, kinds)]
    with hooked(network, names, record), torch.inference_mode():
        network(example)
    return grids


def double_in_decoder(network: nn.Module) -> tuple[str, ...]:
    """Let the decoder double grids instead of resizing to the skip's.

    Requires: every side of the input is a multiple of 32, so that a skip's grid is twice the one
    below. Ensures: equal answers, and a graph that names no size.
    """
    return replace_modules(network, DecoderBlock, lambda name, block: DoublingBlock(block))


class DoublingBlock(nn.Module):
    """A decoder block whose skips are exactly twice as large as its input from below."""

    def __init__(self, block: DecoderBlock) -> None:
        super().__init__()
        self.first, self.second = block.first, block.second

    def forward(self, below: Tensor, *skips: Tensor) -> Tensor:
        """Map (N, in, h, w) and skips (N, C_i, 2h, 2w) to (N, out, 2h, 2w)."""
        doubled = functional.interpolate(
            below, scale_factor=2.0, mode="bilinear", align_corners=False
        )
        output: Tensor = self.second(self.first(torch.cat([doubled, *skips], dim=1)))
        return output


def fold_up_blocks(network: nn.Module, grids: Grids) -> tuple[str, ...]:
    """Fold the pooling behind an Up-block into its convolution.

    Requires: the pooling reduces both sides by one factor, a multiple of the Up-block's scale.
    Ensures: equal answers; of convolution, shuffle and pooling one strided convolution is left,
    and the pooling's grids are equal.
    """

    def make(name: str, up: SubPixelUpsample) -> nn.Module | None:
        parent, _, own = name.rpartition(".")
        before, after = grids.get(f"{parent}.pool", ((0, 0), (1, 1)))
        if own != "up" or not _folds(up.scale, before, after):
            return None
        grids[f"{parent}.pool"] = after, after
        return fold_up_block(up, before[0] // after[0])

    return replace_modules(network, SubPixelUpsample, make)


def _folds(scale: int, before: Grid, after: Grid) -> bool:
    """Tell whether a pooling averages whole ``scale`` x ``scale`` cells, alike along both axes."""
    factor = before[0] // after[0]
    return factor > 0 and factor % scale == 0 and before == (factor * after[0], factor * after[1])


class FoldedUpBlock(nn.Module):
    """An Up-block and the pooling behind it: a 1x1 convolution and a strided one."""

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
    weight, bias = (
        parameter.detach().double().reshape(-1, up.scale**2, *parameter.shape[1:]).mean(1)
        for parameter in up.expand.parameters()
    )
    stride = factor // up.scale
    channels, height, width = weight.shape[0], weight.shape[-2], weight.shape[-1]
    shape = channels, weight.shape[1], height + stride - 1, width + stride - 1
    kernel = weight.new_zeros(shape)
    for row in range(stride):
        for column in range(stride):
            kernel[:, :, row : row + height, column : column + width] += weight / stride**2
    return FoldedUpBlock(up.squeeze, conv_like(up.expand, kernel, bias, stride))


def merge_convolutions(network: nn.Module, grids: Grids, any_size: bool = False) -> tuple[str, ...]:
    """Merge an Up-block's 1x1 convolution with the convolution behind it.

    Requires: the merged convolution is the cheaper one, which it is where the stage has fewer
    channels than the Up-block is wide; with ``any_size``, also that the first has no bias.
    Ensures: equal answers, borders included. Behind zero padding the first convolution's bias is
    no bias but a map that falls off along the border; it is added as a constant.
    """

    def make(name: str, up: SubPixelUpsample | FoldedUpBlock) -> nn.Module | None:
        unbiased = up.squeeze.bias is None or not bool(up.squeeze.bias.any())
        if _merging_pays(up.squeeze, up.expand) and (unbiased or not any_size):
            up.expand = merge_pair(up.squeeze, up.expand, grids[name][0])  # type: ignore[assignment]
            up.squeeze = nn.Identity()  # type: ignore[assignment]
            return up
        return None

    whole = replace_modules(network, SubPixelUpsample, make)
    return whole + replace_modules(network, FoldedUpBlock, make)


def _merging_pays(first: nn.Conv2d, second: nn.Conv2d) -> bool:
    """Compare the MACs at one pixel of the input, merged and apart."""
    taps = second.out_channels * second.kernel_size[0] * second.kernel_size[1]
    per_channel = taps / (second.stride[0] * second.stride[1])
    apart = first.out_channels * (first.in_channels + per_channel)
    return first.in_channels * per_channel < apart


def merge_pair(first: nn.Conv2d, second: nn.Conv2d, grid: Grid) -> nn.Module:
    """Return one convolution that does what a 1x1 convolution and the next one do.

    Args:
        first: 1x1, neither strided nor padded nor grouped.
        second: any kernel, stride and zero padding; not grouped.
        grid: of the input.
    """
    weight = torch.einsum(
        "omhw,mc->ochw",
        second.weight.detach().double(),
        first.weight.detach().double()[:, :, 0, 0],
    )
    if first.bias is None or not first.bias.any():
        return conv_like(second, weight, second.bias, second.stride[0])
    with torch.no_grad():
        nothing = first.weight.new_zeros(1, first.in_channels, *grid)
        answer = copy.deepcopy(second).double()(copy.deepcopy(first).double()(nothing.double()))
    conv = conv_like(second, weight, None, second.stride[0])
    return OffsetConv(conv, answer.to(second.weight.dtype))


class OffsetConv(nn.Module):
    """A convolution and a constant map (1, C, H, W) added to it."""

    offset: Tensor

    def __init__(self, conv: nn.Conv2d, offset: Tensor) -> None:
        super().__init__()
        self.conv = conv
        self.register_buffer("offset", offset)

    def forward(self, features: Tensor) -> Tensor:
        """Convolve and add."""
        output: Tensor = self.conv(features) + self.offset
        return output


def fix_pools(network: nn.Module, grids: Grids, any_size: bool = False) -> tuple[str, ...]:
    """Replace adaptive poolings by what every engine has.

    Requires: inputs of the size the grids were observed at; with ``any_size``, whole ratios.
    Ensures: equal answers; nothing, one AveragePool, or two products with constant matrices.

    Raises:
        MsfnetError: ``any_size``, and a ratio that is not a whole number.
    """
    dtype = next(network.parameters()).dtype

    def make(name: str, pool: AdaptiveAveragePool) -> nn.Module:
        before, after = grids[name]
        fixed = FixedAveragePool(before, after, dtype)
        if any_size and not fixed.whole:
            raise MsfnetError(
                f"{name} pools {before} to {after}, which is not a whole ratio, so the graph "
                "cannot serve several sizes; keep the size fixed",
                parameter="dynamic",
            )
        return fixed

    return replace_modules(network, AdaptiveAveragePool, make)
