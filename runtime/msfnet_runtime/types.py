"""What flows through the runtime: frames in, depth maps out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CameraIntrinsics:
    """A pinhole camera without distortion, in pixels of an image of ``width`` x ``height``."""

    fx: float
    """Focal length along x, pixels."""
    fy: float
    """Focal length along y, pixels."""
    cx: float
    """Principal point's column, pixels; 0 is the centre of the first pixel."""
    cy: float
    """Principal point's row, pixels; 0 is the centre of the first pixel."""
    width: int
    """Image width the values refer to, pixels."""
    height: int
    """Image height the values refer to, pixels."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a stream."""

    image: NDArray[np.uint8]
    """(H, W, 3) uint8, RGB."""
    index: int = 0
    """Position in the source, from 0; a live source counts the frames it dropped too."""
    timestamp_s: float = 0.0
    """Capture time in seconds, on the source's own clock."""
    intrinsics: CameraIntrinsics | None = None
    """The camera that took it, where the source knows."""
    name: str = ""
    """The file's stem where the source reads files, else empty."""


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Metric depth of one frame: the distance along the camera's z axis."""

    values: NDArray[np.float32]
    """(H, W) float32, metres; meaningful where ``valid``."""
    valid: NDArray[np.bool_]
    """(H, W) bool: the depth is finite and positive."""
    index: int = 0
    """The frame's index."""
    timestamp_s: float = 0.0
    """The frame's capture time, seconds."""
