"""A recording that grows in its own file and takes its name when it is finished."""

from __future__ import annotations

import os
from pathlib import Path

from msfnet_runtime.files import reserve_growing


class GrowingFile:
    """A file object for a muxer whose content is whole at every mark.

    After the first error nothing is written any more: the file ends at the last mark, and what a
    muxer would still change in it, such as its header, stays as it was.

    Raises:
        MsfnetError: the file cannot be made.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self.partial = reserve_growing(target)
        self._file = self.partial.open("r+b", buffering=0)
        self._head = self._whole = 0
        self.broken = False

    @property
    def empty(self) -> bool:
        """Whether nothing but a header was written."""
        return self._whole <= self._head

    def write(self, data: bytes) -> int:
        """Write all of ``data``; nothing after an error.

        Raises:
            OSError: the disk is full, or the like.
        """
        left = memoryview(b"" if self.broken else data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self.broken = True
            self._file.truncate(self._whole)
            raise
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()

    def begin(self) -> None:
        """Say that the header is written."""
        self._head = self._whole = self._file.tell()

    def mark(self) -> None:
        """Say that all so far is whole."""
        self._whole = self._file.tell()

    def finish(self) -> None:
        """Close; the file takes its name."""
        self._file.close()
        self.partial.replace(self._target)

    def give_up(self) -> None:
        """Close under the partial name; a file that holds nothing is removed."""
        self._file.close()
        if self.empty:
            self.partial.unlink(missing_ok=True)
