"""Holds the newest frame and the latest statistics for the viewers."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.stream_stats import StreamStats
from msfnet_runtime.types import DepthMap, Frame
from msfnet_runtime.web.message import encode_frame

HISTORY = 120
"""Snapshots that a new viewer gets at once: two minutes at one per second."""


class _Newest(NamedTuple):
    """The newest frame and the number of frames so far."""

    number: int
    frame: Frame
    depth: DepthMap


class Message(NamedTuple):
    """One encoded frame and the number of frames up to it."""

    number: int
    data: bytes


class Feed:
    """Passes frames and statistics from the pipeline's threads to the server's event loop.

    Args:
        spec: the model's spec.
        max_width: largest width of the depth that is sent, pixels.
    """

    def __init__(self, spec: ModelSpec, max_width: int) -> None:
        self._spec, self._max_width = spec, max_width
        self._newest: _Newest | None = None
        self._snapshots: deque[str] = deque(maxlen=HISTORY)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Event] = set()
        self._encoding: asyncio.Lock | None = None
        self._message = Message(0, b"")
        self.snapshots = 0
        """Number of snapshots so far."""
        self.encoded = 0
        """Number of frames encoded so far."""
        self.ended = False
        """Whether the stream has ended."""

    @property
    def number(self) -> int:
        """The number of frames so far."""
        return self._newest.number if self._newest else 0

    @property
    def viewers(self) -> int:
        """The number of viewers."""
        return len(self._waiting)

    def put(self, frame: Frame, depth: DepthMap) -> None:
        """Store the newest frame; called by the writing thread, which never waits here."""
        self._newest = _Newest(self.number + 1, frame, depth)
        self._wake()

    def observe(self, stats: StreamStats) -> None:
        """Store a snapshot; any thread can call it."""
        self._snapshots.append(stats.to_json())
        self.snapshots += 1
        self._wake()

    def end(self) -> None:
        """End the stream; any thread can call it."""
        self.ended = True
        self._wake()

    def open(self) -> None:
        """Attach to the running event loop."""
        self._encoding = asyncio.Lock()
        self._loop = asyncio.get_running_loop()

    def enter(self) -> asyncio.Event:
        """Add a viewer; its event is set whenever there is something new."""
        changed = asyncio.Event()
        self._waiting.add(changed)
        return changed

    def leave(self, changed: asyncio.Event) -> None:
        """Remove a viewer."""
        self._waiting.discard(changed)

    def stats_text(self, seen: int) -> str:
        """Return the stored snapshots after the first ``seen`` as one text."""
        snapshots = list(self._snapshots)[-max(self.snapshots - seen, 1) :]
        return f'{{"type": "stats", "snapshots": [{", ".join(snapshots)}]}}'

    async def message(self) -> Message:
        """Return the newest frame, encoded once for all viewers in a separate thread."""
        assert self._encoding is not None
        async with self._encoding:
            newest = self._newest
            assert newest is not None
            if newest.number > self._message.number:
                data = await asyncio.to_thread(
                    encode_frame, newest.frame, newest.depth, self._spec, self._max_width
                )
                self.encoded += 1
                self._message = Message(newest.number, data)
            return self._message

    def _wake(self) -> None:
        """Notify the viewers, if there are any."""
        if self._loop is not None and self._waiting:
            with suppress(RuntimeError):  # the loop is closing
                self._loop.call_soon_threadsafe(self._notify)

    def _notify(self) -> None:
        for changed in self._waiting:
            changed.set()
