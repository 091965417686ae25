"""Frames and their coloured depth as H.264 video, written by PyAV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.colour import colour_table, panels
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.sink import SinkBase
from msfnet_runtime.sinks.growing import GrowingFile
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.types import DepthMap, Frame

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

_FRAGMENTED = {"movflags": "hybrid_fragmented", "frag_duration": "500000"}
"""Half a second is written at a time and plays at once; closing makes it an ordinary MP4."""

_CONTAINERS = {
    ".mp4": ("mp4", _FRAGMENTED),
    ".mov": ("mov", _FRAGMENTED),
    ".mkv": ("matroska", {"cluster_time_limit": "500"}),
    ".avi": ("avi", {}),
}
"""FFmpeg's name and options of each suffix's container."""

VIDEO_SUFFIXES = tuple(_CONTAINERS)

_ENCODER = {"preset": "superfast", "tune": "zerolatency", "crf": "20"}
"""Fast, and without frames held back: what was written is encoded, and never reordered."""

_CLOCK = 90_000
"""Ticks per second of the video's clock: MPEG's."""

_BT601, _LIMITED = 6, 1
"""The colours of :func:`yuv420` in the numbers of ITU-T H.273: said in the file, since players
take those of large pictures for BT.709 otherwise."""

_CHROMA_SPAN = 224 / 255
"""Of chroma in limited range, of full range."""


class VideoSink(SinkBase):
    """The RGB frame on the left, its depth on the right, H.264 at the source's own times.

    The first frame sets the size; later frames of another size are resized to it. Odd sides are
    padded by one repeated row or column, since 4:2:0 video has even sides.

    The video grows as ``NAME.partial.SUFFIX`` and takes its name when it is closed. Until then
    it plays as it is up to the last second, whatever ends the process.

    Args:
        path: the video.
        spec: the model's spec; its depth range is the colour scale.
        options: layout, colours and range.
        fps: frame rate where timestamps do not increase, and of .avi, which has one rate.

    Raises:
        MsfnetError: PyAV is absent; on entering, where the file cannot be written.
    """

    def __init__(
        self, path: Path, spec: ModelSpec, options: SinkOptions, fps: float = 30.0
    ) -> None:
        try:
            import av
        except ImportError:
            raise MsfnetError(
                "writing video needs PyAV; pip install 'msfnet[video]', or name a folder for PNG"
            ) from None
        colour_table(options.colours)
        self._av = av
        self._path = path
        self._range = options.scale_m(spec)
        self._options = options
        self._fps = fps
        self._stream: VideoStream | None = None
        self._seconds = self._source_seconds = 0.0
        self._ticks = -1

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Encode one frame with its depth.

        Raises:
            MsfnetError: the disk is full, or the like; it says where the frames before are.
        """
        parts = panels(frame, depth, self._range, self._options.layout, self._options.colours)
        if self._stream is None:
            self._size = frame.image.shape[:2]
        rgb = np.asarray(cv2.hconcat([self._fit(part) for part in parts]), np.uint8)
        picture = self._av.VideoFrame.from_ndarray(yuv420(rgb), format="yuv420p")
        try:
            # Not before there is a picture: FFmpeg's muxer crashes where none follows the header.
            if self._stream is None:
                self._stream = self._add_stream(frame, len(parts))
            picture.time_base = self._time_base
            picture.pts = self._next_ticks(frame)
            picture.duration = max(1, round(1 / self._fps / self._time_base))
            self._mux(self._stream.encode(picture))
        except (OSError, self._av.FFmpegError) as error:
            raise self._broken(error) from None

    @contextmanager
    def _opened(self) -> Iterator[None]:
        self._file = GrowingFile(self._path)
        kind, options = _CONTAINERS[self._path.suffix.lower()]
        self._container = self._av.open(
            self._file, "w", format=kind, options=options | {"flush_packets": "1"}
        )
        try:
            yield
            if self._stream is None:
                raise MsfnetError(f"no frame was written to {self._path}; check the source")
        finally:
            self._close()

    def _close(self) -> None:
        """Finish the video, unless it holds nothing or is broken already."""
        if self._stream is None or self._file.broken:
            with suppress(OSError, self._av.FFmpegError):
                self._container.close()
            self._file.give_up()
            return
        try:
            self._mux(self._stream.encode(None))
            self._container.close()
            self._file.finish()
        except (OSError, self._av.FFmpegError) as error:
            self._file.give_up()
            raise self._broken(error) from None

    def _mux(self, packets: Sequence[Packet[VideoStream]]) -> None:
        self._container.mux(packets)
        self._file.mark()

    def _broken(self, error: Exception) -> MsfnetError:
        """Return the line that says what happened and where the video is."""
        self._file.broken = True
        why = getattr(error, "strerror", None) or error
        kept = "" if self._file.empty else f"; the video so far is {self._file.partial}, playable"
        return MsfnetError(
            f"cannot write {self._path}: {why}{kept}; make room or choose another path"
        )

    def _add_stream(self, frame: Frame, count: int) -> VideoStream:
        """Make the stream once the size is known; both sides of each panel are even."""
        height, width = self._size
        rate = Fraction(self._fps).limit_denominator(1001)
        constant = self._path.suffix.lower() == ".avi"
        self._time_base = 1 / rate if constant else Fraction(1, _CLOCK)
        key = {"g": str(max(1, round(2 * self._fps)))}
        stream = self._container.add_stream("libx264", rate=rate, options=_ENCODER | key)
        stream.width = count * (width + width % 2)
        stream.height = height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = self._time_base
        stream.codec_context.colorspace = stream.codec_context.color_primaries = _BT601
        stream.codec_context.color_trc = _BT601
        stream.codec_context.color_range = _LIMITED
        self._container.start_encoding()
        self._file.begin()
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

    def _fit(self, panel: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring a panel to the first frame's size, then to even sides."""
        height, width = self._size
        if panel.shape[:2] != self._size:
            panel = np.asarray(cv2.resize(panel, (width, height), interpolation=cv2.INTER_AREA))
        if height % 2 or width % 2:
            border = (0, height % 2, 0, width % 2)
            panel = np.asarray(cv2.copyMakeBorder(panel, *border, cv2.BORDER_REPLICATE), np.uint8)
        return panel


def yuv420(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return planes (H * 3 / 2, W) uint8, BT.601, of a picture (H, W, 3) with even sides.

    Each chroma is that of four pixels' mean; OpenCV's own takes one of the four, which turns the
    colour noise of a sensor into specks.
    """
    height, width = rgb.shape[:2]
    planes = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420), np.uint8)
    means = cv2.resize(rgb, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    full = cv2.cvtColor(means, cv2.COLOR_RGB2YCrCb)
    _, v, u = cv2.split(
        cv2.convertScaleAbs(full, alpha=_CHROMA_SPAN, beta=128 * (1 - _CHROMA_SPAN))
    )
    planes[height:] = np.concatenate([u.ravel(), v.ravel()]).reshape(-1, width)
    return planes
