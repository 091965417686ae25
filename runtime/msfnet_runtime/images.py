"""Reads and writes image files; the one place where OpenCV's BGR becomes RGB."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm", ".webp"})


def quiet() -> None:
    """Keep OpenCV and FFmpeg from printing beside our own one line."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_VIDEOIO_DEBUG", "0")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return an image file as (H, W, 3) uint8 RGB.

    Raises:
        MsfnetError: missing or undecodable.
    """
    quiet()
    image = cv2.imdecode(read_bytes(path), cv2.IMREAD_COLOR)
    if image is None:
        raise MsfnetError(f"{path} is not a readable image; remove it or replace it")
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)


def read_raw(path: Path) -> NDArray[np.generic]:
    """Return an image file's samples as they are stored, e.g. (H, W) uint16.

    Raises:
        MsfnetError: missing or undecodable.
    """
    quiet()
    image = cv2.imdecode(read_bytes(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise MsfnetError(f"{path} is not a readable image; remove it or replace it")
    return np.asarray(image)


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
        raise MsfnetError(f"cannot write {path}: {error.strerror}; choose another path") from None


def read_bytes(path: Path) -> NDArray[np.uint8]:
    """Return a file's bytes as an array; empty when the file is missing or empty.

    Raises:
        MsfnetError: the file is missing or empty.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise MsfnetError(f"cannot read {path}: {error.strerror}; check the path") from None
    if content.size == 0:
        raise MsfnetError(f"{path} is empty; replace it")
    return content
