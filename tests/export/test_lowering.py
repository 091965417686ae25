from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from msfnet_export.lowering import (
    FixedAveragePool,
    FoldedUpBlock,
    fold_up_block,
    lower,
    pooling_matrix,
)
from msfnet_train.blocks import SubPixelUpsample, initialise
from tests.networks import light_network


@pytest.mark.parametrize(("before", "after"), [(8, 4), (7, 3), (64, 57), (13, 13), (5, 1)])
def test_the_pooling_matrix_averages_as_pytorch_does(before: int, after: int) -> None:
    """PyTorch's own adaptive pooling of the unit vectors is the reference."""
    expected = functional.adaptive_avg_pool1d(torch.eye(before)[None], after)[0].T

    np.testing.assert_allclose(pooling_matrix(before, after), expected.numpy(), atol=1e-7)


@pytest.mark.parametrize(
    ("before", "after"),
    [((8, 12), (4, 6)), ((7, 12), (3, 6)), ((64, 80), (57, 76)), ((5, 5), (5, 5))],
)
def test_a_fixed_pool_equals_the_adaptive_one(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    """Whole and fractional ratios, also mixed, on random features."""
    torch.manual_seed(1)
    features = torch.randn(2, 3, *before)

    pooled = FixedAveragePool(before, after)(features, after)

    torch.testing.assert_close(pooled, functional.adaptive_avg_pool2d(features, after))


@pytest.mark.parametrize(("scale", "factor"), [(2, 2), (2, 4), (2, 6), (4, 4)])
def test_folding_is_exact_up_to_the_border(scale: int, factor: int) -> None:
    """Convolution, shuffle and pooling, one after the other, are the reference."""
    torch.manual_seed(2)
    up = SubPixelUpsample(5, 6, scale)
    initialise(up)
    torch.nn.init.normal_(up.expand.weight)
    torch.nn.init.normal_(up.expand.bias)  # type: ignore[arg-type]
    features = torch.randn(1, 5, 12, 24)

    expected = functional.avg_pool2d(up(features), factor)
    folded = fold_up_block(up, factor)(features)

    torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "folded"),
    [((64, 96), ["stage1", "stage2"]), ((76, 100), ["stage1", "stage2"]), ((70, 90), ["stage2"])],
)
def test_a_lowered_network_answers_as_before(size: tuple[int, int], folded: list[str]) -> None:
    """The stages whose pooling covers whole cells are folded, and the network itself is left."""
    network, image = light_network(), torch.randn(1, 3, *size)

    lowered = lower(network, image)

    with torch.inference_mode():
        torch.testing.assert_close(lowered(image), network(image), rtol=1e-4, atol=1e-4)
    up_blocks = {f"stage{i}": lowered.get_submodule(f"usf.stage{i}.up") for i in range(1, 6)}
    assert [n for n, up in up_blocks.items() if isinstance(up, FoldedUpBlock)] == folded
    assert isinstance(network.get_submodule("usf.stage1.up"), SubPixelUpsample)
