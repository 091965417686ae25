"""Every block of the paper is compared with its equation in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from msfnet_train.blocks import (
    AdaptiveAveragePool,
    ConvBlock,
    DecoderBlock,
    EnhancedDiverseAttention,
    ReducedDimensionRefinement,
    SubPixelUpsample,
    UpsampleStageFusion,
    initialise,
)
from tests.train.reference import (
    Array,
    convolve,
    leaky,
    normalise,
    pool,
    resize,
    shuffle,
    to_numpy,
)


def randomise(module: nn.Module) -> None:
    """Draw all parameters from a normal distribution, those of biases and norms included."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.3, generator=generator)


def signed(rng: np.random.Generator, *shape: int) -> tuple[torch.Tensor, Array]:
    """Return normal features of both signs, for PyTorch and for NumPy."""
    values = rng.normal(0.3, 1.5, shape).astype(np.float32)
    return torch.from_numpy(values), values.astype(np.float64)


@pytest.mark.parametrize("minimum", [True, False])
def test_attention_is_equation_2(rng: np.random.Generator, minimum: bool) -> None:
    """``sigmoid(conv7x7([avg - min ; max - min])) * X``; CBAM-S does not subtract the minimum."""
    eda = EnhancedDiverseAttention(6, projection=False, minimum=minimum)
    randomise(eda)
    features, x = signed(rng, 2, 6, 9, 11)

    low = x.min(1, keepdims=True) if minimum else 0
    pools = np.concatenate([x.mean(1, keepdims=True) - low, x.max(1, keepdims=True) - low], 1)
    expected = x / (1 + np.exp(-convolve(pools, eda.attention)))
    np.testing.assert_allclose(to_numpy(eda(features)), expected, atol=1e-5)


def test_the_attention_map_ignores_an_offset_of_all_channels(rng: np.random.Generator) -> None:
    """Both maps of Eq. 2 are differences; those of CBAM-S are not."""
    features, _ = signed(rng, 1, 5, 12, 12)
    for minimum in (True, False):
        eda = EnhancedDiverseAttention(5, projection=False, minimum=minimum)
        randomise(eda)
        plain, shifted = eda(features) / features, eda(features + 7) / (features + 7)
        assert torch.allclose(plain, shifted, atol=1e-4) == minimum


def test_the_projection_gives_the_minimum_a_value(rng: np.random.Generator) -> None:
    """After a ReLU the channel minimum is 0 and EDA is CBAM-S; after the projection it is not."""
    features = torch.from_numpy(np.maximum(rng.normal(size=(2, 64, 8, 8)), 0).astype(np.float32))
    assert not features.amin(dim=1).any()

    eda = EnhancedDiverseAttention(64)
    initialise(eda)
    projected = eda.projection(features)

    assert (projected.amin(dim=1) < -0.5).all()
    low = projected.amin(dim=1, keepdim=True)
    pools = [projected.mean(1, keepdim=True) - low, projected.amax(1, keepdim=True) - low]
    expected = torch.sigmoid(eda.attention(torch.cat(pools, 1))) * projected
    torch.testing.assert_close(eda(features), expected)


@pytest.mark.parametrize("scale", [2, 4])
def test_the_up_block_is_two_convolutions_and_a_pixel_shuffle(
    rng: np.random.Generator, scale: int
) -> None:
    """It is linear: there are no activations."""
    up = SubPixelUpsample(5, 3, scale)
    randomise(up)
    features, x = signed(rng, 2, 5, 4, 7)

    expected = shuffle(convolve(convolve(x, up.squeeze), up.expand), scale)

    np.testing.assert_allclose(to_numpy(up(features)), expected, atol=1e-4)


def test_the_up_block_starts_as_nearest_neighbour_upsampling(rng: np.random.Generator) -> None:
    """ICNR: all outputs of a scale x scale cell are equal, and the cells differ."""
    up = SubPixelUpsample(5, 3, 4)
    initialise(up)

    output = to_numpy(up(signed(rng, 1, 5, 4, 6)[0]))

    cells = output.reshape(1, 3, 4, 4, 6, 4)
    np.testing.assert_allclose(cells, np.broadcast_to(cells[:, :, :, :1, :, :1], cells.shape))
    assert cells.std() > 0.1


