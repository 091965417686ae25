"""How long work tells its caller how far it is; the command line draws it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called as ``progress(done, total, what)``; ``total`` is 0 when it is not known."""


def silent(done: int, total: int, what: str) -> None:
    """Report nothing: the default of every function that takes a ``Progress``."""
