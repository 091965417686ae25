"""Defines the sink protocol: an object that receives frames with their depth."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from msfnet_runtime.types import DepthMap, Frame

if TYPE_CHECKING:
    from typing_extensions import Self


@runtime_checkable
class Sink(AbstractContextManager["Sink"], Protocol):
    """Receives the results of a pipeline. Use it once, inside its context.

    Entering the context opens the output, so that an unwritable one is detected before the first
    frame. Leaving it finishes the output, also after an error elsewhere: no written frame is
    lost, and without frames nothing is left behind. An output that fails, for example on a
    full disk, keeps the earlier frames, and its error says where they are.
    """

    def check(self, frame: Frame) -> None:
        """Refuse the first frame if it cannot be written, before any sink has written it."""

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Write one frame with its depth, in order; from any thread, but one at a time."""

    def poll(self) -> bool:
        """Do work that belongs to the thread of the pipeline; False ends the stream."""


class SinkBase:
    """Implements what sinks share: one context manager opens and finishes the output."""

    def __enter__(self) -> Self:
        """Open the output."""
        self._context = self._opened()
        self._context.__enter__()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        """Finish the output, or remove it if nothing was written."""
        return self._context.__exit__(*error)

    def check(self, frame: Frame) -> None:
        """Accept every frame."""

    def poll(self) -> bool:
        """Continue the stream."""
        return True

    def _opened(self) -> AbstractContextManager[None]:
        """Return the context in which the output is open; nothing by default."""
        return nullcontext()


class CallableSink(SinkBase):
    """Calls ``function(frame, depth)`` for each frame, in order, in the writing thread.

    An error in the function ends the stream and is raised by the pipeline. A slow function slows
    the stream of a file, and makes that of a live source drop frames.
    """

    def __init__(self, function: Callable[[Frame, DepthMap], object]) -> None:
        self._function = function

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Call the function."""
        self._function(frame, depth)
