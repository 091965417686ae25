"""Words for what is counted in messages and reports."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """Return e.g. ``1 drive``, ``2 drives``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