@pytest.mark.parametrize(
    ("old", "new"), [((58, 76), (57, 76)), ((10, 7), (4, 5)), ((6, 6), (6, 6))]
)
def test_pooling_averages_over_the_cells_of_the_grid(
    rng: np.random.Generator, old: tuple[int, int], new: tuple[int, int]
) -> None:
    """Also for ratios that are not integers; equal sizes change nothing."""
    features, x = signed(rng, 2, 3, *old)

    pooled = AdaptiveAveragePool()(features, new)

    np.testing.assert_allclose(to_numpy(pooled), pool(x, *new), atol=1e-5)


def rdr_reference(rdr: ReducedDimensionRefinement, x: Array) -> Array:
    """Compute Fig. 4 in training mode."""
    half = x.shape[1] // 2
    squeezed = convolve(x, rdr.squeeze)
    first, second = squeezed[:, :half], squeezed[:, half:]
    for branch in (rdr.appearance, rdr.content):
        part = first if branch is rdr.appearance else second
        part = convolve(convolve(part, branch.vertical), branch.horizontal)
        axes = (2, 3) if branch is rdr.appearance else (0, 2, 3)
        part = leaky(normalise(part, axes, branch.norm))
        first, second = (part, second) if branch is rdr.appearance else (first, part)
    improved = convolve(np.concatenate([first, second], 1), rdr.refine)
    merged = x + improved if rdr.merge == "add" else np.concatenate([x, improved], 1)
    return convolve(merged, rdr.project)


@pytest.mark.parametrize("merge", ["add", "concat"])
def test_the_refinement_is_figure_4(rng: np.random.Generator, merge: str) -> None:
    """Instance norm on the first half, batch norm on the second, then merged with the input."""
    rdr = ReducedDimensionRefinement(6, 5, merge)
    randomise(rdr)
    features, x = signed(rng, 3, 6, 7, 9)

    np.testing.assert_allclose(to_numpy(rdr(features)), rdr_reference(rdr, x), atol=1e-4)


def test_the_usf_is_up_blocks_pooling_and_refinement(rng: np.random.Generator) -> None:
    """It has the paper's factors, on the odd grids of the five stages of a 57x75 image."""
    usf = UpsampleStageFusion((4, 5, 6, 7, 8), 4, 3)
    randomise(usf)
    grids = [(29, 38), (15, 19), (8, 10), (4, 5), (2, 3)]
    stages = [signed(rng, 2, c, *g) for c, g in zip((4, 5, 6, 7, 8), grids, strict=True)]

    output = usf([tensor for tensor, _ in stages], (15, 19))

    resized = []
    for number, ((_, x), scale) in enumerate(zip(stages, (2, 2, 2, 4, 8), strict=True), 1):
        up = usf.get_submodule(f"stage{number}.up")
        assert isinstance(up, SubPixelUpsample)
        enlarged = shuffle(convolve(convolve(x, up.squeeze), up.expand), scale)
        assert enlarged.shape[2] >= 15
        assert enlarged.shape[3] >= 19
        resized.append(pool(enlarged, 15, 19))
    fused = leaky(convolve(np.concatenate(resized, 1), usf.fuse.conv))
    np.testing.assert_allclose(
        to_numpy(output), rdr_reference(usf.rdr, fused), rtol=1e-3, atol=1e-3
    )


def test_the_decoder_resizes_to_the_skip_and_activates_twice(rng: np.random.Generator) -> None:
    """The factor from 8x10 to 15x19 is not an integer; Leaky ReLU follows each convolution."""
    block = DecoderBlock(4, 5, 3)
    randomise(block)
    (below, x), (skip, s), (more, m) = (
        signed(rng, 2, c, *g) for c, g in ((4, (8, 10)), (3, (15, 19)), (2, (15, 19)))
    )

    joined = np.concatenate([resize(x, 15, 19), s, m], 1)
    expected = leaky(convolve(leaky(convolve(joined, block.first.conv)), block.second.conv))

    np.testing.assert_allclose(to_numpy(block(below, skip, more)), expected, atol=1e-4)


def test_convolutions_are_initialised_by_xavier() -> None:
    """Uniformly within sqrt(6 / (fan in + fan out)), with zero biases (Sec. IV)."""
    block = ConvBlock(32, 64)
    initialise(block)

    bound = np.sqrt(6 / (9 * (32 + 64)))
    weight = to_numpy(block.conv.weight)
    assert np.abs(weight).max() <= bound
    assert weight.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    assert block.conv.bias is not None
    assert not block.conv.bias.any()
