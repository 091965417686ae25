"""The source protocol: anything that yields frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from msfnet_runtime.closing import Closing
from msfnet_runtime.types import Frame

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class SourceHealth:
    """What went wrong in a source without ending it; counts since it was opened."""

    skipped: int = 0
    """Frames that failed to decode."""
    losses: int = 0
    """Times the source was lost and came back."""
    dropped: int = 0
    """Frames of a live source that a newer one replaced before they were taken."""


@runtime_checkable
class Source(Protocol):
    """Frames in order. Iterate it once, inside its context."""

    @property
    def live(self) -> bool:
        """Whether frames pass by on their own time, so that only the newest is worth keeping."""

    @property
    def length(self) -> int | None:
        """How many frames there are, where that is known."""

    @property
    def fps(self) -> float:
        """Frames per second of the source's own clock."""

    @property
    def health(self) -> SourceHealth:
        """What went wrong so far; asked from any thread."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames."""

    def stop(self) -> None:
        """End the frames soon, waits included (a lost camera's retries); any thread, any times."""

    def __enter__(self) -> Self:
        """Return the source itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give back cameras and files."""


class SourceBase(Closing):
    """What most sources share: not live, of unknown length, healthy, nothing to give back."""

    live = False
    length: int | None = None
    fps = 30.0

    @property
    def health(self) -> SourceHealth:
        """What went wrong so far: nothing."""
        return SourceHealth()

    def stop(self) -> None:
        """Do nothing: the next frame comes soon, or never."""
