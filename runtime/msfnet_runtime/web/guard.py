"""Controls access to the live page: by host name, by origin and by token."""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msfnet_runtime.errors import MsfnetError

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MIN_TOKEN = 16
"""Smallest number of characters of a token; shorter ones can be guessed."""

HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Headers of every response: the page loads nothing from other servers, and is not cached."""


class Guard:
    """Passes permitted requests to an application, and refuses the others with one line.

    ``Host`` must be an address or a name of this machine, so that a name which an attacker's
    server resolves to this machine (DNS rebinding) is refused. ``Origin`` of a WebSocket must be
    this page, because a page of another site can open a WebSocket here. The token comes once as
    ``?token=``, then as a cookie that scripts cannot read and other sites do not send.

    Args:
        app: the guarded application.
        host: the address that the server listens on.
        port: its port.
        token: required of every viewer; None admits everybody on this machine.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, token: str | None) -> None:
        self._app, self._host, self._token = app, host, token
        self._cookie = f"msfnet_token_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one request."""
        from starlette.datastructures import MutableHeaders
        from starlette.requests import HTTPConnection
        from starlette.responses import PlainTextResponse
        from starlette.websockets import WebSocketClose

        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        token = request.query_params.get("token", "")
        refusal = self._refusal(request, token)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if self._token and token and not refusal:
                    cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
                    headers.append("set-cookie", cookie)
            await send(message)

        app = self._app
        if refusal:
            status, line = refusal
            app = PlainTextResponse(line, status) if scope["type"] == "http" else WebSocketClose()
        await app(scope, receive, send_guarded)

    def _refusal(self, request: HTTPConnection, token: str) -> tuple[int, str] | None:
        """Return the status and the line of a refusal; None admits the request."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if not self._is_own_name(host):
            return 421, "This server does not have that name; open it by its address.\n"
        if request.scope["type"] == "websocket" and origin and urlsplit(origin).netloc != host:
            return 403, "Pages of other sites are refused.\n"
        known = (token, request.cookies.get(self._cookie, ""))
        if self._token and not any(
            hmac.compare_digest(each.encode(), self._token.encode()) for each in known
        ):
            return 401, "Open the page with its token: /?token=...\n"
        return None

    def _is_own_name(self, host: str) -> bool:
        """Return whether a ``Host`` header can mean this server."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if is_loopback(self._host):
            return is_loopback(name)
        own = socket.gethostname().lower()
        return _is_address(name) or name in {"localhost", own, f"{own}.local", self._host.lower()}


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def check_token(host: str, token: str | None) -> None:
    """Require a token on a network, and refuse one that can be guessed.

    Raises:
        MsfnetError: with the command that creates a token.
    """
    create = "create one with python -c 'import secrets; print(secrets.token_urlsafe())'"
    if token is None:
        if not is_loopback(host):
            raise MsfnetError(
                f"a live page on {host or 'all addresses'} is visible on the network and needs a "
                f"token; set MSFNET_WEB_TOKEN ({create}), or serve on 127.0.0.1",
                parameter="web_token",
            )
    elif not re.fullmatch(rf"[A-Za-z0-9._~-]{{{MIN_TOKEN},}}", token):
        raise MsfnetError(
            f"a token has at least {MIN_TOKEN} letters, digits or any of . _ ~ -; {create}",
            parameter="web_token",
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
