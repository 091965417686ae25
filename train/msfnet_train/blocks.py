"""The blocks of MSFNet: EDA attention, Up-blocks, USF, RDR and the decoder block.

Equation and section numbers are those of "MSFNet: Multi-scale features network for monocular
depth estimation". Every tensor is float32 (N, C, H, W) unless stated otherwise. Exported graphs
take their node names from the attribute names here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAKY_SLOPE = 0.2
"""Negative slope of Leaky ReLU, alpha in Eq. 1."""


class ConvBlock(nn.Sequential):
    """3x3 convolution and Leaky ReLU (Eq. 1): (N, in, H, W) to (N, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.activation = nn.LeakyReLU(LEAKY_SLOPE)


class ChannelPooling(nn.Module):
    """Pools the channels at every pixel into two maps: (N, C, H, W) to (N, 2, H, W).

    Returns ``[avg - min ; max - min]`` of Eq. 2 if ``minimum`` is set, else CBAM-S's
    ``[avg ; max]``.
    """

    def __init__(self, minimum: bool) -> None:
        super().__init__()
        self.minimum = minimum

    def forward(self, features: Tensor) -> Tensor:
        """Pool over the channel axis."""
        average = features.mean(dim=1, keepdim=True)
        maximum = features.amax(dim=1, keepdim=True)
        if self.minimum:
            minimum = features.amin(dim=1, keepdim=True)
            average, maximum = average - minimum, maximum - minimum
        return torch.cat([average, maximum], dim=1)


class EnhancedDiverseAttention(nn.Module):
    """EDA, Eq. 2: ``sigmoid(conv7x7([avg - min ; max - min])) * X``; the shape does not change.

    Args:
        channels: C.
        projection: apply a linear 1x1 convolution and batch norm before the pools; X in Eq. 2 is
            then their output. timm's stages end in a ReLU, so the channel minimum of their raw
            output is 0 almost everywhere, and EDA would compute the same as CBAM-S.
        minimum: subtract the channel minimum; without it this is CBAM-S.
    """

    def __init__(self, channels: int, projection: bool = True, minimum: bool = True) -> None:
        super().__init__()
        self.projection: nn.Module = nn.Identity()
        if projection:
            self.projection = nn.Sequential(
                nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
            )
        self.pooling = ChannelPooling(minimum)
        self.attention = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, features: Tensor) -> Tensor:
        """Multiply every pixel of the features by its attention weight."""
        features = self.projection(features)  # signed, so that the minimum carries information
        return torch.sigmoid(self.attention(self.pooling(features))) * features


class SubPixelUpsample(nn.Module):
    """Up-block of Sec. III-C after ESPCN: (N, in, H, W) to (N, width, scale H, scale W).

    A 1x1 convolution to ``width``, a 3x3 convolution to ``width * scale**2`` and a pixel shuffle,
    without activations, as in ESPCN's sub-pixel layer. The initial weights make it upsample by
    nearest neighbour (ICNR, Aitken et al. 2017), which avoids checkerboard patterns.
    """

    def __init__(self, in_channels: int, width: int, scale: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, width, 1)
        self.expand = nn.Conv2d(width, width * scale**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(scale)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Upsample the features by ``scale``."""
        shuffled: Tensor = self.shuffle(self.expand(self.squeeze(features)))
        return shuffled

    def initialise(self) -> None:
        """Give the ``scale**2`` filters of every output channel the same weights (ICNR).

        The pixel shuffle spreads these filters over one cell of scale x scale output pixels, so
        equal filters give equal pixels.
        """
        with torch.no_grad():
            weight = self.expand.weight
            first = torch.empty_like(weight[:: self.scale**2])
            nn.init.xavier_uniform_(first)
            weight.copy_(first.repeat_interleave(self.scale**2, dim=0))
            nn.init.zeros_(self.expand.bias)  # type: ignore[arg-type]  # it is built with a bias


class AdaptiveAveragePool(nn.Module):
    """Adaptive average pooling to a (height, width) grid; the identity where the sizes are equal.

    This is a separate module so that the export stage can replace it by an exact equivalent.
    """

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Average (N, C, H, W) over the cells of a (height, width) grid."""
        if features.shape[-2:] == size:
            return features
        return functional.adaptive_avg_pool2d(features, size)


class ReducedDimensionRefinement(nn.Module):
    """RDR of Fig. 4: (N, in, H, W) to (N, out, H, W).

    A 1x1 convolution, then two branches: the first half of the channels passes a 3x1 and a 1x3
    convolution and instance norm (appearance), the second half the same convolutions and batch
    norm (content). The branches are concatenated, pass a 3x3 convolution, are merged with the
    RDR's input, and a 1x1 convolution gives the output.

    Args:
        in_channels: channels of the input; even.
        out_channels: channels of the output.
        merge: ``add`` the refined tensor to the input, or ``concat`` the two.
    """

    def __init__(self, in_channels: int, out_channels: int, merge: str = "add") -> None:
        super().__init__()
        half = in_channels // 2
        self.squeeze = nn.Conv2d(in_channels, in_channels, 1)
        self.appearance = _SeparableBranch(half, nn.InstanceNorm2d(half, affine=True))
        self.content = _SeparableBranch(in_channels - half, nn.BatchNorm2d(in_channels - half))
        self.refine = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.merge = merge
        merged = in_channels if merge == "add" else 2 * in_channels
        self.project = nn.Conv2d(merged, out_channels, 1)
        self.split = half

    def forward(self, features: Tensor) -> Tensor:
        """Refine the features and project them to ``out_channels``."""
        squeezed = self.squeeze(features)
        first = self.appearance(squeezed[:, : self.split])
        second = self.content(squeezed[:, self.split :])
        improved = self.refine(torch.cat([first, second], dim=1))
        if self.merge == "add":
            merged = features + improved
        else:
            merged = torch.cat([features, improved], dim=1)
        output: Tensor = self.project(merged)
        return output


class _SeparableBranch(nn.Sequential):
    """3x1 and 1x3 convolutions, a norm and Leaky ReLU; the shape does not change."""

    def __init__(self, channels: int, norm: nn.Module) -> None:
        super().__init__()
        self.vertical = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        self.horizontal = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1))
        self.norm = norm
        self.activation = nn.LeakyReLU(LEAKY_SLOPE)


