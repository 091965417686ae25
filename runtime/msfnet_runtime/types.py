"""Defines the data that flows through the runtime: frames, cameras and depth maps."""

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
    """Column of the principal point, pixels; 0 is the centre of the first pixel."""
    cy: float
    """Row of the principal point, pixels; 0 is the centre of the first pixel."""
    width: int
    """Image width the values refer to, pixels."""
    height: int
    """Image height the values refer to, pixels."""

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The (3, 3) camera matrix, pixels."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    def scaled(self, height: int, width: int) -> CameraIntrinsics:
        """Return the camera of the same image resized to ``height`` x ``width`` pixels."""
        x, y = width / self.width, height / self.height
        return CameraIntrinsics(
            fx=self.fx * x,
            fy=self.fy * y,
            cx=(self.cx + 0.5) * x - 0.5,
            cy=(self.cy + 0.5) * y - 0.5,
            width=width,
            height=height,
        )

    def rotated(self, degrees: int) -> CameraIntrinsics:
        """Return the camera of the same image rotated clockwise by a multiple of 90 degrees.

        A rotation by 90 degrees moves pixel (column, row) to (height - 1 - row, column).
        """
        camera = self
        for _ in range(degrees // 90):
            camera = CameraIntrinsics(
                fx=camera.fy,
                fy=camera.fx,
                cx=camera.height - 1 - camera.cy,
                cy=camera.cx,
                width=camera.height,
                height=camera.width,
            )
        return camera


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a stream."""

    image: NDArray[np.uint8]
    """(H, W, 3) uint8, RGB."""
    index: int = 0
    """Position in the source, from 0; a live source also counts dropped frames."""
    timestamp_s: float = 0.0
    """Capture time on the source's own clock, seconds."""
    intrinsics: CameraIntrinsics | None = None
    """The camera, if the source knows it."""
    name: str = ""
    """Stem of the file if the source reads files, else empty."""


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Metric depth of one frame: the distance along the camera's z axis."""

    values: NDArray[np.float32]
    """(H, W) float32, metres; defined where ``valid``."""
    valid: NDArray[np.bool_]
    """(H, W) bool: the depth is finite and positive."""
    index: int = 0
    """Index of the frame."""
    timestamp_s: float = 0.0
    """Capture time of the frame, seconds."""
