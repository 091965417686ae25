"""Images of a list of files, where those that cannot be decoded may be skipped and counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.images import read_image
from msfnet_runtime.source import SourceBase, SourceHealth

LOGGER = logging.getLogger("msfnet_runtime.sources")

T = TypeVar("T")


class SlowLog:
    """Warns at most once per second, and then says how many warnings were held back."""

    def __init__(self) -> None:
        self._next = 0.0
        self._held = 0

    def __call__(self, text: str) -> None:
        """Warn, unless a warning went out less than a second ago."""
        now = time.monotonic()
        if now < self._next:
            self._held += 1
            return
        LOGGER.warning("%s%s", text, f" (and {self._held} more)" if self._held else "")
        self._next, self._held = now + 1, 0


class FileSource(SourceBase):
    """A source that reads image files.

    Args:
        skip_bad: count and skip those that cannot be decoded.
    """

    def __init__(self, *, skip_bad: bool = False) -> None:
        self._skip_bad = skip_bad
        self._skipped = 0
        self._log = SlowLog()

    @property
    def health(self) -> SourceHealth:
        """How many images were skipped."""
        return SourceHealth(skipped=self._skipped)

    def _images(
        self, files: Iterable[tuple[T, Path]]
    ) -> Iterator[tuple[int, T, Path, NDArray[np.uint8]]]:
        """Yield each file's position, its key, itself and its (H, W, 3) uint8 RGB image.

        Raises:
            MsfnetError: one cannot be decoded; where they are skipped, none can.
        """
        reason, given = "", 0
        for index, (key, file) in enumerate(files):
            try:
                image = read_image(file)
            except MsfnetError as error:
                if not self._skip_bad:
                    raise
                reason = reason or str(error)
                self._skipped += 1
                self._log(f"skipped: {error}")
                continue
            given += 1
            yield index, key, file, image
        if reason and not given:
            raise MsfnetError(f"none of the {self._skipped} images can be decoded: {reason}")
