"""Reads lists of image files; those that cannot be decoded can be skipped and counted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.channel import CLOCK, Clock
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.images import read_image
from msfnet_runtime.source import SourceBase, SourceHealth

LOGGER = logging.getLogger("msfnet_runtime.sources")

T = TypeVar("T")


class SlowLog:
    """Logs at most one warning per second, with the number of those it suppressed."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._clock = clock
        self._next = 0.0
        self._suppressed = 0

    def __call__(self, text: str) -> None:
        """Log a warning, unless the last one is less than a second old."""
        now = self._clock.now()
        if now < self._next:
            self._suppressed += 1
            return
        LOGGER.warning("%s%s", text, f" (and {self._suppressed} more)" if self._suppressed else "")
        self._next, self._suppressed = now + 1, 0


class FileSource(SourceBase):
    """Reads image files.

    Args:
        skip_bad: skip and count images that cannot be decoded.
    """

    def __init__(self, *, skip_bad: bool = False) -> None:
        self._skip_bad = skip_bad
        self._skipped = 0
        self._log = SlowLog()

    @property
    def health(self) -> SourceHealth:
        """The number of skipped images."""
        return SourceHealth(skipped=self._skipped)

    def _images(
        self, files: Iterable[tuple[T, Path]]
    ) -> Iterator[tuple[int, T, Path, NDArray[np.uint8]]]:
        """Yield position, key, path and (H, W, 3) uint8 RGB image of each file.

        Raises:
            MsfnetError: an image cannot be decoded; with ``skip_bad``, none can be.
        """
        reason, decoded = "", 0
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
            decoded += 1
            yield index, key, file, image
        if reason and not decoded:
            raise MsfnetError(f"none of the {self._skipped} images can be decoded: {reason}")
