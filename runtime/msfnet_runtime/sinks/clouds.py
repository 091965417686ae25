"""Depth as coloured point clouds."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.sinks.folder import FolderSink
from msfnet_runtime.types import CameraIntrinsics, DepthMap, Frame

_PLACE, _COLOUR = ("x", "y", "z"), ("red", "green", "blue")

_POINT = np.dtype([(name, "<f4") for name in _PLACE] + [(name, "u1") for name in _COLOUR])


def point_cloud(
    image: NDArray[np.uint8], depth: DepthMap, camera: CameraIntrinsics
) -> NDArray[np.void]:
    """Return the valid pixels as points, row by row.

    The camera is at the origin: x to the right, y down, z ahead, metres.

    Args:
        image: (H, W, 3) uint8 RGB, the points' colours.
        depth: (H, W).
        camera: in pixels of the image.

    Returns:
        (N,) with the fields x, y, z float32 and red, green, blue uint8.
    """
    rows, columns = np.nonzero(depth.valid)
    points = np.empty(len(rows), _POINT)
    z = depth.values[rows, columns]
    points["x"] = (columns - camera.cx) / camera.fx * z
    points["y"] = (rows - camera.cy) / camera.fy * z
    points["z"] = z
    for channel, name in enumerate(_COLOUR):
        points[name] = image[rows, columns, channel]
    return points


class PlySink(FolderSink):
    """``NAME.ply``, binary little endian: a coloured point for every valid pixel."""

    suffix: ClassVar[str] = ".ply"

    def encode(self, frame: Frame, depth: DepthMap) -> bytes:
        """Return a PLY file.

        Raises:
            MsfnetError: nobody knows the camera.
        """
        points = point_cloud(frame.image, depth, self._options.camera(frame))
        properties = "".join(
            [f"property float {name}\n" for name in _PLACE]
            + [f"property uchar {name}\n" for name in _COLOUR]
        )
        head = (
            "ply\nformat binary_little_endian 1.0\n"
            f"comment metres; x right, y down, z ahead\ncomment frame {depth.index} "
            f"at {depth.timestamp_s} s\nelement vertex {len(points)}\n{properties}end_header\n"
        )
        return head.encode("ascii") + points.tobytes()

    def encoding(self) -> dict[str, Any]:
        """Return the axes and the unit."""
        return {"encoding": "PLY: x right, y down, z ahead of the camera, metres; RGB colours"}
