"""Defines the source protocol: an object that yields frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from msfnet_runtime.closing import Closing
from msfnet_runtime.types import Frame


@dataclass(frozen=True)
class SourceHealth:
    """Problems of a source that did not end it; counts since it was opened."""

    skipped: int = 0
    """Frames that could not be decoded."""
    losses: int = 0
    """How often the source was lost and came back."""
    dropped: int = 0
    """Frames of a live source that were replaced by a newer one before they were read."""


@runtime_checkable
class Source(AbstractContextManager["Source"], Protocol):
    """Yields frames in order. Iterate over it once, inside its context, which closes it."""

    @property
    def live(self) -> bool:
        """Whether frames arrive in real time, so that only the newest is useful."""

    @property
    def length(self) -> int | None:
        """The number of frames, None if unknown."""

    @property
    def fps(self) -> float:
        """Frames per second of the source's own clock."""

    @property
    def health(self) -> SourceHealth:
        """Problems so far; readable from any thread."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames."""

    def stop(self) -> None:
        """End the frames soon, also while a lost camera is awaited. Any thread can call it."""


class SourceBase(Closing):
    """Implements what most sources share: not live, unknown length, no problems, no resource."""

    live = False
    length: int | None = None
    fps = 30.0

    @property
    def health(self) -> SourceHealth:
        """Problems so far: none."""
        return SourceHealth()

    def stop(self) -> None:
        """Do nothing: the next frame comes soon, or never."""
