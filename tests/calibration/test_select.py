from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from msfnet_calibration import select_frames
from msfnet_runtime import Frame, MsfnetError
from msfnet_runtime.source import SourceBase


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
    """Asking for more is no error."""
    assert indices(Numbered(3, known=known), 8) == [0, 1, 2]


def test_every_frame_of_an_unknown_length_is_equally_likely() -> None:
    """Over 2,000 seeds each of 20 frames is drawn 500 times in the mean; 100 is five sigma."""
    counts = np.zeros(20)
    for seed in range(2000):
        counts[indices(Numbered(20, known=False), 5, seed)] += 1

    assert np.abs(counts - 500).max() < 100


def test_frames_of_an_unknown_length_keep_their_order() -> None:
    """Ranges do not care; people who look at the frames do."""
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
def test_what_cannot_be_sampled_is_refused(source: Numbered, count: int, message: str) -> None:
    """One line each."""
    with pytest.raises(MsfnetError, match=message):
        select_frames(source, count)
