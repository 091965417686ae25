"""Runs the page's server: uvicorn in a separate thread with its own event loop."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from msfnet_runtime.errors import MsfnetError, requires
from msfnet_runtime.web.feed import Feed
from msfnet_runtime.web.guard import Guard
from msfnet_runtime.web.viewer import Viewers

STATIC = Path(__file__).parent / "static"

_MAX_WORD = 64
"""Largest message from a viewer, bytes."""

_PING_S = 20.0
"""Time between pings, and the time-out of the response, which detects lost viewers."""

_GRACE_S = 2
"""Time that viewers have to close when the server stops, seconds."""


@contextmanager
def serving(app: Any, listening: socket.socket) -> Iterator[None]:
    """Serve an application in a thread, and close all viewers and the socket at the end.

    Args:
        app: the ASGI application.
        listening: a bound socket, in which earlier connections wait; the server closes it.
    """
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
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, args=([listening],), name="msfnet-web", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


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
    """Return a socket that listens on an address; port 0 selects a free one.

    On Linux a connection is closed when the viewer has not read for twice ``patience_s``.

    Raises:
        MsfnetError: the port is in use or not permitted, or the address does not exist.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family)
    except OSError as error:
        raise MsfnetError(
            f"cannot serve the live page on {host}:{port}: {error.strerror}; choose another address"
        ) from None
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Connections inherit it: Linux then discards data that a lost viewer never reads.
        timeout_ms = round(2000 * patience_s)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
    return listening


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


def check_libraries() -> None:
    """Check for the libraries of the page.

    Raises:
        MsfnetError: one of them is absent; with the command that installs them.
    """
    with requires("the server of the live page", "web"):
        import starlette
        import uvicorn
        import websockets
    del starlette, uvicorn, websockets
