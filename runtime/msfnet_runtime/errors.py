"""Defines the error type that is meant for users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


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


@contextmanager
def requires(library: str, extra: str) -> Iterator[None]:
    """Report a failed import of an optional library with the command that installs it.

    Args:
        library: name of the library in the message.
        extra: the extra of msfnet that contains it.

    Raises:
        MsfnetError: an import in the ``with`` block failed.
    """
    try:
        yield
    except ImportError:
        raise MsfnetError(
            f"{library} is not installed; run `pip install 'msfnet[{extra}]'`"
        ) from None
