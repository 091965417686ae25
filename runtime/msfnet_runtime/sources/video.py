"""Reads video files with PyAV."""

from __future__ import annotations

import itertools
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.source import SourceBase, SourceHealth
from msfnet_runtime.sources.decoding import PyavCapture
from msfnet_runtime.sources.images import LOGGER
from msfnet_runtime.sources.live import frame_rate
from msfnet_runtime.types import Frame

_PARTS = frozenset(
    b"RIFF ftyp moov mdat moof mfra sidx ssix styp free skip wide uuid meta udta pnot emsg".split()
)
"""Types of the top-level parts of mp4, mov and avi files."""

_CLOSE_S = 1.0
"""The longest time that closing waits for a read in progress."""

_STREAMED = (8, 8 + 0xFFFFFFFF)
"""Lengths of an avi's first chunk if its writer could not go back and fill it in."""

_COUNTED = (".mp4", ".mov", ".m4v")
"""Containers that list their frames; for others the number is estimated."""


class VideoSource(SourceBase):
    """Yields the frames of a video file as players show them.

    They are turned, mirrored and cut as the file specifies, and their pixels are square.

    Args:
        path: the file.
        skip_bad: skip and count damaged frames; play a file that is cut short up to there, and
            count the missing frames that an mp4 or mov lists.

    Raises:
        MsfnetError: PyAV is absent, or the file is empty, cut short or not a video; on reading,
            a frame is damaged.
    """

    def __init__(self, path: Path, *, skip_bad: bool = False) -> None:
        self._path = path
        self._skip_bad = skip_bad
        self._skipped = 0
        self._reading = threading.Lock()
        if not skip_bad:
            check_whole(path)
        self._capture = _open_capture(path)
        frames = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.length = frames if frames > 0 else None
        self.fps = frame_rate(self._capture, SourceBase.fps)

    @property
    def health(self) -> SourceHealth:
        """The number of damaged frames; at the end, also of missing ones."""
        return SourceHealth(skipped=self._skipped)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; timestamps are the file's own, or index / fps if it has none."""
        last = -1.0
        for index in itertools.count():
            with self._reading:
                if not self._capture.grab():
                    break
                read, image = self._capture.retrieve()
            seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            last = seconds if seconds > last else max(last + 1 / self.fps, 0.0)
            if not read or image is None:
                self._skip(index)
                continue
            yield Frame(np.ascontiguousarray(image[..., ::-1], np.uint8), index, last)
        self._end(index)

    def close(self) -> None:
        """Close the file, unless a read in another thread hangs, which would crash."""
        if self._reading.acquire(timeout=_CLOSE_S):
            self._capture.release()
            self._reading.release()

    def _skip(self, index: int) -> None:
        if not self._skip_bad:
            raise MsfnetError(
                f"frame {index} of {self._path} is damaged; replace the video, or encode it again"
            )
        self._skipped += 1

    def _end(self, index: int) -> None:
        """Count the frames missing after ``index``, and warn about those that cannot be decoded."""
        if index == self._skipped:
            raise MsfnetError(f"no frame of {self._path} can be decoded; convert it to H.264 .mp4")
        if self._skip_bad and self._path.suffix.lower() in _COUNTED:
            self._skipped += max((self.length or 0) - index, 0)
        if self._skipped:
            LOGGER.warning("%s: %d frames cannot be decoded", self._path, self._skipped)


def _open_capture(path: Path) -> PyavCapture:
    """Open a file by its absolute path, because FFmpeg reads `a:b.mp4` as protocol `a`.

    Raises:
        MsfnetError: the file is empty, cut short or not a video, or PyAV is absent.
    """
    try:
        return PyavCapture(str(path.absolute()), name=str(path))
    except OSError as error:
        check_whole(path)
        raise MsfnetError(f"{path} {error}; name another, or convert it to H.264 .mp4") from None


def check_whole(path: Path) -> None:
    """Refuse mp4, mov and avi files that are shorter than their container states.

    Other containers can be cut anywhere, and are played up to there.

    Raises:
        MsfnetError: the file is missing, unreadable, empty or cut short.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe states nothing, and is read only once
            return
        size = status.st_size
        stated = _stated_bytes(path, size)
    except OSError as error:
        raise MsfnetError(f"cannot read {path}: {error.strerror}; check the path") from None
    if size == 0:
        raise MsfnetError(f"{path} is empty; replace it")
    if stated > size:
        raise MsfnetError(f"{path} is cut short: {size} of {stated} bytes; copy the whole file")


def _stated_bytes(path: Path, size: int) -> int:
    """Return where the last part of an mp4, mov or avi ends; 0 for other files.

    The parts are the top-level boxes of an mp4 or mov (ISO/IEC 14496-12, 4.2: a 32-bit big-endian
    size and a type; size 1 means that a 64-bit size follows, 0 that the box lasts until the end
    of the file) and the RIFF chunks of an avi. Bytes behind them, for example of an upload or a
    dash camera, are no damage.
    """
    with path.open("rb") as file:
        head = file.read(12)
        avi = head[:4] == b"RIFF"
        if not avi and head[4:8] not in _PARTS:
            return 0
        position = 0
        while position < size:
            file.seek(position)
            part = file.read(16)
            if avi:
                kind, length = part[:4], 8 + int.from_bytes(part[4:8], "little")
                if length in _STREAMED:  # written to a pipe, which knows no length
                    return size
            else:
                length, kind = int.from_bytes(part[:4], "big"), part[4:8]
                if length == 1:
                    length = int.from_bytes(part[8:16], "big")
            if kind not in _PARTS or length < 8:  # bytes behind the last part, or until the end
                return position if position else size
            position += length + (avi and length % 2)
    return position
