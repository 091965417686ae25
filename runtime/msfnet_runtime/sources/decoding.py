"""Decodes video files and network streams with PyAV, which reports damaged pictures."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.images import quiet, rotated

if TYPE_CHECKING:
    import av

_LOW_DELAY = {
    "flags": "low_delay",
    "rtsp_transport": "tcp",  # over UDP, lost packets become grey pictures
    "probesize": "1000000",
    "analyzeduration": "1000000",
}
"""FFmpeg's options for low latency: no reordering delay, and one second of analysis."""

_SINGLE_PICTURES = ("mjpeg", "mjpegb")
"""Codecs whose decoders conceal damage silently, unless configured to refuse it."""


class PyavCapture:
    """Implements OpenCV's VideoCapture with PyAV, and reports pictures that cannot be decoded.

    One thread decodes. With several, FFmpeg's H.264 decoder marks damage too late or not at all:
    a picture can be returned while the thread that finds its damage is still decoding it.

    Args:
        address: a path, or an address that FFmpeg supports.
        timeout_s: the longest time a network stream can take to respond, and stay silent later;
            None for a file.

    Raises:
        ImportError: PyAV is absent.
        OSError: it cannot be opened, or contains no video.
    """

    def __init__(self, address: str, timeout_s: float | None = None) -> None:
        import av

        quiet()
        av.logging.set_level(None)
        self._errors = (av.FFmpegError, OSError)
        self._bad_picture = av.InvalidDataError
        options = {} if timeout_s is None else _LOW_DELAY
        try:
            self._container = av.open(address, timeout=timeout_s, options=options)
            self._stream = self._container.streams.video[0]
            if self._stream.codec_context is None:
                raise ValueError("no decoder")
            self._stream.thread_type = "NONE"
            if self._stream.codec_context.name in _SINGLE_PICTURES:
                self._stream.codec_context.options = {"err_detect": "explode"}
        except (*self._errors, IndexError, ValueError) as error:
            raise OSError(f"no video at {address}") from error
        self._tick_s = float(self._stream.time_base or 0)
        self._seconds = 0.0
        self._packets = self._container.demux(self._stream)
        self._pictures: deque[av.VideoFrame] = deque()
        self._bad = self._ended = False

    def get(self, what: int, /) -> float:
        """Return the frame rate, the number of frames, or the time of the last picture in ms."""
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        if what == cv2.CAP_PROP_FRAME_COUNT:
            estimated = int(rate * (self._container.duration or 0) / 1e6 + 0.01)
            # A fragmented MP4 lists the frames of its first fragment only.
            listed = self._stream.frames
            return listed if 2 * listed > estimated else estimated
        return 1000 * self._seconds if what == cv2.CAP_PROP_POS_MSEC else rate

    def grab(self) -> bool:
        """Wait for the next picture, good or bad; False at the end, or if the stream is lost.

        Pictures that are still in the decoder come first.
        """
        while not self._pictures and not self._bad:
            try:
                packet = next(self._packets, None)
            except self._errors:
                packet = None
            if packet is None and self._ended:
                return False
            self._ended = packet is None
            try:
                self._pictures.extend(self._stream.codec_context.decode(packet))
            except self._bad_picture:
                self._bad = True
            except self._errors:
                return False
        return True

    def retrieve(self) -> tuple[bool, NDArray[np.uint8] | None]:
        """Return the grabbed picture, upright, as (H, W, 3) uint8 BGR, unless it is bad."""
        if not self._pictures:
            self._bad = False
            return False, None
        picture = self._pictures.popleft()
        self._seconds = ((picture.pts or 0) - (self._stream.start_time or 0)) * self._tick_s
        if picture.is_corrupt:
            return False, None
        rgb = np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)
        upright = rotated(rgb, -round(picture.rotation))  # a display matrix turns the other way
        return True, upright[..., ::-1]  # a view: converting it back to RGB needs no copy

    def release(self) -> None:
        """Close the file or connection."""
        self._container.close()
