"""Who may look: the right host name, the page's own origin, and the token where there is one."""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.web.viewer import Receive, Scope, Send

App = Callable[[Scope, Receive, Send], Awaitable[None]]

MIN_TOKEN = 16
"""Characters of a token; fewer could be tried out."""

HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Sent with every answer: nothing but this server is loaded, framed by nobody, kept nowhere."""


class Guard:
    """Lets requests through to ``app`` that may pass, and refuses the others in one line.

    A name that an attacker's server resolves to this machine (DNS rebinding) is no name of this
    machine, so ``Host`` must be an address or a name of it. A page of another site may open a
    WebSocket here, so ``Origin`` must be this page. The token comes as ``?token=`` once, then as
    a cookie that scripts cannot read and other sites do not send.

    Args:
        app: what is guarded.
        host: the address that is listened on.
        port: its port.
        token: what a viewer must know; None lets all of this machine in.
    """

    def __init__(self, app: App, host: str, port: int, token: str | None) -> None:
        self._app, self._host, self._token = app, host, token
        self._cookie = f"msfnet_token_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        query = parse_qs(scope["query_string"].decode("latin-1"))
        offered = query.get("token", [""])[0]
        refusal = self._refusal(scope, headers, offered)
        if scope["type"] == "http":
            send = _with_headers(
                send, self._set_cookie() if self._token and offered and not refusal else None
            )
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _refuse(send, *refusal)
        else:
            await receive()
            await send({"type": "websocket.close"})

    def _refusal(
        self, scope: Scope, headers: dict[str, str], offered: str
    ) -> tuple[int, str] | None:
        """Return the status and the line with which to refuse, if so."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return 421, "This server is not known by that name; open it by its address.\n"
        origin = headers.get("origin")
        if scope["type"] == "websocket" and origin and urlsplit(origin).netloc != host:
            return 403, "Another site may not look.\n"
        if self._token and not (
            _same(offered, self._token)
            or _same(_cookies(headers.get("cookie", "")).get(self._cookie, ""), self._token)
        ):
            return 401, "Open the page with its token: /?token=...\n"
        return None

    def _is_ours(self, host: str) -> bool:
        """Tell whether a ``Host`` header can mean this server."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if is_loopback(self._host):
            return is_loopback(name)
        own = socket.gethostname().lower()
        return _is_address(name) or name in {"localhost", own, f"{own}.local", self._host.lower()}

    def _set_cookie(self) -> str:
        return f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    if host == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def check_token(host: str, token: str | None) -> None:
    """Refuse to show a stream to a network without a token, or with one that can be guessed.

    Raises:
        MsfnetError: with the command that makes a token.
    """
    make = "python -c 'import secrets; print(secrets.token_urlsafe())' makes one"
    if token is None:
        if not is_loopback(host):
            raise MsfnetError(
                f"{host} shows the stream to the network, which needs a token; set "
                f"MSFNET_WEB_TOKEN ({make}), or serve on 127.0.0.1",
                parameter="web_token",
            )
    elif not re.fullmatch(rf"[A-Za-z0-9._~-]{{{MIN_TOKEN},}}", token):
        raise MsfnetError(
            f"a token has at least {MIN_TOKEN} letters, digits or any of . _ ~ -; {make}"
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _same(offered: str, token: str) -> bool:
    """Compare in a time that does not tell where they differ."""
    return hmac.compare_digest(offered.encode(), token.encode())


def _cookies(header: str) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}


def _with_headers(send: Send, cookie: str | None) -> Send:
    """Return a ``send`` that adds the headers of every answer, and a cookie."""
    added = [(key.encode(), value.encode()) for key, value in HEADERS.items()]
    if cookie:
        added.append((b"set-cookie", cookie.encode()))

    async def send_guarded(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return send_guarded


async def _refuse(send: Send, status: int, line: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": line.encode()})
