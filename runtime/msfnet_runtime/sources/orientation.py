"""Turns the frames of any source, and its camera with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np

from msfnet_runtime.closing import Closing
from msfnet_runtime.source import Source, SourceHealth
from msfnet_runtime.types import CameraIntrinsics, Frame

_CODES = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}


class RotatedSource(Closing):
    """A source whose frames are turned clockwise by 90, 180 or 270 degrees."""

    def __init__(self, source: Source, degrees: int) -> None:
        self._source = source
        self._degrees = degrees

    @property
    def live(self) -> bool:
        """The source's."""
        return self._source.live

    @property
    def length(self) -> int | None:
        """The source's."""
        return self._source.length

    @property
    def fps(self) -> float:
        """The source's."""
        return self._source.fps

    @property
    def health(self) -> SourceHealth:
        """The source's."""
        return self._source.health

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames, turned."""
        for frame in self._source:
            image = np.asarray(cv2.rotate(frame.image, _CODES[self._degrees]), np.uint8)
            camera = frame.intrinsics and rotate_camera(frame.intrinsics, self._degrees)
            yield replace(frame, image=image, intrinsics=camera)

    def stop(self) -> None:
        """Stop the source."""
        self._source.stop()

    def close(self) -> None:
        """Close the source."""
        self._source.__exit__(None, None, None)


def rotate_camera(camera: CameraIntrinsics, degrees: int) -> CameraIntrinsics:
    """Return the pinhole camera of an image turned clockwise.

    Turned by 90 degrees, pixel (column, row) comes to (height - 1 - row, column).
    """
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
