"""Decodes video files and network streams with PyAV, which reports damaged pictures."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, SupportsBytes, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.images import quiet
from msfnet_runtime.libraries import require
from msfnet_runtime.picture_size import check_picture_size, max_pixels
from msfnet_runtime.sources.images import LOGGER

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


_MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)
"""The colour matrices of ITU-T H.273 that FFmpeg converts to RGB. 2 is an untagged picture, which
it reads as BT.601; 0 is RGB."""

_PQ, _HLG = 16, 18
"""The transfer characteristics of HDR in the numbers of ITU-T H.273."""


class PyavCapture:
    """Implements OpenCV's VideoCapture with PyAV, and reports pictures that cannot be decoded.

    Pictures are as players show them: turned and mirrored by the display matrix, with square
    pixels, without those that an edit list hides, and converted by the colour matrix and range
    that the file declares.

    One thread decodes. With several, FFmpeg's H.264 decoder marks damage too late or not at all:
    a picture can be returned while the thread that finds its damage is still decoding it.

    Args:
        address: a path, or an address that FFmpeg supports.
        timeout_s: the longest time a network stream can take to respond, and stay silent later;
            None for a file.
        name: identifies it in messages.

    Raises:
        MsfnetError: PyAV is absent, or the pictures are above the limit of
            :mod:`~msfnet_runtime.picture_size`; later, the colours of a picture cannot be
            converted.
        OSError: it cannot be opened, or contains no video; its text says which.
    """

    def __init__(self, address: str, timeout_s: float | None = None, *, name: str = "") -> None:
        require("av")
        import av
        from av.stream import Disposition
        from av.video.reformatter import VideoReformatter

        quiet()
        av.logging.set_level(None)
        self._name = name or address
        self._errors = (av.FFmpegError, OSError)
        options = {} if timeout_s is None else _LOW_DELAY
        try:
            self._container = av.open(address, timeout=timeout_s, options=options)
        except (*self._errors, ValueError) as error:
            raise OSError("is not a readable video") from error
        stream = self._container.streams.best("video")
        if not isinstance(stream, av.VideoStream) or stream.disposition & Disposition.attached_pic:
            self._container.close()
            raise OSError("contains no video")
        if stream.codec_context is None:
            self._container.close()
            raise OSError("has a video that no decoder here reads")
        self._stream = stream
        self._pixel_ratio = float(self._stream.sample_aspect_ratio or 1)
        height, width = stream.codec_context.height, stream.codec_context.width
        if height and width:  # known before the first picture
            check_picture_size(height, self._shown_width(width), f"a frame of {self._name}")
        single = stream.codec_context.name in _SINGLE_PICTURES
        self._stream.thread_type = "NONE"
        self._stream.codec_context.options = {"max_pixels": str(max_pixels())} | (
            {"err_detect": "explode"} if single else {}
        )
        self._tick_s = float(self._stream.time_base or 0)
        self._seconds = 0.0
        self._packets = self._container.demux(self._stream)
        self._pictures: deque[av.VideoFrame] = deque()
        self._bad = self._ended = self._remarked = False
        self._rotation: float | None = None
        self._matrix = (1, 0, 0, 1)
        """The display matrix, read again only when the rotation changes: a picture whose side data
        are read keeps itself alive until garbage is collected."""
        self._converter = VideoReformatter()

    def get(self, what: int, /) -> float:
        """Return the frame rate, the number of frames, or the time of the last picture in ms."""
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        if what == cv2.CAP_PROP_FRAME_COUNT:
            estimated = int(rate * (self._container.duration or 0) / 1e6 + 0.01)
            # A fragmented MP4 lists the frames of its first fragment only; the header of an AVI
            # that was written to a pipe states more frames than the file has bytes.
            listed = self._listed_frames()
            frames = listed if 2 * listed > estimated else estimated
            return 0 if 0 < self._container.size < frames else frames
        return 1000 * self._seconds if what == cv2.CAP_PROP_POS_MSEC else rate

    def _listed_frames(self) -> int:
        """Return the number of frames that the container lists, less those that it hides."""
        if "mov" not in self._container.format.name:  # others list key frames, or none
            return self._stream.frames
        return sum(not entry.is_discard for entry in self._stream.index_entries)

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
            except EOFError:
                return False
            except self._errors:
                self._bad = True
        return True

    def retrieve(self) -> tuple[bool, NDArray[np.uint8] | None]:
        """Return the grabbed picture as shown, (H, W, 3) uint8 BGR, unless it is bad."""
        if not self._pictures:
            self._bad = False
            return False, None
        picture = self._pictures.popleft()
        self._seconds = ((picture.pts or 0) - (self._stream.start_time or 0)) * self._tick_s
        if picture.is_corrupt:
            return False, None
        self._check_colours(picture)
        width = self._shown_width(picture.width)
        check_picture_size(picture.height, width, f"a frame of {self._name}")
        if picture.rotation != self._rotation:
            self._rotation, self._matrix = picture.rotation, display_matrix(picture)
        converted = self._converter.reformat(picture, width=width, format="rgb24")
        rgb = np.asarray(converted.to_ndarray(), np.uint8)
        # A view where nothing is turned: converting it back to RGB then needs no copy.
        return True, shown(rgb, self._matrix)[..., ::-1]

    def _shown_width(self, width: int) -> int:
        """Return the width of a picture with square pixels."""
        return max(1, round(width * self._pixel_ratio))

    def _check_colours(self, picture: av.VideoFrame) -> None:
        """Refuse colours that cannot be converted; warn once of pictures that look different."""
        if picture.colorspace not in _MATRICES:
            raise MsfnetError(
                f"{self._name} has colours of matrix {int(picture.colorspace)} of ITU-T H.273, "
                "which cannot be converted to RGB; convert it to BT.709"
            )
        if self._remarked:
            return
        self._remarked = True
        if picture.color_trc in (_PQ, _HLG):
            LOGGER.warning("%s is HDR; its frames are not tone-mapped and look flat", self._name)
        if picture.interlaced_frame:
            LOGGER.warning("%s is interlaced; its frames mix two moments", self._name)

    def release(self) -> None:
        """Close the file or connection."""
        self._container.close()


def display_matrix(picture: av.VideoFrame) -> tuple[int, int, int, int]:
    """Return a, b, c, d of the picture's display matrix: x' = a x + c y, y' = b x + d y.

    The unit matrix if it has none. ISO/IEC 14496-12, 8.3.2; x points right and y down.
    """
    data = cast("Mapping[str, SupportsBytes]", picture.side_data).get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
    return a, b, c, d


def shown(image: NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Return an image turned and mirrored by a display matrix, to the nearest of the eight."""
    a, b, c, d = matrix
    turned = abs(b) + abs(c) > abs(a) + abs(d)
    if turned:
        image = image.transpose(1, 0, 2)
    along_x, along_y = (c, b) if turned else (a, d)
    return image[:: -1 if along_y < 0 else 1, :: -1 if along_x < 0 else 1]
