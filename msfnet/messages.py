"""Prints messages on standard error: as lines for people, or as JSON objects for programs.

It imports nothing of msfnet, so that it can report that a library everything needs is broken.
"""

from __future__ import annotations

import json
import logging
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class _Handler(logging.Handler):
    """Prints warnings and errors that libraries log."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(logging.WARNING)
        self.as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record, with the error that it carries in the same line."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[1]:
            text = f"{text}: {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        note(record.levelname.lower(), text)


_handlers: list[_Handler] = []
"""Those in use; the last one says how messages are printed."""


@contextmanager
def collected(*, as_json: bool) -> Iterator[None]:
    """Print what is logged in the ``with`` block too; as JSON, Python's warnings as well."""
    handler = _Handler(as_json=as_json)
    _handlers.append(handler)
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(as_json)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(handler)
        _handlers.pop()


def note(kind: str, text: str = "") -> None:
    """Print a message as ``kind: text``, or as a JSON object of one pair."""
    if _handlers and _handlers[-1].as_json:
        put(json.dumps({kind: text or True}))
    else:
        put(f"{kind}: {text}" if text else kind)


def put(line: str) -> None:
    """Print a line on standard error; work goes on where that cannot be written."""
    with suppress(OSError, ValueError):  # the device is full or gone, or the file is closed
        print(printable(line), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Return text that cannot command a terminal: control and format characters are escaped.

    Line breaks and tabs stay; a name that is not valid in the system's encoding shows its bytes.
    """
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(
        char if char in "\n\t" or unicodedata.category(char)[0] != "C" else _escaped(char)
        for char in text
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
