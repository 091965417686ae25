"""Pictures with an EXIF orientation, written byte by byte, and how each is shown."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def shown(picture: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn a stored picture as the EXIF standard describes its orientation."""
    flipped = picture[:, ::-1] if orientation in (2, 4, 5, 7) else picture
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation]
    return np.ascontiguousarray(np.rot90(flipped, turns))


def encode(image: NDArray[np.uint8], suffix: str, orientation: int) -> bytes:
    """Return (H, W, 3) uint8 RGB as a JPEG, PNG, WebP or TIFF file with an orientation."""
    if suffix == ".tiff":
        return tiff(image, orientation)
    best = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 99], ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101]}
    content = cv2.imencode(suffix, image[..., ::-1], best.get(suffix, []))[1].tobytes()
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">HHI", orientation, 0, 0)
    if suffix == ".jpg":
        segment = b"Exif\0\0" + exif
        return (
            content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:]
        )
    if suffix == ".png":
        chunk = b"eXIf" + exif
        packed = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return content[:33] + packed + content[33:]
    height, width = image.shape[:2]
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    extended = b"VP8X" + struct.pack("<IB3x", 10, 8) + size
    body = b"WEBP" + extended + content[12:] + b"EXIF" + struct.pack("<I", len(exif)) + exif
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(samples: NDArray[Any], orientation: int) -> bytes:
    """Return samples of one or three channels as an uncompressed TIFF file."""
    height, width = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    data = np.ascontiguousarray(samples).tobytes()
    short, long = 3, 4
    entries = [
        (256, long, 1, width),
        (257, long, 1, height),
        (258, short, 1, 8 * samples.dtype.itemsize),
        (259, short, 1, 1),
        (262, short, 1, 2 if channels == 3 else 1),
        (273, long, 1, 8),
        (274, short, 1, orientation),
        (277, short, 1, channels),
        (278, long, 1, height),
        (279, long, 1, len(data)),
        (339, short, 1, 3 if samples.dtype.kind == "f" else 1),
    ]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    start = struct.pack("<I", 8 + len(data))
    return b"II*\0" + start + data + struct.pack("<H", len(entries)) + packed + bytes(4)
