"""Formats counts and shapes in messages and reports."""

from __future__ import annotations

from collections.abc import Iterable


def counted(number: int, thing: str) -> str:
    """Return a count with its noun, such as ``1 drive`` or ``2 drives``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def shape_text(shape: Iterable[int | str]) -> str:
    """Return a shape such as ``1x3x32x64``."""
    return "x".join(map(str, shape))
