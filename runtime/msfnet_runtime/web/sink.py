"""Shows frames and depth on a live page."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.libraries import require
from msfnet_runtime.sink import SinkBase
from msfnet_runtime.sinks.options import DEFAULTS, SinkOptions
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.stream_stats import StreamStats
from msfnet_runtime.types import DepthMap, Frame
from msfnet_runtime.web.feed import Feed, Viewers
from msfnet_runtime.web.guard import Guard, check_token
from msfnet_runtime.web.message import hello_text
from msfnet_runtime.web.server import listen, serving

STATIC = Path(__file__).parent / "static"

CONNECTIONS = 128
"""Largest number of connections, viewers' and requests'."""

_FAREWELL_S, _LOOK_S = 1.0, 0.01
"""Time for the viewers to receive the end of the stream, and between two checks, seconds."""


class WebSink(SinkBase):
    """Shows the newest frame, its depth and the stream's statistics to browsers.

    Writing only stores the frame; it is encoded on request, once for all viewers, so that no
    viewer slows the stream. Pass :meth:`observe` to the pipeline as an observer. The server runs
    while the context is open.

    Args:
        spec: the model's spec; its depth range sets the colours and the unit.
        host: the address to listen on; any but a loopback address needs a token.
        port: a TCP port; 0 selects a free one.
        token: access token for the viewers: at least 16 letters, digits or any of ``. _ ~ -``.
        options: the camera if the source does not know it; the page has its own colours.
        max_width: largest width of the depth that is sent, pixels; wider ones are subsampled by
            an integer step.
        patience_s: time-out for a viewer to read a message or to respond to a frame.

    Raises:
        MsfnetError: a library or the token is missing; on entering, the port is not available.
    """

    def __init__(
        self,
        spec: ModelSpec,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        *,
        options: SinkOptions = DEFAULTS,
        max_width: int = 1280,
        patience_s: float = 10.0,
    ) -> None:
        require("starlette", "uvicorn", "websockets")
        check_token(host, token)
        self._spec, self._host, self._port, self._token = spec, host, port, token
        self._options, self._patience_s = options, patience_s
        self.feed = Feed(spec, max_width)
        """The content for the viewers, and their number."""

    @property
    def address(self) -> str:
        """The page's address with the token, as this machine can reach it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        named = f"[{host}]" if ":" in host else host
        return f"http://{named}:{self._port}/" + (f"?token={self._token}" if self._token else "")

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Store the newest frame for the viewers."""
        self.feed.put(self._options.with_camera(frame), depth)

    def observe(self, stats: StreamStats) -> None:
        """Store a snapshot; an observer of :func:`~msfnet_runtime.pipeline.run_pipeline`."""
        self.feed.observe(stats)

    @contextmanager
    def _opened(self) -> Iterator[None]:
        listening = listen("the live page", self._host, self._port, self._patience_s)
        self._port = listening.getsockname()[1]
        with serving(self._app(), listening, CONNECTIONS):
            try:
                yield
            finally:
                self._say_goodbye()

    def _app(self) -> Any:
        """Return the guarded ASGI application: the page at ``/``, its WebSocket at ``/ws``."""
        from starlette.applications import Starlette
        from starlette.routing import Mount, WebSocketRoute
        from starlette.staticfiles import StaticFiles

        @asynccontextmanager
        async def opened(app: Starlette) -> AsyncIterator[None]:
            self.feed.open()
            yield

        viewers: Any = Viewers(self.feed, hello_text(self._spec), self._patience_s)
        page = Mount("/", StaticFiles(directory=STATIC, html=True))
        app = Starlette(routes=[WebSocketRoute("/ws", viewers), page], lifespan=opened)
        return Guard(app, self._host, self._port, self._token)

    def _say_goodbye(self) -> None:
        """Send the viewers the last frame and the end of the stream, for a limited time."""
        self.feed.end()
        due = time.monotonic() + min(_FAREWELL_S, self._patience_s)
        while self.feed.viewers and time.monotonic() < due:
            time.sleep(_LOOK_S)


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``; an IPv6 address is in brackets.

    Raises:
        MsfnetError: it is neither.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise MsfnetError(
            f"{text!r} is not an address; write HOST:PORT, for example 127.0.0.1:8000",
            parameter="web_address",
        )
    return host.removeprefix("[").removesuffix("]"), int(port)
