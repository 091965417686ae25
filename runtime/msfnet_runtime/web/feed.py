"""The newest frame and the latest statistics, and the viewers who wait for them."""

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
"""Snapshots a new viewer is shown at once: two minutes of one every second."""


class _Newest(NamedTuple):
    """One frame and how many there were with it."""

    number: int
    frame: Frame
    depth: DepthMap


class Message(NamedTuple):
    """One frame as it is sent, and how many frames there were with it."""

    number: int
    data: bytes


class Feed:
    """Between the pipeline's threads, which only leave things here, and the server's loop.

    Args:
        spec: the model's spec.
        max_width: the widest depth that is sent, pixels.
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
        """Snapshots taken so far."""
        self.encoded = 0
        """Frames encoded so far."""
        self.ended = False
        """Whether the stream has ended: there will be nothing new."""

    @property
    def number(self) -> int:
        """Frames taken so far."""
        return self._newest.number if self._newest else 0

    @property
    def viewers(self) -> int:
        """How many viewers there are."""
        return len(self._waiting)

    def put(self, frame: Frame, depth: DepthMap) -> None:
        """Leave the newest frame; from the writing thread, which never waits here."""
        self._newest = _Newest(self.number + 1, frame, depth)
        self._wake()

    def observe(self, stats: StreamStats) -> None:
        """Leave a snapshot; from any thread."""
        self._snapshots.append(stats.to_json())
        self.snapshots += 1
        self._wake()

    def end(self) -> None:
        """Say that the stream has ended; from any thread."""
        self.ended = True
        self._wake()

    def open(self) -> None:
        """Belong to the running loop."""
        self._encoding = asyncio.Lock()
        self._loop = asyncio.get_running_loop()

    def enter(self) -> asyncio.Event:
        """Count a viewer in; its event is set whenever there is something new."""
        changed = asyncio.Event()
        self._waiting.add(changed)
        return changed

    def leave(self, changed: asyncio.Event) -> None:
        """Count a viewer out."""
        self._waiting.discard(changed)

    def stats_text(self, seen: int) -> str:
        """Return the snapshots after the first ``seen``, as far as they are kept, as one text."""
        snapshots = list(self._snapshots)[-max(self.snapshots - seen, 1) :]
        return f'{{"type": "stats", "snapshots": [{", ".join(snapshots)}]}}'

    async def message(self) -> Message:
        """Return the newest frame, encoded once for all viewers in a thread of its own."""
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
        """Tell the viewers, if there are any; the loop may just be closing."""
        if self._loop is not None and self._waiting:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        for changed in self._waiting:
            changed.set()
