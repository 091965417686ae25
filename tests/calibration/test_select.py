from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_calibration import select_frames
from msfnet_datasets.frame_statistics import describe_frame
from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.source import SourceBase
from msfnet_runtime.sources import open_source


class Numbered(SourceBase):
    """Frames 0 to ``count`` - 1."""

    def __init__(self, count: int, *, known: bool = True, live: bool = False) -> None:
        self._count = count
        self.length = count if known else None
        self.live = live

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames."""
        for index in range(self._count):
            yield Frame(np.full((4, 4, 3), index % 256, np.uint8), index)


def indices(source: Numbered, count: int, seed: int = 0) -> list[int]:
    """Return the indices of the chosen frames."""
    return [frame.index for frame in select_frames(source, count, seed=seed)]


def test_one_frame_is_drawn_from_every_stretch() -> None:
    """Ten of a hundred: one of each ten, in order, and other ones for another seed."""
    chosen = indices(Numbered(100), 10)

    assert [index // 10 for index in chosen] == list(range(10))
    assert chosen == indices(Numbered(100), 10)
    assert chosen != indices(Numbered(100), 10, seed=1)


@pytest.mark.parametrize("known", [True, False])
def test_a_short_source_gives_all_it_has(known: bool) -> None:
    """Asking for more is not an error."""
    assert indices(Numbered(3, known=known), 8) == [0, 1, 2]


def test_every_frame_of_an_unknown_length_is_equally_likely() -> None:
    """Over 2,000 seeds each of 20 frames is drawn 500 times in the mean; 100 is five sigma."""
    counts = np.zeros(20)
    for seed in range(2000):
        counts[indices(Numbered(20, known=False), 5, seed)] += 1

    assert np.abs(counts - 500).max() < 100


def test_frames_of_an_unknown_length_keep_their_order() -> None:
    """Order is irrelevant to ranges but not to people who view the frames."""
    chosen = indices(Numbered(50, known=False), 7)

    assert chosen == sorted(set(chosen))


@pytest.mark.parametrize(
    ("source", "count", "message"),
    [
        (Numbered(0), 4, "no frames"),
        (Numbered(9), 0, "at least 1"),
        (Numbered(9, live=True), 4, "record it"),
    ],
)
def test_a_source_that_cannot_be_sampled_is_refused(
    source: Numbered, count: int, message: str
) -> None:
    """Each error is one line."""
    with pytest.raises(MsfnetError, match=message):
        select_frames(source, count)


class Photos(SourceBase):
    """The given images in order, of known or unknown length."""

    def __init__(self, images: list[NDArray[np.uint8]], *, known: bool = True) -> None:
        self._images = images
        self.length = len(images) if known else None

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames."""
        for index, image in enumerate(self._images):
            yield Frame(image, index)


def near(frame: Frame) -> DepthMap:
    """Return a depth of 1 to 3 m over the frame, by its red channel."""
    metres = (1 + frame.image[..., 0] / 127.5).astype(np.float32)
    return DepthMap(metres, metres > 0)


def far(frame: Frame) -> DepthMap:
    """Return a depth of 50 m everywhere."""
    metres = np.full(frame.image.shape[:2], 50, np.float32)
    return DepthMap(metres, metres > 0)


