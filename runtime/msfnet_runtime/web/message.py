"""What the page is sent: JSON texts about the stream, and one binary message per frame.

A frame's message is a header, a picture and a depth map, one after the other:

======================  ==========================================================
4 bytes                 length of the header, uint32, little-endian
header                  JSON, UTF-8: see :class:`Header`
``image_bytes`` bytes   the RGB picture, JPEG
the rest                depth, one zlib stream (the browser's ``DecompressionStream("deflate")``)
======================  ==========================================================

Inflated, the depth is ``height * width`` low bytes, then as many high bytes, of uint16 numbers.
Each number is the difference to its left neighbour modulo 65536, in the first column to 0; their
running sum along a row is the depth in counts. Counts divided by ``counts_per_metre`` are metres;
0 is invalid, 65535 is that far or farther. Differences in planes take a third of the bytes.

Wide frames are thinned: every ``step``-th row and column of the depth is sent as it is, never
averaged, so that each number sent is the depth of one pixel of the frame.
"""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.colour import COLOUR_MAPS, colour_table
from msfnet_runtime.sinks.folder import counts_per_metre, encode_depth
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.types import DepthMap, Frame

ASSUMED_FIELD_OF_VIEW_DEG = 60.0
"""Of a camera nobody knows, horizontally: between a webcam and a phone."""

_ASSUMED = SinkOptions(lens=ASSUMED_FIELD_OF_VIEW_DEG)

_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Header:
    """What a frame's message says of itself."""

    index: int
    """The frame's index in its source."""
    timestamp_s: float
    """Capture time on the source's own clock, seconds."""
    name: str
    """The file's stem where the source reads files, else empty."""
    width: int
    """Of the depth sent, pixels."""
    height: int
    """Of the depth sent, pixels."""
    step: int
    """Column x of the depth sent is column ``x * step`` of the frame; rows alike."""
    counts_per_metre: int
    image_bytes: int
    fx: float
    """Focal length, pixels of the depth sent; as are fy, cx and cy."""
    fy: float
    cx: float
    cy: float
    assumed_fov_deg: float | None
    """The horizontal field of view taken for a camera nobody knows; null for a known one."""


def encode_frame(frame: Frame, depth: DepthMap, spec: ModelSpec, max_width: int) -> bytes:
    """Return a frame and its depth as one message.

    Args:
        frame: the picture.
        depth: its depth, as large as the picture.
        spec: the model's spec; its depth range sets the unit.
        max_width: the widest depth sent, pixels; wider ones are thinned by a whole step.
    """
    step = math.ceil(depth.values.shape[1] / max_width)
    counts = counts_per_metre(spec)
    sent = encode_depth(depth, counts)[::step, ::step]
    height, width = sent.shape
    image = _jpeg(frame.image, (width, height))
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
    text = json.dumps(asdict(header)).encode()
    return struct.pack("<I", len(text)) + text + image + _pack(sent)


def hello_text(spec: ModelSpec) -> str:
    """Return the first text a viewer gets: the model, its depth range, the colour tables.

    A table is 256 RGB triples, base64, from the nearest depth to the farthest.
    """
    tables = {name: base64.b64encode(colour_table(name).tobytes()).decode() for name in COLOUR_MAPS}
    return json.dumps(
        {
            "type": "hello",
            "model": f"{spec.encoder}, {spec.dataset}, {spec.precision}",
            "range_m": spec.depth_range_m,
            "colours": tables,
        }
    )


def _jpeg(image: NDArray[np.uint8], size: tuple[int, int]) -> bytes:
    """Return an (H, W, 3) RGB picture as JPEG of ``size`` = (width, height)."""
    if image.shape[1::-1] != size:
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def _pack(counts: NDArray[np.uint16]) -> bytes:
    """Return (H, W) uint16 as the module says: differences, planes of bytes, zlib."""
    differences = counts.copy()
    differences[:, 1:] -= counts[:, :-1]
    planes = [(differences & 255).astype(np.uint8), (differences >> 8).astype(np.uint8)]
    return zlib.compress(np.stack(planes).tobytes(), 1)
