"""Writes frames and their coloured depth as H.264 video, with PyAV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from io import BytesIO, FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import Growing, append_whole
from msfnet_runtime.libraries import require
from msfnet_runtime.sink import SinkBase
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.types import DepthMap, Frame

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

_FRAGMENTED = {"movflags": "hybrid_fragmented", "frag_duration": "500000"}
"""Fragments of half a second are playable at once; closing makes an ordinary MP4 of them."""

_CONTAINERS = {
    ".mp4": ("mp4", _FRAGMENTED),
    ".mov": ("mov", _FRAGMENTED),
    ".mkv": ("matroska", {"cluster_time_limit": "500"}),
    ".avi": ("avi", {}),
}
"""FFmpeg's name and options of the container, by suffix."""

VIDEO_SUFFIXES = tuple(_CONTAINERS)

_ENCODER = {"preset": "superfast", "tune": "zerolatency", "crf": "20"}
"""Fast, and without delay: each frame is encoded at once, and never reordered."""

_CLOCK = 90_000
"""Ticks per second of MPEG's clock."""

_BT601, _LIMITED = 6, 1
"""The colour space of :func:`yuv420` in the numbers of ITU-T H.273. Without it in the file,
players assume BT.709 for large pictures."""

_CHROMA_SPAN = 224 / 255
"""Ratio of limited to full chroma range."""


class VideoSink(SinkBase):
    """Writes H.264 video: frame on the left, depth on the right, with the source's timestamps.

    The first frame sets the size; later frames of another size are resized to it. Odd sides are
    padded by one repeated row or column, because 4:2:0 video has even sides.

    The video grows as ``NAME.partial.SUFFIX`` and is renamed when it is closed. Until then it is
    playable up to the last second, even if the process is killed.

    Args:
        path: the video.
        spec: the model's spec; its depth range is the colour scale.
        options: layout, colours and range.
        fps: frame rate if timestamps do not increase, and of .avi, which has a constant rate.

    Raises:
        MsfnetError: PyAV is absent; on entering, the file exists or cannot be written; on leaving,
            it has appeared in the meantime, and the recording is kept under its temporary name.
    """

    def __init__(
        self, path: Path, spec: ModelSpec, options: SinkOptions, fps: float = 30.0
    ) -> None:
        require("av")
        import av

        self._av = av
        self._path = path
        self._spec = spec
        self._options = options
        self._fps = fps
        self._stream: VideoStream | None = None
        self._seconds = self._source_seconds = 0.0
        self._ticks = -1

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Encode one frame with its depth.

        Raises:
            MsfnetError: the disk is full, or another error of the file system; the message says
                where the earlier frames are.
        """
        self._file.check()
        parts = self._options.panels(frame, depth, self._spec)
        if self._stream is None:
            self._size = frame.image.shape[:2]
        rgb = np.asarray(cv2.hconcat([self._fit(part) for part in parts]), np.uint8)
        picture = self._av.VideoFrame.from_ndarray(yuv420(rgb), format="yuv420p")
        try:
            # Only now that there is a picture: FFmpeg's muxer crashes if none follows the header.
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
        self._file = GrowingFile(self._path, force=self._options.force)
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
        """Finish the video, unless it is empty or an error has occurred."""
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
            raise self._broken(error) from None
        finally:
            self._file.give_up()

    def _mux(self, packets: Sequence[Packet[VideoStream]]) -> None:
        self._container.mux(packets)
        self._file.mark()

    def _broken(self, error: Exception) -> MsfnetError:
        """Return an error that says what happened and where the video is."""
        self._file.broken = True
        why = getattr(error, "strerror", None) or error
        kept = f"; the video so far is {self._file.path}, playable" if self._file.path else ""
        return MsfnetError(
            f"cannot write {self._path}: {why}{kept}; make room or choose another path"
        )

    def _add_stream(self, frame: Frame, count: int) -> VideoStream:
        """Add the stream once the size is known; both sides of each panel are even."""
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
        """Advance by the source's clock if it moves forward, else by one frame."""
        step = frame.timestamp_s - self._source_seconds
        self._seconds += step if step > 0 else 1 / self._fps
        self._source_seconds = frame.timestamp_s
        self._ticks = max(self._ticks + 1, round(self._seconds / self._time_base))
        return self._ticks

    def _fit(self, panel: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize a panel to the first frame's size, then pad it to even sides."""
        height, width = self._size
        if panel.shape[:2] != self._size:
            panel = np.asarray(cv2.resize(panel, (width, height), interpolation=cv2.INTER_AREA))
        if height % 2 or width % 2:
            border = (0, height % 2, 0, width % 2)
            panel = np.asarray(cv2.copyMakeBorder(panel, *border, cv2.BORDER_REPLICATE), np.uint8)
        return panel


class GrowingFile:
    """A file object for a muxer, which grows under a temporary name and is playable at any time.

    The header waits in memory for the first pictures: without them no player opens it. After the
    first error nothing more is written: the file ends at the last mark, and later changes by the
    muxer, for example of the header, are ignored.

    Raises:
        MsfnetError: as :class:`~msfnet_runtime.files.Growing`.
    """

    def __init__(self, target: Path, *, force: bool) -> None:
        self._growing = Growing(target, force=force)
        self._file: FileIO | BytesIO = BytesIO()
        self._head = self._whole = 0
        self.broken = False

    @property
    def path(self) -> Path | None:
        """The growing file; None before the first pictures are written."""
        return self._growing.path

    def seek(self, position: int, whence: int = 0) -> int:
        """Move to a position."""
        return self._file.seek(position, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def write(self, data: bytes) -> int:
        """Write all of ``data``; ignore it after an error.

        Raises:
            OSError: the disk is full, or another error of the file system.
        """
        try:
            append_whole(self._file, b"" if self.broken else data, self._whole)
        except OSError:
            self.broken = True
            raise
        return len(data)

    def check(self) -> None:
        """Check that the file still has its name.

        Raises:
            MsfnetError: it was renamed or removed.
        """
        self._growing.check()

    def begin(self) -> None:
        """Mark the end of the header."""
        self._head = self._whole = self.tell()

    def mark(self) -> None:
        """Mark the content so far as complete; create the file once it has pictures.

        Raises:
            MsfnetError: the file cannot be created.
        """
        self._whole = self.tell()
        if isinstance(self._file, BytesIO) and self._whole > self._head and not self.broken:
            self._create(self._file)

    def _create(self, memory: BytesIO) -> None:
        """Move the content from memory to the disk."""
        try:
            path = self._growing.begin(memory.getvalue())
        except MsfnetError:
            self.broken = True
            raise
        self._file = path.open("r+b", buffering=0)
        self._file.seek(memory.tell())

    def finish(self) -> None:
        """Close the file and rename it to its final name.

        Raises:
            MsfnetError: as :meth:`~msfnet_runtime.files.Growing.finish`.
        """
        if isinstance(self._file, BytesIO):
            self._create(self._file)
        self._file.close()
        self._growing.finish()

    def give_up(self) -> None:
        """Close the file under its temporary name."""
        self._file.close()
        self._growing.give_up()


def yuv420(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return planes (H * 3 / 2, W) uint8, BT.601, of a picture (H, W, 3) with even sides.

    The chroma is that of the mean of four pixels; OpenCV takes one of the four, which turns the
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
