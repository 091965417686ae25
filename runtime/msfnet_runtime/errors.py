"""Defines the error type that is meant for users."""

from __future__ import annotations

import unicodedata


class MsfnetError(Exception):
    """An error that the user can correct: one line that says what is wrong and what to do.

    Names and values out of files come into messages as they are: here line breaks, and what would
    command a terminal or turn the direction of writing, become escapes such as ``\\x1b``.

    Args:
        message: the line; it names parameters in words, never options of the command line.
        parameter: the parameter, or the field of an options class, that the user should change,
            if there is one; the command line adds the option that sets it.
    """

    def __init__(self, message: str, *, parameter: str | None = None) -> None:
        super().__init__("".join(map(_visible, message)))
        self.parameter = parameter


class NothingFoundError(MsfnetError):
    """A folder holds nothing of the kind that was looked for, so that it may be another kind."""


def _visible(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode("ascii")
