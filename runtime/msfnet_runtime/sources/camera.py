"""Cameras of this machine and network streams: live sources, read through OpenCV."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator

import cv2
import numpy as np

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.images import quiet
from msfnet_runtime.source import SourceBase
from msfnet_runtime.types import Frame

TIMEOUT_MS = 10_000
"""How long a network stream may stay silent before it counts as ended."""


def frame_rate(capture: cv2.VideoCapture, fallback: float) -> float:
    """Return what a capture says of its frame rate, where that can be true."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if math.isfinite(fps) and 0 < fps <= 1000 else fallback


class LiveSource(SourceBase):
    """Frames as they arrive, stamped on arrival; the end of the stream ends the frames.

    A lost camera ends the stream too, rather than failing: what was recorded until then stays.
    """

    live = True

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture
        self.fps = frame_rate(capture, SourceBase.fps)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; timestamps are seconds since the first."""
        index, start = 0, 0.0
        while True:
            read, image = self._capture.read()
            if not read or image is None:
                return
            now = time.monotonic()
            start = start or now
            yield Frame(np.ascontiguousarray(image[..., ::-1], np.uint8), index, now - start)
            index += 1

    def close(self) -> None:
        """Give the camera back."""
        self._capture.release()


class CameraSource(LiveSource):
    """A camera by its index.

    Raises:
        MsfnetError: it cannot be opened.
    """

    def __init__(self, index: int) -> None:
        quiet()
        capture = cv2.VideoCapture(index)
        if not capture.isOpened():
            raise MsfnetError(
                f"camera {index} cannot be opened; check that it is plugged in, that no other "
                "program holds it and that you may read it, or try another index"
            )
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # an older frame is worth nothing
        super().__init__(capture)


class StreamSource(LiveSource):
    """A network stream by its address: rtsp, http, udp and what else FFmpeg knows.

    Raises:
        MsfnetError: it does not answer within :data:`TIMEOUT_MS`, or holds no video.
    """

    def __init__(self, url: str) -> None:
        quiet()
        timeouts = [
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS),
        ]
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts)
        if not capture.isOpened():
            raise MsfnetError(
                f"{without_password(url)} cannot be opened; check the address, and that the "
                "camera or server is on and reachable from here"
            )
        super().__init__(capture)


def without_password(url: str) -> str:
    """Return an address fit to be shown: ``rtsp://user:secret@host`` loses ``user:secret``."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)
