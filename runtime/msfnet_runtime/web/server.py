"""The page's server: uvicorn with a thread and an event loop of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.web.feed import Feed
from msfnet_runtime.web.guard import Guard
from msfnet_runtime.web.viewer import Viewers

STATIC = Path(__file__).parent / "static"

_MAX_WORD = 64
"""Bytes that a viewer may say at once."""

_PING_S = 20.0
"""Between pings, and the time an answer may take: a viewer that went away is noticed."""

_GRACE_S = 2
"""Seconds that viewers have to close when the server stops."""


class Server:
    """Serves an application on an open socket until it is stopped.

    Args:
        app: the ASGI application.
        listening: a bound socket; the server closes it.
    """

    def __init__(self, app: Any, listening: socket.socket) -> None:
        import uvicorn

        config = uvicorn.Config(
            app,
            loop="asyncio",
            lifespan="on",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws_max_size=_MAX_WORD,
            ws_ping_interval=_PING_S,
            ws_ping_timeout=_PING_S,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="msfnet-web", daemon=True
        )

    def start(self) -> None:
        """Serve; connections made before it is up wait in the socket."""
        self._thread.start()

    def stop(self) -> None:
        """Close every viewer and the socket."""
        self._server.should_exit = True
        self._thread.join()


def make_app(
    feed: Feed, hello: str, host: str, port: int, token: str | None, patience_s: float
) -> Any:
    """Return the guarded ASGI application: the page at ``/``, its WebSocket at ``/ws``."""
    from starlette.applications import Starlette
    from starlette.routing import Mount, WebSocketRoute
    from starlette.staticfiles import StaticFiles

    @asynccontextmanager
    async def opened(app: Starlette) -> AsyncIterator[None]:
        feed.open()
        yield

    viewers: Any = Viewers(feed, hello, patience_s)
    routes = [WebSocketRoute("/ws", viewers), Mount("/", StaticFiles(directory=STATIC, html=True))]
    return Guard(Starlette(routes=routes, lifespan=opened), host, port, token)


def listen(host: str, port: int, patience_s: float) -> socket.socket:
    """Return a socket that listens on an address; port 0 takes a free one.

    Its connections break once the other side has not read for twice ``patience_s``, on Linux.

    Raises:
        MsfnetError: the port is in use or not permitted, or there is no such address.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family)
    except OSError as error:
        raise MsfnetError(
            f"cannot serve the live page on {host}:{port}: {error.strerror}; choose another address"
        ) from None
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Connections inherit it: what a dropped viewer never reads is thrown away by Linux.
        lost_ms = round(2000 * patience_s)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, lost_ms)
    return listening


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``; an IPv6 address stands in brackets.

    Raises:
        MsfnetError: it is no such text.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise MsfnetError(f"{text!r} is no address; write HOST:PORT, such as 127.0.0.1:8000")
    return host.removeprefix("[").removesuffix("]"), int(port)


def check_libraries() -> None:
    """Tell which command installs what the page needs.

    Raises:
        MsfnetError: one of the libraries is absent.
    """
    try:
        import starlette
        import uvicorn
        import websockets
    except ImportError:
        raise MsfnetError("the live page needs a server; pip install 'msfnet[web]'") from None
    del starlette, uvicorn, websockets
