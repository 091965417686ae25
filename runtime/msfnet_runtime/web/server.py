"""Serves an application in a thread, for whoever asks, without taking the stream's resources.

A stranger on the network, or a web page in a browser on this machine, can open connections before
any token is asked for. So their number is limited, for all and for each address; they end unless a
request comes; and the last descriptors of the process are left to the stream.
"""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msfnet_runtime.errors import MsfnetError

REQUEST_S = 10.0
"""Time for a request and its answer, from the connection or from the previous answer, seconds."""

_BACKLOG = 16
"""Largest number of connections that the system accepts before the limits are applied."""

_MAX_WORD = 64
"""Largest message from a viewer, bytes."""

_PING_S = 20.0
"""Time between pings, and the time-out of the response, which detects lost viewers."""

_GRACE_S = 2
"""Time that viewers have to close when the server stops, seconds."""


@contextmanager
def serving(
    app: Any, listening: socket.socket, connections: int, *, websockets: bool = True
) -> Iterator[None]:
    """Serve an application in a thread, and close all viewers and the socket at the end.

    Args:
        app: the ASGI application.
        listening: a bound socket, in which earlier connections wait; the server closes it.
        connections: largest number of open connections; half of them for each address.
        websockets: whether the application has WebSockets.
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=_limited(connections),
        ws="auto" if websockets else "none",
        lifespan="auto",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
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


def _limited(connections: int) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol of HTTP with limits on connections."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    descriptors = _descriptors()
    most = round(min(connections, descriptors / 4))

    class Limited(H11Protocol):
        """Closes a connection beyond the limits at once, and one without a request after a while.

        A connection that becomes a WebSocket gets another protocol, and stays.
        """

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """Count a new connection; its descriptor tells how many the process has left."""
            super().connection_made(transport)
            peers = [getattr(each, "client", None) for each in self.connections]
            own = sum(peer[0] == self.client[0] for peer in peers if peer and self.client)
            number = transport.get_extra_info("socket").fileno()
            if len(self.connections) > most or own > most / 2 or number > descriptors * 3 / 4:
                transport.abort()
            self._due = self.loop.call_later(REQUEST_S, self._expire)

        def connection_lost(self, exc: Exception | None) -> None:
            """Stop the time-out."""
            self._due.cancel()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            """Give the next request its time."""
            self._due.cancel()
            self._due = self.loop.call_later(REQUEST_S, self._expire)
            super().on_response_complete()

        def _expire(self) -> None:
            if self.transport.get_protocol() is self:
                self.transport.abort()

    return Limited


def _descriptors() -> float:
    """Return the largest number of descriptors that the process can have."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return math.inf
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def listen(what: str, host: str, port: int, patience_s: float = REQUEST_S) -> socket.socket:
    """Return a socket that listens on an address; port 0 selects a free one.

    On Linux a connection is closed when the viewer has not read for twice ``patience_s``.

    Args:
        what: what is served, for messages.
        host: the address.
        port: the port.
        patience_s: time for a viewer to read.

    Raises:
        MsfnetError: the port is in use or not permitted, or the address does not exist.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:  # UnicodeError: not a host name
        reason = getattr(error, "strerror", "not a host name").partition(" (")[0]
        raise MsfnetError(
            f"cannot serve {what} on {host}:{port}: {reason}; choose another address or port"
        ) from None
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Connections inherit it: Linux then discards data that a lost viewer never reads.
        timeout_ms = round(2000 * patience_s)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
    return listening
