"""Hides passwords and tokens of addresses in everything that is shown or written."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"(?P<scheme>\b[a-zA-Z][\w+.-]*:/+)(?P<rest>[^\s`'\"]*)")

_BARE = re.compile(r"^[^\s:/@]*:(?!/)\S*@(?=\S)")
"""Credentials of an address without its scheme, such as ``admin:secret@10.0.0.9/video``."""

_VALUE = re.compile(
    r"(?P<key>(?:pass|pwd|psw|pw|token|secret|key|auth|sig|cred|session)[\w-]*\s*=\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^&;\s]*)",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Return an address, or a text that contains some, without what only its owner may know.

    User and password are dropped, also where the password contains ``@``, ``/``, ``?`` or ``#``
    unencoded; so is the query, which many cameras take passwords in; elsewhere the values of keys
    such as ``password=`` are replaced. When in doubt, more is hidden.
    """
    text = _ADDRESS.sub(lambda found: found["scheme"] + _shown(found["rest"]), text)
    return _VALUE.sub(lambda found: found["key"] + "…", _BARE.sub("", text))


def _shown(rest: str) -> str:
    """Return what follows the scheme without credentials, query and fragment."""
    before, at, after = rest.rpartition("@")
    if at and (":" in before or not set(before) & set("/?#")):
        rest = after
    shown = re.split(r"[?#]", rest, maxsplit=1)[0]
    return shown if shown == rest else f"{shown}?…"
