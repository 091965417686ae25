"""Encodes messages to the page: JSON texts about the stream, one binary message per frame.

The message of a frame is a header, a picture and a depth map:

======================  ==========================================================
4 bytes                 length of the header, uint32, little-endian
header                  JSON, UTF-8: see :class:`Header`
``image_bytes`` bytes   the RGB picture, JPEG
the rest                depth, one zlib stream (the browser's ``DecompressionStream("deflate")``)
======================  ==========================================================

Decompressed, the depth is ``height * width`` low bytes, then as many high bytes, of uint16
numbers. Each number is the difference to its left neighbour modulo 65536, in the first column to
0; the cumulative sum along a row is the depth in counts. Counts divided by ``counts_per_metre``
are metres; 0 is invalid, 65535 is that depth or farther. Differences in planes compress to a
third of the size.

Wide frames are subsampled: every ``step``-th row and column of the depth is sent, without
averaging, so that each number is the depth of one pixel of the frame.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.colour import COLOUR_MAPS, colour_table
from msfnet_runtime.images import encode_jpeg
from msfnet_runtime.sinks.folder import counts_per_metre, encode_depth
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.typed import to_json
from msfnet_runtime.types import DepthMap, Frame

ASSUMED_FIELD_OF_VIEW_DEG = 60.0
"""Horizontal field of view of an unknown camera: between a webcam and a phone."""

_ASSUMED = SinkOptions(lens=ASSUMED_FIELD_OF_VIEW_DEG)

_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Header:
    """The header of a frame's message."""

    index: int
    """Index of the frame in its source."""
    timestamp_s: float
    """Capture time on the source's own clock, seconds."""
    name: str
    """Stem of the file if the source reads files, else empty."""
    width: int
    """Width of the depth that is sent, pixels."""
    height: int
    """Height of the depth that is sent, pixels."""
    step: int
    """Column x of the depth is column ``x * step`` of the frame; the same holds for rows."""
    counts_per_metre: int
    image_bytes: int
    fx: float
    """Focal length in pixels of the depth that is sent, like fy, cx and cy."""
    fy: float
    cx: float
    cy: float
    assumed_fov_deg: float | None
    """Assumed horizontal field of view of an unknown camera; null for a known one."""


def encode_frame(frame: Frame, depth: DepthMap, spec: ModelSpec, max_width: int) -> bytes:
    """Return a frame and its depth as one message.

    Args:
        frame: the frame.
        depth: its depth, of the size of the frame.
        spec: the model's spec; its depth range sets the unit.
        max_width: largest width of the depth, pixels; wider ones are subsampled by an integer step.
    """
    step = math.ceil(depth.values.shape[1] / max_width)
    counts = counts_per_metre(spec)
    sent = encode_depth(depth, counts)[::step, ::step]
    height, width = sent.shape
    picture = frame.image
    if picture.shape[:2] != sent.shape:
        resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        picture = np.asarray(resized, np.uint8)
    image = encode_jpeg(picture, _JPEG_QUALITY)
    camera = _ASSUMED.camera(frame)
    header = Header(
        index=frame.index,
        timestamp_s=frame.timestamp_s,
        name=frame.name,
        width=width,
        height=height,
        step=step,
        counts_per_metre=counts,
        image_bytes=len(image),
        fx=camera.fx / step,
        fy=camera.fy / step,
        cx=camera.cx / step,
        cy=camera.cy / step,
        assumed_fov_deg=None if frame.intrinsics else ASSUMED_FIELD_OF_VIEW_DEG,
    )
    text = to_json(header, indent=None).encode()
    return struct.pack("<I", len(text)) + text + image + _pack(sent)


def hello_text(spec: ModelSpec) -> str:
    """Return the first text to a viewer: the model, its depth range, the colour tables.

    A table is 256 RGB triples, base64, from the nearest to the farthest depth.
    """
    tables = {name: base64.b64encode(colour_table(name).tobytes()).decode() for name in COLOUR_MAPS}
    model = f"{spec.encoder}, {spec.dataset}, {spec.precision}"
    hello = {"type": "hello", "model": model, "range_m": spec.depth_range_m, "colours": tables}
    return to_json(hello, indent=None)


def _pack(counts: NDArray[np.uint16]) -> bytes:
    """Compress (H, W) uint16 as described above: differences, planes of bytes, zlib."""
    differences = counts.copy()
    differences[:, 1:] -= counts[:, :-1]
    planes = [(differences & 255).astype(np.uint8), (differences >> 8).astype(np.uint8)]
    return zlib.compress(np.stack(planes).tobytes(), 1)
