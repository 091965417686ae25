"""Reads and writes image files, and converts between OpenCV's BGR and RGB."""

from __future__ import annotations

import os
import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import cannot_write
from msfnet_runtime.picture_size import (
    JPEG,
    PNG,
    check_file_size,
    check_picture_size,
    declared_size,
    without_tiff_orientation,
)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm", ".webp"})

_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A JPEG marker other than a restart; in coded pixels 0xff is followed by 0 or a restart only."""
_END_OF_IMAGE = 0xD9

_CLOCKWISE = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}
"""OpenCV's constant of a rotation, by degrees."""

_SILENT = 0
"""OpenCV's log level."""


def quiet() -> None:
    """Keep OpenCV and FFmpeg from printing messages of their own; let OpenCV read EXR files."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_VIDEOIO_DEBUG", "0")
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # where OpenCV has it; off by default
    set_level = getattr(cv2, "setLogLevel", None)  # until OpenCV 5
    (set_level or cv2.utils.logging.setLogLevel)(_SILENT)


def read_image(path: Path, *, upright: bool = False) -> NDArray[np.uint8]:
    """Return an image file as (H, W, 3) uint8 RGB.

    Args:
        path: the file.
        upright: turn it as its EXIF orientation says. An image that belongs to depth, a scan or
            calibrated intrinsics stays as it is stored, since these have no orientation.

    Raises:
        MsfnetError: the file is missing, truncated, too large or cannot be decoded.
    """
    image = _decode(path, cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION))
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_raw(path: Path) -> NDArray[np.generic]:
    """Return the samples of an image file as stored, for example (H, W) uint16, not turned.

    Raises:
        MsfnetError: the file is missing, truncated, too large or cannot be decoded.
    """
    return _decode(path, cv2.IMREAD_UNCHANGED)


def _decode(path: Path, flags: int) -> NDArray[np.integer | np.floating]:
    quiet()
    content = read_bytes(path).tobytes()
    if not _is_whole(content):
        raise MsfnetError(f"{path} is cut short; remove it or replace it")
    size = declared_size(content)
    if size:
        check_picture_size(*size, path)
        if flags != cv2.IMREAD_COLOR:
            content = without_tiff_orientation(content)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if size else None
    except cv2.error:  # more pixels than OpenCV accepts
        image = None
    if image is None:
        raise MsfnetError(f"{path} is not a readable image; remove it or replace it")
    return np.asarray(image)


def _is_whole(content: bytes) -> bool:
    """Return whether a PNG or a JPEG is complete; True for other formats.

    OpenCV 4 decodes a truncated JPEG, and fills the missing part with grey.
    """
    if content.startswith(PNG):
        return _png_ends(content)
    return not content.startswith(JPEG) or _jpeg_ends(content)


def _png_ends(content: bytes) -> bool:
    """Follow the chunks (length, type, data, checksum) up to a complete ``IEND``."""
    place = len(PNG)
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] == b"IEND":
            return True
        place += 12 + length
    return False


def _jpeg_ends(content: bytes) -> bool:
    """Follow the segments and scans to the end of the image, past the end of any thumbnail."""
    place = len(JPEG) - 1
    while (marker := _MARKER.search(content, place)) is not None:
        if marker.group()[1] == _END_OF_IMAGE:
            return True
        place = marker.end()
        place += int.from_bytes(content[place : place + 2], "big")
    return False


def write_image(path: Path, image: NDArray[np.generic]) -> None:
    """Write (H, W, 3) uint8 RGB, or (H, W) uint8 or uint16, in the format of the suffix.

    Raises:
        MsfnetError: the file cannot be written.
    """
    pixels = image[..., ::-1] if image.ndim == 3 else image
    encoded, content = cv2.imencode(path.suffix, np.ascontiguousarray(pixels))
    if not encoded:
        raise MsfnetError(f"cannot encode {path}; use .png or .jpg")
    try:
        path.write_bytes(content.tobytes())
    except OSError as error:
        raise cannot_write(path, error) from None


def rotated(image: NDArray[np.uint8], degrees: int) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 rotated clockwise by a multiple of 90 degrees."""
    turn = _CLOCKWISE.get(degrees % 360)
    return image if turn is None else np.asarray(cv2.rotate(image, turn), np.uint8)


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """Return (H, W, 3) uint8 RGB as a JPEG file of a quality from 0 to 100."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def read_bytes(path: Path) -> NDArray[np.uint8]:
    """Return the bytes of a file as an array.

    Raises:
        MsfnetError: it is missing, unreadable, empty, no regular file, or larger than a picture.
    """
    try:
        if path.exists() and not path.is_file():
            raise MsfnetError(f"{path} is not a regular file; name a file")
        check_file_size(path.stat().st_size, path)
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise MsfnetError(f"cannot read {path}: {error.strerror}; check the path") from None
    except ValueError:  # it contains NUL
        raise MsfnetError(f"{str(path)!r} is not a valid path; correct it") from None
    if content.size == 0:
        raise MsfnetError(f"{path} is empty; replace it")
    return content
