"""Shows the newest frame and the latest statistics to viewers.

Each viewer requests a frame, gets the newest, and confirms it before the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.stream_stats import StreamStats
from msfnet_runtime.types import DepthMap, Frame
from msfnet_runtime.web.message import encode_frame

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

HISTORY = 120
"""Snapshots that a new viewer gets at once: two minutes at one per second."""

MAX_VIEWERS = 32
"""Largest number of viewers; each has at most one frame in its buffer."""

ENDED, UNKNOWN_WORD, TOO_SLOW, TOO_MANY = 1000, 1003, 1008, 1013
"""Close codes of RFC 6455 and its registry."""

_GONE = (OSError, asyncio.TimeoutError)


class Feed:
    """Passes frames and statistics from the pipeline's threads to the server's event loop.

    Args:
        spec: the model's spec.
        max_width: largest width of the depth that is sent, pixels.
    """

    def __init__(self, spec: ModelSpec, max_width: int) -> None:
        self._spec, self._max_width = spec, max_width
        self._newest: tuple[int, Frame, DepthMap] | None = None
        self._snapshots: deque[str] = deque(maxlen=HISTORY)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Event] = set()
        self._encoding: asyncio.Lock | None = None
        self._message: tuple[int, bytes] = (0, b"")
        self.snapshots = 0
        """Number of snapshots so far."""
        self.encoded = 0
        """Number of frames encoded so far."""
        self.ended = False
        """Whether the stream has ended."""

    @property
    def number(self) -> int:
        """The number of frames so far."""
        return self._newest[0] if self._newest else 0

    @property
    def viewers(self) -> int:
        """The number of viewers."""
        return len(self._waiting)

    def put(self, frame: Frame, depth: DepthMap) -> None:
        """Store the newest frame; called by the writing thread, which never waits here."""
        self._newest = (self.number + 1, frame, depth)
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

    @contextmanager
    def viewer(self) -> Iterator[asyncio.Event]:
        """Count a viewer; its event is set whenever there is something new."""
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            yield changed
        finally:
            self._waiting.discard(changed)

    def stats_text(self, seen: int) -> str:
        """Return the stored snapshots after the first ``seen`` as one text."""
        snapshots = list(self._snapshots)[-max(self.snapshots - seen, 1) :]
        return f'{{"type": "stats", "snapshots": [{", ".join(snapshots)}]}}'

    async def message(self) -> tuple[int, bytes]:
        """Return the newest frame's number and message, encoded once for all viewers."""
        assert self._encoding is not None
        async with self._encoding:
            assert self._newest is not None
            number, frame, depth = self._newest
            if number > self._message[0]:
                look = (self._spec, self._max_width)
                data = await asyncio.to_thread(encode_frame, frame, depth, *look)
                self.encoded += 1
                self._message = (number, data)
            return self._message

    def _wake(self) -> None:
        """Notify the viewers, if there are any."""
        if self._loop is not None and self._waiting:
            with suppress(RuntimeError):  # the loop is closing
                self._loop.call_soon_threadsafe(self._notify)

    def _notify(self) -> None:
        for changed in self._waiting:
            changed.set()


class Viewers:
    """The application of the WebSocket.

    A viewer sends ``next`` to request a frame newer than its last one, or ``pause``. It gets the
    hello text first, then statistics as they come, and the requested frames. At the end of the
    stream it gets the last of each, the frame also while it draws another, and the connection is
    closed with code 1000.

    Args:
        feed: the content.
        hello: the first text.
        patience_s: time-out for a viewer to read a message or to respond to a frame.
    """

    def __init__(self, feed: Feed, hello: str, patience_s: float) -> None:
        self._feed, self._hello, self._patience_s = feed, hello, patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one viewer until either side closes the connection."""
        await receive()
        await send({"type": "websocket.accept"})
        if self._feed.viewers >= MAX_VIEWERS:
            await _close(send, TOO_MANY, "too many viewers")
            return
        with self._feed.viewer() as changed:
            await _Viewer(self._feed, receive, send, self._patience_s).run(self._hello, changed)


class _Viewer:
    """The state of one viewer."""

    def __init__(self, feed: Feed, receive: Receive, send: Send, patience_s: float) -> None:
        self._feed, self._receive, self._transmit = feed, receive, send
        self._patience_s = patience_s
        self._wants = False
        self._number = self._snapshots = 0
        self._unanswered_s: float | None = None

    async def run(self, hello: str, changed: asyncio.Event) -> None:
        """Receive and send at the same time; the first to end ends both."""
        tasks = [
            asyncio.create_task(self._listen(changed)),
            asyncio.create_task(self._show(hello, changed)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            # Errors of a viewer that has left, or that did not read the close message, are normal.
            if isinstance(end, Exception) and not isinstance(end, _GONE):
                raise end

    async def _listen(self, changed: asyncio.Event) -> None:
        """Receive the viewer's requests."""
        while (message := await self._receive())["type"] == "websocket.receive":
            word = message.get("text")
            if word not in {"next", "pause"}:
                await self._close(UNKNOWN_WORD, "send next or pause")
                return
            self._wants = word == "next"
            self._unanswered_s = None
            changed.set()

    async def _show(self, hello: str, changed: asyncio.Event) -> None:
        """Send statistics and requested frames as they come."""
        try:
            await self._tell({"text": hello})
            while True:
                changed.clear()
                await self._send_news()
                if self._is_through():
                    farewell = self._close(ENDED, "the stream has ended")
                    await asyncio.wait_for(farewell, self._patience_s)
                    return
                await self._wait(changed)
        except asyncio.TimeoutError:
            # Its buffer can be full: the close message would wait behind the rest.
            await asyncio.wait_for(self._close(TOO_SLOW, "too slow"), self._patience_s)

    async def _send_news(self) -> None:
        if self._snapshots < self._feed.snapshots:
            seen, self._snapshots = self._snapshots, self._feed.snapshots
            await self._tell({"text": self._feed.stats_text(seen)})
        drawing = self._unanswered_s is not None
        if (self._wants or (self._feed.ended and drawing)) and self._number < self._feed.number:
            self._number, data = await self._feed.message()
            self._wants = False
            self._unanswered_s = asyncio.get_running_loop().time()
            await self._tell({"bytes": data})

    def _is_through(self) -> bool:
        """Return whether the stream has ended and its last statistics and frame were sent.

        No frame is sent to a viewer that pauses.
        """
        paused = not self._wants and self._unanswered_s is None
        return (
            self._feed.ended
            and self._snapshots == self._feed.snapshots
            and (paused or self._number == self._feed.number)
        )

    async def _wait(self, changed: asyncio.Event) -> None:
        """Wait for news; raise TimeoutError if the last frame is not confirmed in time."""
        left = None
        if self._unanswered_s is not None:
            waited = asyncio.get_running_loop().time() - self._unanswered_s
            left = max(self._patience_s - waited, 0)
        await asyncio.wait_for(changed.wait(), left)

    async def _tell(self, content: dict[str, Any]) -> None:
        """Send a message, with a time-out."""
        await asyncio.wait_for(self._send({"type": "websocket.send", **content}), self._patience_s)

    async def _close(self, code: int, reason: str) -> None:
        await _close(self._send, code, reason)

    async def _send(self, message: Message) -> None:
        """Send a message of one task, unless the other or the server has closed the connection.

        Raises:
            ConnectionAbortedError: one of them has.
        """
        try:
            await self._transmit(message)
        except RuntimeError as error:
            raise ConnectionAbortedError(str(error)) from None


async def _close(send: Send, code: int, reason: str) -> None:
    await send({"type": "websocket.close", "code": code, "reason": reason})