class UpsampleStageFusion(nn.Module):
    """USF of Sec. III-C: upsamples five stages, pools them to one grid, fuses and refines them.

    Args:
        in_channels: channels of the five stages.
        width: channels of every Up-block's output.
        out_channels: channels of the fused output.
        merge: how the RDR merges with its input, ``add`` or ``concat``.
    """

    SCALES = (2, 2, 2, 4, 8)
    """Up-block factors of stages 1 to 5; each result is at least as large as the stride-4 grid, so
    that the pooling never enlarges."""

    def __init__(
        self, in_channels: tuple[int, ...], width: int, out_channels: int, merge: str = "add"
    ) -> None:
        super().__init__()
        for stage, (channels, scale) in enumerate(zip(in_channels, self.SCALES, strict=True), 1):
            self.add_module(f"stage{stage}", _FusedStage(channels, width, scale))
        self.fuse = ConvBlock(len(in_channels) * width, width)
        self.pool = AdaptiveAveragePool()
        self.rdr = ReducedDimensionRefinement(width, out_channels, merge)

    def forward(self, stages: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Fuse five tensors (N, C_i, H_i, W_i) into one (N, out, *size)."""
        resized = [
            self.get_submodule(f"stage{number}")(features, size)
            for number, features in enumerate(stages, 1)
        ]
        refined: Tensor = self.rdr(self.pool(self.fuse(torch.cat(resized, dim=1)), size))
        return refined


class _FusedStage(nn.Module):
    """One Up-block and the pooling to the common grid of a stage."""

    def __init__(self, in_channels: int, width: int, scale: int) -> None:
        super().__init__()
        self.up = SubPixelUpsample(in_channels, width, scale)
        self.pool = AdaptiveAveragePool()

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Upsample, then pool down to ``size``, a (height, width) in pixels."""
        pooled: Tensor = self.pool(self.up(features), size)
        return pooled


class DecoderBlock(nn.Module):
    """One step of the decoder (Sec. III-A): resize to the skip's grid, concatenate, two ConvBlocks.

    Args:
        in_channels: channels of the coarser input.
        skip_channels: channels of all tensors concatenated at this grid.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip_channels = skip_channels
        self.first = ConvBlock(in_channels + skip_channels, out_channels)
        self.second = ConvBlock(out_channels, out_channels)

    def forward(self, below: Tensor, *skips: Tensor) -> Tensor:
        """Decode (N, in, h, w) and skips (N, C_i, H, W) into (N, out, H, W)."""
        resized = functional.interpolate(
            below, size=skips[0].shape[-2:], mode="bilinear", align_corners=False
        )
        output: Tensor = self.second(self.first(torch.cat([resized, *skips], dim=1)))
        return output


def initialise(module: nn.Module) -> None:
    """Initialise every convolution in ``module`` by Xavier (Sec. IV), the Up-blocks by ICNR."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, SubPixelUpsample):
            part.initialise()
