"""The one error type that a user is meant to read."""

from __future__ import annotations


class MsfnetError(Exception):
    """Something the user can put right: one line that says what was wrong and what to do.

    Args:
        message: the line; it names parameters in words, never options of the command line.
        parameter: the parameter or the field of an options class that the user should change,
            where there is one; the command line adds the option that sets it.
    """

    def __init__(self, message: str, *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter
