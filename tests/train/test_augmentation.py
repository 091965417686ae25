"""Augmentation changes image and depth together, within the recipe's limits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_train.augmentation import augment, erase, jitter_colour, zoom
from msfnet_train.recipe import AugmentationConfig


def test_flips_and_permutations_keep_image_and_depth_together(
    rng: np.random.Generator, photo: NDArray[np.uint8]
) -> None:
    """Depth is flipped with the image; the colour channels are only exchanged."""
    depth = photo[..., 1].astype(np.float32)
    flipped, turned = augment(photo, depth, AugmentationConfig(1.0, 0.0), rng)
    np.testing.assert_array_equal(flipped, photo[:, ::-1])
    np.testing.assert_array_equal(turned, depth[:, ::-1])

    orders = set()
    for _ in range(60):
        permuted, kept = augment(photo, depth, AugmentationConfig(0.0, 1.0), rng)
        np.testing.assert_array_equal(kept, depth)
        orders.add(
            tuple(
                next(i for i in range(3) if np.array_equal(permuted[..., c], photo[..., i]))
                for c in range(3)
            )
        )
    assert len(orders) == 6
    same, _ = augment(photo, depth, AugmentationConfig(0.0, 0.0), rng)
    np.testing.assert_array_equal(same, photo)


def test_jitter_is_affine_in_each_channel(rng: np.random.Generator) -> None:
    """One slope and offset per channel, within the limits of gain, channel gain and contrast."""
    image = np.tile(np.arange(60, 160, dtype=np.uint8)[:, None, None], (1, 4, 3))

    jittered = jitter_colour(image, 0.2, rng)

    slopes = []
    for channel in range(3):
        x, y = image[..., channel].ravel(), jittered[..., channel].ravel()
        slope, offset = np.polyfit(x.astype(float), y, 1)
        assert np.abs(slope * x + offset - y).max() < 0.6
        assert 0.8 * 0.8 * 0.9 < slope < 1.2 * 1.2 * 1.1
        slopes.append(slope)
    assert np.ptp(slopes) > 1e-3
    assert not np.array_equal(jitter_colour(image, 0.2, rng), jittered)


def test_half_of_the_pairs_are_flipped(rng: np.random.Generator, photo: NDArray[np.uint8]) -> None:
    """The share is the default probability, within four standard deviations."""
    depth = photo[..., 1].astype(np.float32)
    flips = sum(
        np.array_equal(augment(photo, depth, AugmentationConfig(), rng)[1], depth[:, ::-1])
        for _ in range(400)
    )
    assert abs(flips - 200) < 40


def test_zoom_divides_depth_by_the_enlargement(rng: np.random.Generator) -> None:
    """The image shows the depth itself, so that each zoomed pixel reveals its own factor."""
    columns = np.arange(1, 61)
    depth = np.tile(columns.astype(np.float32), (40, 1))
    image = np.repeat(np.tile(np.repeat(columns, 2), (80, 1))[..., None], 3, axis=2)

    factors = []
    for _ in range(20):
        seen, near = zoom(image.astype(np.uint8), depth, 1.6, rng)
        shown = seen[::2, ::2, 0].astype(float)
        factor = np.median(shown / near)
        factors.append(factor)
        assert 1 <= factor <= 1.65
        assert np.abs(shown / factor - near).max() < 1.5
        assert seen.shape == image.shape
        assert np.isin(np.rint(near * factor * 1000), np.rint(depth * 1000)).mean() > 0.99
    assert max(factors) - min(factors) > 0.2


@pytest.mark.parametrize("seed", range(8))
def test_erasing_paints_one_rectangle_in_one_colour(seed: int, photo: NDArray[np.uint8]) -> None:
    """Each side is a sixth to half of the image's; the pixels outside keep their values."""
    painted = erase(photo, np.random.default_rng(seed))

    changed = (painted != photo).any(axis=-1)
    rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    expected = photo.copy()
    expected[window] = painted[rows[0], columns[0]]
    np.testing.assert_array_equal(painted, expected)
    for side, whole in zip(expected[window].shape[:2], photo.shape[:2], strict=True):
        assert whole // 6 <= side < whole // 2


def test_options_enable_each_change(rng: np.random.Generator, photo: NDArray[np.uint8]) -> None:
    """One at a time; only zoom changes the depth."""
    depth = np.full((49, 66), 4, np.float32)
    for config, moves in (
        (AugmentationConfig(0, 0, colour_jitter=0.3), False),
        (AugmentationConfig(0, 0, erase=1.0), False),
        (AugmentationConfig(0, 0, zoom=2.0), True),
    ):
        image, near = augment(photo, depth, config, rng)
        assert not np.array_equal(image, photo)
        assert (near < 4).all() == moves
