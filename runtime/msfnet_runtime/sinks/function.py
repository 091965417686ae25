"""Depth handed to a function."""

from __future__ import annotations

from collections.abc import Callable

from msfnet_runtime.sink import SinkBase
from msfnet_runtime.types import DepthMap, Frame


class CallableSink(SinkBase):
    """Calls ``take(frame, depth)`` for each frame, in order, in the pipeline's writing thread.

    An error it raises ends the stream and is raised by the pipeline; a slow one slows a file's
    stream and makes a live source's drop frames.
    """

    def __init__(self, take: Callable[[Frame, DepthMap], object]) -> None:
        self._take = take

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Call the function."""
        self._take(frame, depth)
