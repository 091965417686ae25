"""Controls access to what is served: by host name, by origin and by token."""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from msfnet_runtime.errors import MsfnetError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::[0-9]{1,5})?")
"""A ``Host`` header: a name or an address, with or without a port."""

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

    def __init__(self, app: ASGIApp, host: str, port: int, token: str | None = None) -> None:
        self._app, self._host, self._token = app, host, token
        self._cookie = f"msfnet_token_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        tokens = [value for name, value in query if name == "token"]
        refusal = self._refusal(scope, tokens)
        added = dict(HEADERS)
        if self._token and self._is_known(tokens) and not refusal:
            added["set-cookie"] = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        latin = [(name.encode(), value.encode()) for name, value in added.items()]

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [each for each in message["headers"] if each[0].decode() not in added]
                message = {**message, "headers": kept + latin}
            await send(message)

        if refusal:
            await _refuse(scope, send_guarded, *refusal)
        else:
            await self._app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope, tokens: list[str]) -> tuple[int, str] | None:
        """Return the status and the line of a refusal; None admits the request."""
        hosts, origins = _headers(scope, b"host"), _headers(scope, b"origin")
        if not (len(hosts) == 1 and self._is_own_name(hosts[0])):
            return 421, "This server does not have that name; open it by its address.\n"
        own = [[f"{scheme}://{hosts[0]}"] for scheme in ("http", "https")]
        if scope["type"] == "websocket" and origins and origins not in own:
            return 403, "Pages of other sites are refused.\n"
        if self._token and not self._is_known([*tokens, *self._cookies(scope)]):
            return 401, "Open the page with its token: /?token=...\n"
        return None

    def _cookies(self, scope: Scope) -> list[str]:
        """Return the values of the cookie; what other cookies of this host hold does not matter."""
        pairs = ";".join(_headers(scope, b"cookie")).split(";")
        named = [pair.strip().partition("=") for pair in pairs]
        return [value for name, _, value in named if name == self._cookie]

    def _is_known(self, tokens: list[str]) -> bool:
        """Return whether one is the token, in a time that does not depend on the difference."""
        token = (self._token or "").encode()
        return any(hmac.compare_digest(each.encode(), token) for each in tokens)

    def _is_own_name(self, host: str) -> bool:
        """Return whether a ``Host`` header can mean this server."""
        found = _HOST.fullmatch(host)
        if not found:
            return False
        name = found[1].strip("[]").lower()
        if is_loopback(self._host):
            return is_loopback(name)
        own = socket.gethostname().lower()
        return _is_address(name) or name in {"localhost", own, f"{own}.local", self._host.lower()}


def _headers(scope: Scope, wanted: bytes) -> list[str]:
    """Return the values of one header, whose name is in lower case."""
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]


async def _refuse(scope: Scope, send: Send, status: int, line: str) -> None:
    """Answer with one line, or close a WebSocket before it is accepted."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
    else:
        await respond(send, status, "text/plain; charset=utf-8", line.encode())


async def respond(send: Send, status: int, content_type: str, body: bytes) -> None:
    """Send a whole answer."""
    headers = [(b"content-type", content_type.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


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
