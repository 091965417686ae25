"""Bounds the size of pictures, which their first bytes declare, before memory is reserved for them.

A file of a few hundred bytes can declare 4 gigapixels. ``MSFNET_MAX_MEGAPIXELS`` raises the limit
of :data:`MEGAPIXELS`; it applies to images, depth files, arrays and frames of cameras and videos,
in every process of a command.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable

from msfnet_runtime.errors import MsfnetError

MEGAPIXELS = 64.0
"""The largest picture that is read, in millions of pixels, unless the variable sets another."""

VARIABLE = "MSFNET_MAX_MEGAPIXELS"
"""The environment variable that sets the limit."""

_BYTES_PER_PIXEL = 16
"""The largest pixel that is read: four channels of float32."""

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
_TIFF = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
"""The first bytes of TIFF and BigTIFF, and their byte order."""

_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})
"""JPEG markers without a segment."""
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers whose segment holds the size."""
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_NETPBM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")

Size = tuple[int, int]
"""Height and width, pixels."""


def max_pixels() -> int:
    """Return the largest number of pixels that a picture may have.

    Raises:
        MsfnetError: ``MSFNET_MAX_MEGAPIXELS`` is not a positive number.
    """
    text = os.environ.get(VARIABLE, "") or str(MEGAPIXELS)
    try:
        megapixels = float(text)
    except ValueError:
        megapixels = 0.0
    if not 0 < megapixels < 1e6:
        raise MsfnetError(f"{VARIABLE}={text} is not a number of megapixels; set it to 64 or so")
    return int(megapixels * 1e6)


def check_picture_size(height: int, width: int, what: object) -> None:
    """Refuse a picture of more pixels than the limit, or of none.

    Args:
        height: pixels.
        width: pixels.
        what: the file or the source, for the message.

    Raises:
        MsfnetError: it is larger than the limit, or has no pixels.
    """
    limit = max_pixels()
    if height * width > limit:
        raise MsfnetError(
            f"{what} is {width}x{height}, {height * width / 1e6:.0f} megapixels; the limit is "
            f"{limit / 1e6:g}. Make it smaller, or raise {VARIABLE} in the environment"
        )
    if height < 1 or width < 1:
        raise MsfnetError(f"{what} is {width}x{height}, which holds no pixel; replace it")


def check_file_size(size: int, what: object) -> None:
    """Refuse a file that holds more bytes than the largest picture without compression.

    Args:
        size: bytes.
        what: the file, for the message.

    Raises:
        MsfnetError: it is larger.
    """
    limit = max_pixels() * _BYTES_PER_PIXEL
    if size > limit:
        raise MsfnetError(
            f"{what} has {size / 1e6:.0f} MB; the limit is {limit / 1e6:.0f}. Replace it, or raise "
            f"{VARIABLE} in the environment"
        )


def declared_size(content: bytes) -> Size | None:
    """Return the (height, width) that an image file declares, without decoding it.

    Args:
        content: the file: PNG, JPEG, BMP, TIFF, PBM, PGM, PPM, WebP or OpenEXR.

    Returns:
        None where the file is of none of these formats, or is damaged.
    """
    reader = next((read for first, read in _READERS.items() if content.startswith(first)), None)
    try:
        return reader(content) if reader else None
    except (struct.error, ValueError):
        return None


def _png_size(content: bytes) -> Size:
    width, height = struct.unpack_from(">II", content, 16)
    return height, width


def _jpeg_size(content: bytes) -> Size | None:
    """Follow the segments to the first that holds the size."""
    place = 2
    while (marker := _MARKER.search(content, place)) is not None:
        place = marker.end()
        kind = marker.group()[1]
        if kind in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", content, place + 3)
            return height, width
        if kind not in _ALONE:
            place += max(2, int.from_bytes(content[place : place + 2], "big"))
    return None


def _bmp_size(content: bytes) -> Size:
    """Read the old header of 16-bit sizes or the usual one; a negative height counts from above."""
    (header,) = struct.unpack_from("<I", content, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", content, 18)
    return abs(height), abs(width)


def _tiff_size(content: bytes) -> Size | None:
    """Return the size of the first image, or that of its tiles where those are larger."""
    tags = {tag: value for tag, (_, _, value) in _tiff_tags(content).items()}
    if 256 not in tags or 257 not in tags:
        return None
    return max(tags[257], tags.get(323, 0)), max(tags[256], tags.get(322, 0))


def _tiff_tags(content: bytes) -> dict[int, tuple[int, str, int]]:
    """Return the whole numbers among the tags of the first image: place, format and value."""
    order, big = _TIFF[content[:4]], content[2:4] in (b"+\0", b"\0+")
    numbers = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"} | ({16: "Q", 17: "q"} if big else {})
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), content, place)
    start, length = place + (8 if big else 2), 20 if big else 12
    tags: dict[int, tuple[int, str, int]] = {}
    for entry in range(start, min(start + count * length, len(content)), length):
        tag, kind = struct.unpack_from(order + "HH", content, entry)
        if kind in numbers:
            at, form = entry + (12 if big else 8), order + numbers[kind]
            tags.setdefault(tag, (at, form, *struct.unpack_from(form, content, at)))
    return tags


def without_tiff_orientation(content: bytes) -> bytes:
    """Return a TIFF file without its orientation, which OpenCV always applies; others unchanged."""
    orientation = _tiff_tags(content).get(274) if content[:4] in _TIFF else None
    if orientation is None:
        return content
    at, form, _ = orientation
    return content[:at] + struct.pack(form, 1) + content[at + struct.calcsize(form) :]


def _webp_size(content: bytes) -> Size | None:
    """Read the first chunk: lossy, lossless or extended."""
    kind = content[12:16] if content[8:12] == b"WEBP" else b""
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return height & 0x3FFF, width & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
        return height, width
    return None


def _exr_size(content: bytes) -> Size | None:
    """Follow the attributes (name, type, length, value) to the window of the data."""
    place = 8
    while content[place : place + 1] != b"\0":
        name_end = content.index(b"\0", place)
        kind_end = content.index(b"\0", name_end + 1)
        (length,) = struct.unpack_from("<I", content, kind_end + 1)
        name, place = content[place:name_end], kind_end + 5
        if name == b"dataWindow":
            left, top, right, bottom = struct.unpack_from("<iiii", content, place)
            return bottom - top + 1, right - left + 1
        place += length
    return None


def _netpbm_size(content: bytes) -> Size | None:
    sizes = _NETPBM.match(content, 0, 1 << 16)
    return (int(sizes[2]), int(sizes[1])) if sizes else None


_READERS: dict[bytes, Callable[[bytes], Size | None]] = {
    PNG: _png_size,
    JPEG: _jpeg_size,
    b"BM": _bmp_size,
    **dict.fromkeys(_TIFF, _tiff_size),
    b"RIFF": _webp_size,
    b"v/1\x01": _exr_size,
    b"P": _netpbm_size,
}
"""By the first bytes of a file."""
