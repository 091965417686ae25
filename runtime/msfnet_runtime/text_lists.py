"""Reads the lines of lists, calibrations and time stamps, however they were saved."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path, PurePath

from msfnet_runtime.errors import MsfnetError

_LARGEST = 64_000_000
"""Bytes; the lists of the largest public data sets have a tenth of that."""

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Return the lines of a text file with their numbers, from 1.

    Blank lines and comments, which start with ``#``, are left out, and so are byte order marks and
    blanks at both ends of a line. Text is UTF-8 or, as its mark says, UTF-16; what is neither was
    saved as Windows-1252, which Latin-1 is a part of.

    Raises:
        MsfnetError: it cannot be read, is not text, or is longer than any list.
    """
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST:
            raise OSError
        content = file.read_bytes()
    except (OSError, ValueError):  # a name with NUL is a ValueError
        raise MsfnetError(f"{file} is not a readable list; check the path") from None
    lines = enumerate(_decode(content, file).splitlines(), 1)
    stripped = ((number, line.strip()) for number, line in lines)
    return [(number, line) for number, line in stripped if line and not line.startswith("#")]


def _decode(content: bytes, file: Path) -> str:
    encodings = ["utf-16"] if content.startswith(_UTF16) else ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise MsfnetError(f"{file} is not a text file; save the list as UTF-8")


def is_header(words: Sequence[str]) -> bool:
    """Return whether the first line of a list names its columns: no word has a file's suffix."""
    return not any(PurePath(word).suffix or "/" in word for word in words)
