"""Frames beside their coloured depth as H.264 video, written by PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.colour import colour_depth, draw_scale
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import atomic_path
from msfnet_runtime.sink import SinkBase
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.types import DepthMap, Frame

if TYPE_CHECKING:
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi")

_CLOCK = 90_000
"""Ticks per second of the video's clock: MPEG's."""


class VideoSink(SinkBase):
    """The RGB frame on the left, its depth on the right, H.264 at the source's own times.

    The first frame sets the size; later frames of another size are resized to it. Odd sides are
    padded by one repeated row or column, since 4:2:0 video has even sides.

    Args:
        path: the video.
        spec: the model's spec; its depth range is the colour scale.
        fps: frame rate where timestamps do not increase, and of .avi, which has one rate.

    Raises:
        MsfnetError: PyAV is absent; on entering, where the file cannot be written.
    """

    def __init__(self, path: Path, spec: ModelSpec, fps: float = 30.0) -> None:
        try:
            import av
        except ImportError:
            raise MsfnetError(
                "writing video needs PyAV; pip install 'msfnet[video]', or name a folder for PNG"
            ) from None
        self._av = av
        self._path = path
        self._range = spec.depth_range_m
        self._fps = fps
        self._stream: VideoStream | None = None
        self._seconds = self._source_seconds = 0.0
        self._ticks = -1

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Encode one frame beside its depth.

        Raises:
            MsfnetError: the disk is full, or the like.
        """
        if self._stream is None:
            self._stream = self._add_stream(frame)
        ticks = self._next_ticks(frame)
        picture = self._av.VideoFrame.from_ndarray(self._picture(frame, depth), format="rgb24")
        picture.time_base = self._time_base
        picture.pts = ticks
        picture.duration = max(1, round(1 / self._fps / self._time_base))
        self._container.mux(self._stream.encode(picture))

    @contextmanager
    def _opened(self) -> Iterator[None]:
        try:
            with (
                atomic_path(self._path) as partial,
                self._av.open(str(partial), "w") as self._container,
            ):
                yield
                if self._stream is None:
                    raise MsfnetError(f"no frame was written to {self._path}; check the source")
                self._container.mux(self._stream.encode(None))
        except self._av.FFmpegError as error:
            raise MsfnetError(
                f"cannot write {self._path}: {error.strerror}; check the space on the disk"
            ) from None

    def _add_stream(self, frame: Frame) -> VideoStream:
        """Make the stream once the size is known; the height and half the width are even."""
        height, width = frame.image.shape[:2]
        self._size = (height, width)
        rate = Fraction(self._fps).limit_denominator(1001)
        constant = self._path.suffix.lower() == ".avi"
        self._time_base = 1 / rate if constant else Fraction(1, _CLOCK)
        # avi has no presentation times, so frames must be stored in the order they are shown.
        options = {"preset": "veryfast", "crf": "18"} | ({"bf": "0"} if constant else {})
        stream = self._container.add_stream("libx264", rate=rate, options=options)
        stream.width = 2 * (width + width % 2)
        stream.height = height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = self._time_base
        self._source_seconds = frame.timestamp_s - 1 / self._fps
        self._seconds = -1 / self._fps
        return stream

    def _next_ticks(self, frame: Frame) -> int:
        """Advance by the source's clock where it moves forward, else by one frame."""
        step = frame.timestamp_s - self._source_seconds
        self._seconds += step if step > 0 else 1 / self._fps
        self._source_seconds = frame.timestamp_s
        self._ticks = max(self._ticks + 1, round(self._seconds / self._time_base))
        return self._ticks

    def _picture(self, frame: Frame, depth: DepthMap) -> NDArray[np.uint8]:
        """Return both halves at the stream's size, (H, W, 3) uint8 RGB."""
        coloured = self._half(colour_depth(depth.values, depth.valid, self._range))
        draw_scale(coloured, self._range)
        return np.concatenate([self._half(frame.image), coloured], axis=1)

    def _half(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring an image to the first frame's size, then to even sides."""
        height, width = self._size
        if image.shape[:2] != self._size:
            image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
        return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
