"""Ground truth from files: depth images with declared units, and projected LiDAR scans.

Every reader returns (H, W) float32 metres with 0 where nothing was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime import MsfnetError
from msfnet_runtime.images import read_bytes, read_raw
from msfnet_runtime.sources.kitti import CAMERA, read_calibration_file

ScanDepth = Literal["camera_z", "lidar_x"]
"""What a projected scan's depth is: the camera's z, or the scanner's own x."""

GroundTruth = Literal["nyu_depth", "velodyne", "velodyne_lidar_x", "improved"]
"""Where the measurement comes from; ``velodyne`` is camera z, ``velodyne_lidar_x`` monodepth's
convention: the scanner's own x, about 0.27 m more.
"""


class DepthEncoding(Enum):
    """How a depth image stores metres. Declared per data set, never guessed."""

    UINT8_10M = ("uint8", 10.0 / 255.0, "255 = 10 m")
    """DenseDepth's training set: 255 is 10 m."""
    UINT16_MM = ("uint16", 1e-3, "millimetres")
    """Millimetres: NYU's test set, BTS's sync folders, most RGB-D cameras."""
    UINT16_256 = ("uint16", 1.0 / 256.0, "256 = 1 m")
    """KITTI's depth benchmark: metres times 256."""

    def __init__(self, dtype: str, metres: float, scale: str) -> None:
        self.dtype = dtype
        """Of the stored samples."""
        self.metres = metres
        """Of one unit."""
        self.scale = scale
        """The unit in words."""

    def text(self) -> str:
        """Return type and unit, e.g. ``uint16, millimetres``."""
        return f"{self.dtype}, {self.scale}"


DepthStorage = Literal["uint8_10m", "uint16_mm", "uint16_256", "float32_m", "velodyne"]
"""How a list stores its depth: a :class:`DepthEncoding` by its name in small letters, metres (in
NYU's labelled set), or scans."""


def read_depth(path: Path, encoding: DepthEncoding) -> NDArray[np.float32]:
    """Return a depth image in metres, (H, W) float32, 0 where nothing was measured.

    Raises:
        MsfnetError: unreadable, of another type than declared, or without any depth.
    """
    stored = read_raw(path)
    if stored.ndim != 2 or stored.dtype != encoding.dtype:
        raise MsfnetError(
            f"{path} is {stored.dtype} {stored.shape}, but its data set declares {encoding.name} "
            f"({encoding.dtype}, one channel); check the layout"
        )
    if not stored.any():
        raise MsfnetError(f"{path} holds no depth at all; remove it from the data set")
    return np.asarray(stored, np.float32) * np.float32(encoding.metres)


def read_encoded(path: Path, encoding: DepthEncoding, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return a depth image in metres whatever size its image has; for a sample's reader."""
    return read_depth(path, encoding)


def read_velodyne(path: Path) -> NDArray[np.float32]:
    """Return a KITTI scan: (N, 4) float32, x forward, y left, z up in metres, and reflectance.

    Raises:
        MsfnetError: missing, empty, of a size that is no scan, or holding values that are none.
    """
    content = read_bytes(path)
    if content.size % 16:
        raise MsfnetError(f"{path} is no scan: {content.size} bytes is not a multiple of 16")
    points = content.view("<f4").reshape(-1, 4)
    if not np.isfinite(points).all():
        raise MsfnetError(f"{path} holds values that are not finite; replace it")
    return np.asarray(points, np.float32)


@dataclass(frozen=True, eq=False)
class KittiCalibration:
    """What projects a scan into a colour camera; KITTI's names, row-major."""

    p_rect: NDArray[np.float64]
    """(3, 4): rectified camera 0 to pixels of the camera."""
    r_rect_00: NDArray[np.float64]
    """(3, 3): camera 0 to rectified camera 0."""
    tr_velo_to_cam: NDArray[np.float64]
    """(3, 4): velodyne to camera 0, metres."""

    def project(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (N, 3): u w, v w and w = camera-z depth of points (N, 3) in metres."""
        count = len(points)
        velodyne = np.column_stack([points.astype(np.float64), np.ones(count)])
        camera = np.column_stack([velodyne @ (self._rectified()).T, np.ones(count)])
        return np.asarray(camera @ self.p_rect.T)

    def _rectified(self) -> NDArray[np.float64]:
        return np.asarray(self.r_rect_00 @ self.tr_velo_to_cam)


def load_kitti_calibration(folder: Path, camera: str = CAMERA) -> KittiCalibration:
    """Read a date's ``calib_cam_to_cam.txt`` and ``calib_velo_to_cam.txt``.

    Args:
        folder: of the date.
        camera: ``image_02``, the left colour camera, or ``image_03``, the right one.

    Raises:
        MsfnetError: a file or an entry is missing.
    """
    cameras = read_calibration_file(Path(folder) / "calib_cam_to_cam.txt")
    velodyne = read_calibration_file(Path(folder) / "calib_velo_to_cam.txt")
    try:
        return KittiCalibration(
            cameras[f"P_rect_{camera[-2:]}"].reshape(3, 4),
            cameras["R_rect_00"].reshape(3, 3),
            np.column_stack([velodyne["R"].reshape(3, 3), velodyne["T"]]),
        )
    except (KeyError, ValueError) as error:
        raise MsfnetError(f"the calibration in {folder} is incomplete ({error})") from None


def project_velodyne(
    points: NDArray[np.floating],
    calibration: KittiCalibration,
    size: tuple[int, int],
    depth: ScanDepth = "camera_z",
) -> NDArray[np.float32]:
    """Project a scan into the image plane, as monodepth's evaluation does (Garg et al. 2016).

    Points behind the scanner (x < 0) and outside the image are dropped; a point falls on pixel
    (round(u) - 1, round(v) - 1), halves rounded to even; of several on one pixel the nearest
    stays.

    Args:
        points: (N, 3 or 4), x forward, y left, z up, metres.
        calibration: of the date.
        size: (height, width) of the image.
        depth: ``camera_z``; or ``lidar_x``, monodepth's convention, about 0.27 m more.

    Returns:
        (H, W) float32 metres, 0 where no point falls.
    """
    height, width = size
    ahead = points[points[:, 0] >= 0][:, :3]
    projected = calibration.project(ahead)
    in_front = projected[:, 2] > 0
    ahead, projected = ahead[in_front], projected[in_front]
    columns, rows = (np.rint(projected[:, i] / projected[:, 2]).astype(int) - 1 for i in (0, 1))
    inside = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
    values = (projected[:, 2] if depth == "camera_z" else ahead[:, 0])[inside]
    nearest = np.full((height, width), np.inf)
    np.minimum.at(nearest, (rows[inside], columns[inside]), values)
    return np.where(np.isfinite(nearest), nearest, 0).astype(np.float32)