def greys(values: list[int], rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Return (12, 16, 3) images of faint noise about each grey value."""
    noise = rng.integers(-3, 4, (len(values), 12, 16, 3))
    return list((np.array(values)[:, None, None, None] + noise).astype(np.uint8))


@pytest.mark.parametrize("known", [True, False])
def test_rare_kinds_are_kept_by_their_appearance(known: bool, rng: np.random.Generator) -> None:
    """Four frames chosen of 37 dark, two grey and one bright frame cover all kinds."""
    values = [20] * 40
    values[5] = values[6] = 120
    values[33] = 230
    images = greys(values, rng)

    for seed in range(10):
        chosen = select_frames(Photos(images, known=known), 10, seed=seed, estimator=near)
        kinds = {values[frame.index] for frame in chosen}

        assert kinds == {20, 120, 230}
        assert [frame.index for frame in chosen] == sorted({frame.index for frame in chosen})
        assert len(chosen) == 10


def test_depth_alone_distinguishes_frames(rng: np.random.Generator) -> None:
    """Four of 16 similar images are chosen, with two or more of the three at another depth."""
    images = greys([90] * 16, rng)
    metres = {3: 2.0, 7: 8.0, 11: 30.0}

    def estimate(frame: Frame) -> DepthMap:
        values = np.full((12, 16), metres.get(frame.index, 1.0), np.float32)
        return DepthMap(values, values > 0)

    for seed in range(10):
        chosen = select_frames(Photos(images), 4, seed=seed, estimator=estimate)

        assert len({frame.index for frame in chosen} & set(metres)) >= 2


def test_the_seed_decides_which_frames_are_chosen(photo: NDArray[np.uint8]) -> None:
    """The same one chooses the same frames; another one others, also of the same candidates."""
    images = [np.roll(photo, step, axis=1) // (1 + step % 5) for step in range(30)]

    first, again, other = (
        [frame.index for frame in select_frames(Photos(images), 8, seed=seed, estimator=near)]
        for seed in (0, 0, 1)
    )

    assert first == again != other


@pytest.mark.parametrize("known", [True, False])
def test_no_image_is_chosen_twice(known: bool, photo: NDArray[np.uint8]) -> None:
    """Three images shown ten times each are three frames, each at its first showing."""
    images = [photo, photo[::-1].copy(), photo[:, ::-1].copy()] * 10

    chosen = select_frames(Photos(images, known=known), 8, estimator=near)
    alone = select_frames(Photos([photo] * 30, known=known), 8, estimator=near)

    assert [frame.index for frame in chosen] == [0, 1, 2]
    assert [frame.index for frame in alone] == [0]


def test_images_of_the_same_figures_are_all_frames() -> None:
    """Sixteen that differ in pixels but not when shrunk: six are chosen, each once."""
    images = []
    for index in range(16):
        image = np.repeat(np.repeat(greys([90], np.random.default_rng(7))[0], 40, 0), 40, 1)
        image[0, index * 2] += 1
        image[1, index * 2] -= 1
        images.append(image)

    chosen = [frame.index for frame in select_frames(Photos(images), 6, estimator=far)]

    assert {describe_frame(Frame(image)) for image in images} == {describe_frame(Frame(images[0]))}
    assert len(set(chosen)) == len(chosen) == 6


@pytest.mark.parametrize("count", [3, 4, 100])
def test_a_short_source_gives_all_it_has_with_an_estimator_too(
    count: int, rng: np.random.Generator
) -> None:
    """Nothing is predicted where nothing is left to choose."""

    def refuse(frame: Frame) -> DepthMap:
        raise AssertionError(frame.index)

    images = greys([30, 90, 200], rng)
    chosen = select_frames(Photos(images), count, estimator=refuse)

    assert [frame.index for frame in chosen] == [0, 1, 2]


def test_four_candidates_are_described_for_each_frame(rng: np.random.Generator) -> None:
    """A long source costs no more predictions than that; progress counts them."""
    seen: list[tuple[int, int]] = []
    images = greys(list(rng.integers(10, 240, 200)), rng)

    select_frames(
        Photos(images),
        5,
        estimator=near,
        progress=lambda done, total, _: seen.append((done, total)),
    )

    assert seen == [(done, 20) for done in range(1, 21)]


@pytest.mark.parametrize("every", [2, 99])
def test_frames_without_valid_depth_are_chosen_among_all_the_same(
    every: int, rng: np.random.Generator
) -> None:
    """Depth in every second frame, or hardly anywhere: the bright one is found by its image."""
    images = greys([20] * 14 + [230, 20], rng)

    def blind(frame: Frame) -> DepthMap:
        depth = near(frame)
        return DepthMap(depth.values, depth.valid & (frame.index % every == 1))

    for seed in range(10):
        chosen = select_frames(Photos(images), 4, seed=seed, estimator=blind)

        assert 14 in {frame.index for frame in chosen}
        assert len(chosen) == 4


def test_selection_covers_real_rooms_better_than_chance(real_data: Path) -> None:
    """No frame of NYU's validation rooms is as far from a chosen one, in units of the spans."""
    with open_source(str(real_data / "nyu_mini/data/nyu2_val.csv")) as source:
        frames = list(source)
    table = np.array([list(describe_frame(frame).figures().values()) for frame in frames])
    table /= np.maximum(np.ptp(table, axis=0), 1e-9)

    def worst(estimator: Callable[[Frame], DepthMap] | None, seed: int) -> float:
        images = [frame.image for frame in frames]
        chosen = select_frames(Photos(images), 24, seed=seed, estimator=estimator)
        points = table[[frame.index for frame in chosen]]
        distances = np.linalg.norm(table[:, None] - points, axis=2)
        return float(distances.min(axis=1).max())

    gains = [worst(None, seed) - worst(near, seed) for seed in range(4)]

    assert np.mean(gains) > 0.05
