"""Defines how long work reports its progress; the command line displays it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called as ``progress(done, total, what)``; ``total`` is 0 if unknown."""


def silent(done: int, total: int, what: str) -> None:
    """Report nothing: the default of functions with a ``Progress`` parameter."""
