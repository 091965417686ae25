"""One viewer: it asks for a frame, gets the newest, and answers before it gets another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from msfnet_runtime.web.feed import Feed

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_VIEWERS = 32
"""At once; each has one frame in its buffer at most."""

ENDED, UNKNOWN_WORD, TOO_SLOW, TOO_MANY = 1000, 1003, 1008, 1013
"""Codes of RFC 6455 and its registry with which viewers are closed."""

_GONE = (OSError, asyncio.TimeoutError)


class Viewers:
    """The WebSocket's application.

    A viewer says ``next`` for a frame newer than its last, ``pause`` for none. The first text it
    gets is the hello, then statistics as they come, between them the frames it asked for. When the
    stream has ended it gets the last of each, and is closed with the code 1000.

    Args:
        feed: what is shown.
        hello: the first text.
        patience_s: how long a viewer may take to read a message or to answer a frame; then it is
            dropped.
    """

    def __init__(self, feed: Feed, hello: str, patience_s: float) -> None:
        self._feed, self._hello, self._patience_s = feed, hello, patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one viewer until it leaves or is dropped."""
        await receive()
        await send({"type": "websocket.accept"})
        if self._feed.viewers >= MAX_VIEWERS:
            await _close(send, TOO_MANY, "too many viewers")
            return
        viewer = _Viewer(self._feed, receive, send, self._patience_s)
        changed = self._feed.enter()
        try:
            await viewer.run(self._hello, changed)
        finally:
            self._feed.leave(changed)


class _Viewer:
    """What one viewer has and wants."""

    def __init__(self, feed: Feed, receive: Receive, send: Send, patience_s: float) -> None:
        self._feed, self._receive, self._send = feed, receive, send
        self._patience_s = patience_s
        self._wants = False
        self._number = self._snapshots = 0
        self._unanswered_s: float | None = None

    async def run(self, hello: str, changed: asyncio.Event) -> None:
        """Listen and show at once; whichever ends first ends both."""
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
            # A viewer that left while something was sent to it, or did not even take the close.
            if isinstance(end, Exception) and not isinstance(end, _GONE):
                raise end

    async def _listen(self, changed: asyncio.Event) -> None:
        """Take what the viewer says."""
        while (said := await self._receive())["type"] == "websocket.receive":
            word = said.get("text")
            if word not in {"next", "pause"}:
                await _close(self._send, UNKNOWN_WORD, "say next or pause")
                return
            self._wants = word == "next"
            self._unanswered_s = None
            changed.set()

    async def _show(self, hello: str, changed: asyncio.Event) -> None:
        """Send what is new and asked for."""
        try:
            await self._tell({"text": hello})
            while True:
                changed.clear()
                await self._send_news()
                if self._is_through():
                    farewell = _close(self._send, ENDED, "the stream has ended")
                    await asyncio.wait_for(farewell, self._patience_s)
                    return
                await self._wait(changed)
        except asyncio.TimeoutError:
            # Its buffer is full: a closing message would wait behind the rest.
            await asyncio.wait_for(_close(self._send, TOO_SLOW, "too slow"), self._patience_s)

    async def _send_news(self) -> None:
        if self._snapshots < self._feed.snapshots:
            seen, self._snapshots = self._snapshots, self._feed.snapshots
            await self._tell({"text": self._feed.stats_text(seen)})
        if self._wants and self._number < self._feed.number:
            message = await self._feed.message()
            self._number, self._wants = message.number, False
            self._unanswered_s = asyncio.get_running_loop().time()
            await self._tell({"bytes": message.data})

    def _is_through(self) -> bool:
        """Tell whether the stream has ended and the last frame was sent, or is not wanted."""
        drawing = self._unanswered_s is not None
        return self._feed.ended and (self._number == self._feed.number or not drawing)

    async def _wait(self, changed: asyncio.Event) -> None:
        """Wait for news; raise TimeoutError when the last frame stays unanswered too long."""
        left = None
        if self._unanswered_s is not None:
            waited = asyncio.get_running_loop().time() - self._unanswered_s
            left = max(self._patience_s - waited, 0)
        await asyncio.wait_for(changed.wait(), left)

    async def _tell(self, content: dict[str, Any]) -> None:
        """Send, in the time a viewer is given."""
        await asyncio.wait_for(self._send({"type": "websocket.send", **content}), self._patience_s)


async def _close(send: Send, code: int, reason: str) -> None:
    await send({"type": "websocket.close", "code": code, "reason": reason})
