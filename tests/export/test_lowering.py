"""Every pass against the modules it replaces, in float64 to 1e-10 and in float32 to 1e-5."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from msfnet_export.export_options import PASSES
from msfnet_export.lowering import (
    FoldedUpBlock,
    OffsetConv,
    double_in_decoder,
    fold_up_block,
    lower,
    merge_pair,
)
from msfnet_export.modules import FixedAveragePool, pooling_matrix
from msfnet_runtime import MsfnetError
from msfnet_train.blocks import DecoderBlock, SubPixelUpsample, UpsampleStageFusion, initialise
from tests.networks import light_network

TYPES = [(torch.float64, 1e-10), (torch.float32, 1e-5)]
STAGES = (4, 6, 10, 14, 20)
"""Channels; the Up-blocks below are 12 wide: three merge, two do not."""


def randomised(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Give every parameter a random value, biases included."""
    torch.manual_seed(1)
    initialise(module)
    for name, parameter in module.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter)
    return module.to(dtype).eval()


def assert_close(answer: Tensor, expected: Tensor, tolerance: float) -> None:
    """Compare at the scale of the largest value."""
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(answer, expected, rtol=0, atol=tolerance * scale)


class Fusion(nn.Module):
    """The USF on stages cut out of one image, so that it takes an image as networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.usf = UpsampleStageFusion(STAGES, 12, 8)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 8, ceil(H/4), ceil(W/4))."""
        stages = []
        for number, channels in enumerate(STAGES, 1):
            size = [-(-side // 2**number) for side in image.shape[-2:]]
            stage = functional.interpolate(image, size=size, mode="bilinear")
            stages.append(
                torch.cat([(stage * (c + 1)).cos()[:, c % 3, None] for c in range(channels)], 1)
            )
        output: Tensor = self.usf(stages, (stages[1].shape[-2], stages[1].shape[-1]))
        return output


@pytest.mark.parametrize(("before", "after"), [(8, 4), (7, 3), (64, 57), (13, 13), (5, 1)])
def test_the_pooling_matrix_averages_as_pytorch_does(before: int, after: int) -> None:
    """PyTorch's own adaptive pooling of the unit vectors is the reference."""
    unit = torch.eye(before, dtype=torch.float64)[None]
    expected = functional.adaptive_avg_pool1d(unit, after)[0].T

    torch.testing.assert_close(torch.from_numpy(pooling_matrix(before, after)), expected)


@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
@pytest.mark.parametrize(
    ("before", "after"),
    [((8, 12), (4, 6)), ((7, 12), (3, 6)), ((64, 80), (57, 76)), ((5, 5), (5, 5))],
)
def test_a_fixed_pool_equals_the_adaptive_one(
    before: tuple[int, int], after: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    """Whole and fractional ratios, also mixed, on random features."""
    torch.manual_seed(1)
    features = torch.randn(2, 3, *before, dtype=dtype)

    pooled = FixedAveragePool(before, after, dtype)(features, after)

    assert_close(pooled, functional.adaptive_avg_pool2d(features, after), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
@pytest.mark.parametrize(("scale", "factor"), [(2, 2), (2, 4), (2, 6), (4, 4)])
def test_folding_an_up_block_is_exact_up_to_the_border(
    scale: int, factor: int, dtype: torch.dtype, tolerance: float
) -> None:
    """Convolution, shuffle and pooling, one after the other, are the reference."""
    up = SubPixelUpsample(5, 6, scale)
    randomised(up, dtype)
    nn.init.normal_(up.expand.weight)  # else the shuffled channels are alike
    features = torch.randn(1, 5, 12, 24, dtype=dtype)

    expected = functional.avg_pool2d(up(features), factor)
    folded = fold_up_block(up, factor)(features)

    assert_close(folded, expected, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (4, 2, 1), (3, 1, 0)])
def test_merging_two_convolutions_is_exact_up_to_the_border(
    kernel: int, stride: int, padding: int, dtype: torch.dtype, tolerance: float
) -> None:
    """The first one's bias ends at the zero padding of the second, unlike one merged bias."""
    first = randomised(nn.Conv2d(3, 8, 1), dtype)
    second = randomised(nn.Conv2d(8, 5, kernel, stride, padding), dtype)
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    features = torch.randn(2, 3, 10, 14, dtype=dtype)

    merged = merge_pair(first, second, (10, 14))

    assert isinstance(merged, OffsetConv)
    assert_close(merged(features), second(first(features)), tolerance)


def test_without_a_bias_two_convolutions_become_one_at_every_size() -> None:
    """Without a bias, nothing depends on the grid."""
    first, second = nn.Conv2d(3, 8, 1, bias=False).double(), nn.Conv2d(8, 5, 3, padding=1).double()

    merged = merge_pair(first, second, (1, 1))

    assert isinstance(merged, nn.Conv2d)
    for size in ((4, 6), (9, 5)):
        features = torch.randn(1, 3, *size, dtype=torch.float64)
        assert_close(merged(features), second(first(features)), 1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
@pytest.mark.parametrize("without", [(), *((name,) for name in PASSES), PASSES])
@pytest.mark.parametrize("size", [(64, 96), (76, 100), (97, 131)])
def test_every_choice_of_passes_gives_the_same_answer(
    size: tuple[int, int], without: tuple[str, ...], dtype: torch.dtype, tolerance: float
) -> None:
    """The whole fusion, at whole and fractional ratios, its own forward being the reference."""
    network = randomised(Fusion(), dtype)
    image = torch.randn(1, 3, *size, dtype=dtype)

    lowered = lower(network, image, without=without)  # type: ignore[arg-type]

    with torch.inference_mode():
        assert_close(lowered(image), network(image), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), TYPES)
def test_a_fusion_lowered_for_any_size_serves_others(dtype: torch.dtype, tolerance: float) -> None:
    """Lowered at one size, compared with the original at three others."""
    network = randomised(Fusion(), dtype)
    lowered = lower(network, torch.randn(1, 3, 64, 96, dtype=dtype), any_size=True)

    for size in ((32, 32), (96, 160), (160, 64)):
        image = torch.randn(2, 3, *size, dtype=dtype)
        with torch.inference_mode():
            assert_close(lowered(image), network(image), tolerance)


def test_doubling_in_the_decoder_is_resizing_to_a_skip_of_twice_the_size() -> None:
    """The reference is the block that reads the skip's size."""
    network = nn.Sequential(randomised(DecoderBlock(3, 2, 4), torch.float64))
    below, skip = torch.randn(1, 3, 5, 7).double(), torch.randn(1, 2, 10, 14).double()
    expected = network[0](below, skip)

    double_in_decoder(network)

    assert_close(network[0](below, skip), expected, 1e-10)
    assert not isinstance(network[0], DecoderBlock)


def test_a_fractional_pooling_is_refused_where_several_sizes_are_asked_for() -> None:
    """It would be correct at one size only."""
    with pytest.raises(MsfnetError, match=r"usf\.stage\d\.pool pools .* not a whole ratio"):
        lower(Fusion(), torch.randn(1, 3, 76, 100), any_size=True)


def test_an_unknown_pass_is_refused() -> None:
    """The error lists the known ones."""
    with pytest.raises(MsfnetError, match="unknown pass 'pooling'; choose adaptive-pooling"):
        lower(Fusion(), torch.randn(1, 3, 64, 96), without=["pooling"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("size", "folded"),
    [((64, 96), ["stage1", "stage2"]), ((76, 100), ["stage1", "stage2"]), ((70, 90), ["stage2"])],
)
def test_a_lowered_network_answers_as_before(size: tuple[int, int], folded: list[str]) -> None:
    """The stages whose pooling covers whole cells are folded; the network itself is unchanged."""
    network, image = light_network(), torch.randn(1, 3, *size)

    lowered = lower(network, image)

    with torch.inference_mode():
        torch.testing.assert_close(lowered(image), network(image), rtol=1e-4, atol=1e-4)
    up_blocks = {f"stage{i}": lowered.get_submodule(f"usf.stage{i}.up") for i in range(1, 6)}
    assert [n for n, up in up_blocks.items() if isinstance(up, FoldedUpBlock)] == folded
    assert isinstance(network.get_submodule("usf.stage1.up"), SubPixelUpsample)
