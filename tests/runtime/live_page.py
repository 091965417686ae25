"""Provides frames, a viewer and an independent decoder for the tests of the live page."""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from websockets.sync.client import ClientConnection, connect

from msfnet_runtime import CameraIntrinsics, DepthMap, Frame
from msfnet_runtime.web import WebSink

TOKEN = "a-token_of.the~tests"


class Decoded(NamedTuple):
    """The decoded message of one frame."""

    header: dict[str, Any]
    image: NDArray[np.uint8]
    counts: NDArray[np.int64]


def decode(message: bytes) -> Decoded:
    """Decode a message by its format, with NumPy and OpenCV."""
    (length,) = struct.unpack_from("<I", message)
    header = json.loads(message[4 : 4 + length])
    start, end = 4 + length, 4 + length + header["image_bytes"]
    bgr = np.asarray(cv2.imdecode(np.frombuffer(message[start:end], np.uint8), cv2.IMREAD_COLOR))
    planes = np.frombuffer(zlib.decompress(message[end:]), np.uint8).astype(np.int64)
    low, high = planes.reshape(2, header["height"], header["width"])
    counts = np.cumsum(low + 256 * high, axis=1) % 65536
    return Decoded(header, np.asarray(bgr[..., ::-1], np.uint8), counts)


def pair(
    index: int,
    size: tuple[int, int] = (48, 80),
    *,
    intrinsics: CameraIntrinsics | None = None,
    low: float = 0.6,
    high: float = 9.0,
) -> tuple[Frame, DepthMap]:
    """Return a frame and its depth, different for every index; a corner of the depth is invalid."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    waves = 128 + 100 * np.sin((columns + 3 * index) / 9) * np.cos((rows - index) / 7)
    image = np.stack([waves, waves[::-1], np.full(size, 40 + index % 100)], -1).astype(np.uint8)
    span = (columns + rows + 5 * index) % (sum(size)) / sum(size)
    values = (low * (high / low) ** span).astype(np.float32)
    valid = (rows >= 5) | (columns >= 5)
    moment = index / 10
    return Frame(image, index, moment, intrinsics), DepthMap(values, valid, index, moment)


def viewer(sink: WebSink, *, query: str = "", **options: Any) -> ClientConnection:
    """Open a WebSocket to a page, unlike a browser without an origin by default."""
    scheme, rest = sink.address.split("?", maxsplit=1)[0].split(":", maxsplit=1)
    assert scheme == "http"
    socket: ClientConnection = connect(f"ws:{rest}ws{query}", max_size=None, **options)
    return socket


def next_frame(socket: ClientConnection) -> Decoded:
    """Request a frame and return it; skip texts in between."""
    socket.send("next")
    while isinstance(message := socket.recv(timeout=10), str):
        pass
    return decode(message)


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until a condition holds; fail after a time-out."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
