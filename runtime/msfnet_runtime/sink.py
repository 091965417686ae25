"""The sink protocol: anything that takes frames with their depth."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from msfnet_runtime.types import DepthMap, Frame

if TYPE_CHECKING:
    from typing_extensions import Self


@runtime_checkable
class Sink(Protocol):
    """Takes what a pipeline makes. Use it once, inside its context.

    Leaving the context finishes the output, after an error elsewhere too: what was written is
    never lost. Where nothing was written yet, nothing is left behind. An output that fails itself,
    as on a full disk, keeps what came before, and its error says where.
    """

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Take one frame and its depth, in order; any thread, but never two at once."""

    def poll(self) -> bool:
        """Do what belongs to the thread that runs the pipeline; False ends the stream."""

    def __enter__(self) -> Self:
        """Open the output, so that an unwritable one is known before the first frame."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Finish the output, or remove it where nothing was written."""


class SinkBase:
    """What sinks share: their life is one context manager, and they never end the stream."""

    def __enter__(self) -> Self:
        """Open the output."""
        self._life = self._opened()
        self._life.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Finish the output, or remove it where nothing was written."""
        return self._life.__exit__(kind, error, trace)

    def poll(self) -> bool:
        """Go on."""
        return True

    def _opened(self) -> AbstractContextManager[None]:
        """Return the context in which the output is open; nothing by default."""
        return nullcontext()
