"""Network streams, read by PyAV: rtsp, http, tcp, udp and what else FFmpeg knows."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.images import quiet
from msfnet_runtime.sources.camera import LiveSource
from msfnet_runtime.sources.options import DEFAULTS, SourceOptions

if TYPE_CHECKING:
    import av

_LOW_DELAY = {
    "flags": "low_delay",
    "rtsp_transport": "tcp",  # over UDP lost packets are grey pictures
    "probesize": "1000000",
    "analyzeduration": "1000000",
}
"""FFmpeg's words for: hand every picture on as soon as it is there, and look ahead a second."""


_SINGLE_PICTURES = ("mjpeg", "mjpegb")
"""Codecs whose decoders patch a damaged picture without telling, unless told to refuse it."""


class StreamSource(LiveSource):
    """A network stream by its address.

    Raises:
        MsfnetError: PyAV is absent, or the address does not answer in time, or holds no video.
    """

    def __init__(self, url: str, options: SourceOptions = DEFAULTS) -> None:
        try:
            import av  # noqa: F401 - told before the address is asked
        except ImportError:
            raise MsfnetError(
                "reading network streams needs PyAV; pip install 'msfnet[video]'"
            ) from None
        name = without_password(url)

        def connect() -> StreamCapture:
            return StreamCapture(url, name, options.timeout_s)

        super().__init__(connect, name, reconnect=options.reconnect)


class StreamCapture:
    """A stream in the words of OpenCV's VideoCapture, telling pictures that fail to decode.

    Args:
        url: its address.
        name: for messages.
        timeout_s: how long it may take to answer, and stay silent later.

    Raises:
        MsfnetError: it cannot be opened.
    """

    def __init__(self, url: str, name: str, timeout_s: float) -> None:
        import av

        quiet()
        av.logging.set_level(None)
        self._errors = (av.FFmpegError, OSError)
        self._bad_picture = av.InvalidDataError
        try:
            self._container = av.open(url, timeout=timeout_s, options=_LOW_DELAY)
            self._stream = self._container.streams.video[0]
        except (*self._errors, IndexError, ValueError):
            raise MsfnetError(
                f"{name} cannot be opened; check the address, and that the camera or server is "
                "on and reachable from here"
            ) from None
        if self._stream.codec_context.name in _SINGLE_PICTURES:
            self._stream.codec_context.options = {"err_detect": "explode"}
        self._packets = self._container.demux(self._stream)
        self._pictures: deque[av.VideoFrame] = deque()
        self._bad = False

    def get(self, what: int) -> float:
        """Return the frame rate, or how many frames a stream of known duration has."""
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        if what == cv2.CAP_PROP_FRAME_COUNT:
            return rate * (self._container.duration or 0) / 1e6
        return rate

    def grab(self) -> bool:
        """Wait for the next picture, good or bad; False at the end, or when the stream is lost."""
        while not self._pictures and not self._bad:
            try:
                packet = next(self._packets)
            except (*self._errors, StopIteration):
                return False
            try:
                self._pictures.extend(packet.decode())
            except self._bad_picture:
                self._bad = True
            except self._errors:
                return False
        return True

    def retrieve(self) -> tuple[bool, NDArray[np.uint8] | None]:
        """Return the picture that was waited for as (H, W, 3) uint8 BGR, unless it is bad."""
        if self._bad:
            self._bad = False
            return False, None
        picture = self._pictures.popleft()
        if picture.is_corrupt:
            return False, None
        return True, np.asarray(picture.to_ndarray(format="bgr24"), np.uint8)

    def release(self) -> None:
        """Close the connection."""
        self._container.close()


def without_password(url: str) -> str:
    """Return an address fit to be shown: ``rtsp://user:secret@host`` loses ``user:secret``."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)
