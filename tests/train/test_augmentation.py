from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msfnet_train.augmentation import augment, erase, jitter_colour, zoom
from msfnet_train.recipe import AugmentationConfig


def test_flips_and_permutations_keep_image_and_depth_together(
    rng: np.random.Generator, photo: NDArray[np.uint8]
) -> None:
    """Depth is flipped with the image; colours change places, never values."""
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


def test_jitter_is_one_straight_line_per_channel(rng: np.random.Generator) -> None:
    """Gain and contrast are affine: the values of a channel keep their order and proportions."""
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
    """At the default probability, within four deviations."""
    depth = photo[..., 1].astype(np.float32)
    flips = sum(
        np.array_equal(augment(photo, depth, AugmentationConfig(), rng)[1], depth[:, ::-1])
        for _ in range(400)
    )
    assert abs(flips - 200) < 40


def test_what_is_enlarged_is_nearer(rng: np.random.Generator) -> None:
    """A plane whose image says its depth: enlarged, each pixel shows a depth divided by as much."""
    columns = np.arange(1, 61)
    depth = np.tile(columns.astype(np.float32), (40, 1))
    image = np.repeat(np.tile(np.repeat(columns, 2), (80, 1))[..., None], 3, axis=2)

    for _ in range(20):
        seen, near = zoom(image.astype(np.uint8), depth, 1.6, rng)
        shown = seen[::2, ::2, 0].astype(float)
        factor = np.median(shown / near)
        assert 1 <= factor <= 1.65
        assert np.abs(shown / factor - near).max() < 1.5
        assert seen.shape == image.shape
        assert np.isin(np.rint(near * factor * 1000), np.rint(depth * 1000)).mean() > 0.99


def test_erasing_paints_one_rectangle_and_nothing_else(
    rng: np.random.Generator, photo: NDArray[np.uint8]
) -> None:
    """The pixels that change are all of a rectangle, of one colour, of at most a quarter."""
    changed = (erase(photo, rng) != photo).any(axis=-1)
    rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]

    painted = erase(photo, np.random.default_rng(1))
    assert changed[window].mean() > 0.9
    assert 1 / 40 < changed.mean() <= 0.25
    assert (painted[:5, :5] != photo[:5, :5]).any() or painted.shape == photo.shape


def test_a_recipe_turns_each_change_on(rng: np.random.Generator, photo: NDArray[np.uint8]) -> None:
    """One at a time; depth changes by zoom alone."""
    depth = np.full((49, 66), 4, np.float32)
    for config, moves in (
        (AugmentationConfig(0, 0, colour_jitter=0.3), False),
        (AugmentationConfig(0, 0, erase=1.0), False),
        (AugmentationConfig(0, 0, zoom=2.0), True),
    ):
        image, near = augment(photo, depth, config, rng)
        assert not np.array_equal(image, photo)
        assert (near < 4).all() == moves
