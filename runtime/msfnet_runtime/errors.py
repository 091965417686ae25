"""Defines the error type that is meant for users."""

from __future__ import annotations


class MsfnetError(Exception):
    """An error that the user can correct: one line that says what is wrong and what to do.

    Args:
        message: the line; it names parameters in words, never options of the command line.
        parameter: the parameter, or the field of an options class, that the user should change,
            if there is one; the command line adds the option that sets it.
    """

    def __init__(self, message: str, *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class NothingFoundError(MsfnetError):
    """A folder holds nothing of the kind that was looked for, so that it may be another kind."""
