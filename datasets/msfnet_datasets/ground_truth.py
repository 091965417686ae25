"""Ground truth from files: depth images with declared units, and projected LiDAR scans.

Every reader returns (H, W) float32 metres with 0 where nothing was measured.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime import MsfnetError
from msfnet_runtime.depth_storage import DepthEncoding
from msfnet_runtime.images import read_bytes, read_raw
from msfnet_runtime.picture_size import check_file_size, check_picture_size
from msfnet_runtime.sources.kitti import CAMERA, read_calibration_file, read_matrix, read_size
from msfnet_runtime.types import resize_scales

ScanDepth = Literal["camera_z", "lidar_x"]
"""What a projected scan's depth is: the camera's z, or the scanner's own x."""

GroundTruth = Literal["nyu_depth", "velodyne", "velodyne_lidar_x", "improved", "depth_images"]
"""Where the measurement comes from; ``velodyne`` is camera z, ``velodyne_lidar_x`` monodepth's
convention: the scanner's own x, about 0.27 m more; ``depth_images`` are files of any other data.
"""


def read_depth(
    path: Path, encoding: DepthEncoding, size: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Return a depth file in metres, (H, W) float32, 0 where nothing was measured.

    0, NaN, infinity and negative numbers count as not measured.

    Args:
        path: an image of one channel, or ``.npy``.
        encoding: what the stored numbers mean.
        size: of the image, which a sample's reader is passed; the depth keeps its own.

    Raises:
        MsfnetError: unreadable, of another type than declared, or without any depth.
    """
    stored = read_stored(path)
    if stored.ndim != 2 or not encoding.fits(stored.dtype):
        raise MsfnetError(
            f"{path} is {stored.dtype} {stored.shape}, but its data set declares "
            f"{encoding.text()} of one channel; check the layout"
        )
    depth = encoding.decode(stored)
    if stored.dtype.kind != "u":
        depth[~(np.isfinite(depth) & (depth > 0))] = 0
    if not depth.any():
        raise MsfnetError(f"{path} holds no depth at all; remove it from the data set")
    return depth


def read_stored(path: Path) -> NDArray[np.generic]:
    """Return the numbers of a depth image or of a ``.npy`` file as they are stored.

    Raises:
        MsfnetError: missing, unreadable, or larger than the limit of pictures.
    """
    exr = path.suffix.lower() == ".exr" and path.is_file()
    if exr and not cv2.haveImageReader(str(path)):
        raise MsfnetError(f"OpenCV cannot read {path} here; convert it to .npy or a float TIFF")
    if path.suffix.lower() != ".npy":
        return read_raw(path)
    try:
        # Mapped first: a header that promises more than the file holds allocates nothing.
        check_file_size(path.stat().st_size, path)
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(stored, np.ndarray):  # an archive of several arrays
            raise ValueError
        if stored.ndim == 2:
            check_picture_size(stored.shape[0], stored.shape[1], path)
        return np.array(stored)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise MsfnetError(f"{path} is not a readable array; remove it or replace it") from None


def read_velodyne(path: Path) -> NDArray[np.float32]:
    """Return a KITTI scan: (N, 4) float32, x forward, y left, z up in metres, and reflectance.

    Raises:
        MsfnetError: missing, empty, not a scan by its size, or with values that are not finite.
    """
    content = read_bytes(path)
    if content.size % 16:
        raise MsfnetError(f"{path} is not a scan: {content.size} bytes is not a multiple of 16")
    points = content.view("<f4").reshape(-1, 4)
    if not np.isfinite(points).all():
        raise MsfnetError(f"{path} holds values that are not finite; replace it")
    return np.asarray(points, np.float32)


@dataclass(frozen=True, eq=False)
class KittiCalibration:
    """The matrices that project a scan into a colour camera; KITTI's names, row-major."""

    p_rect: NDArray[np.float64]
    """(3, 4): rectified camera 0 to pixels of the camera."""
    r_rect_00: NDArray[np.float64]
    """(3, 3): camera 0 to rectified camera 0."""
    tr_velo_to_cam: NDArray[np.float64]
    """(3, 4): velodyne to camera 0, metres."""
    size: tuple[int, int] | None = None
    """(height, width) of the images that ``p_rect`` belongs to; None: of any that is projected
    into."""

    def fitted(self, size: tuple[int, int]) -> KittiCalibration:
        """Return the calibration of a frame of (height, width), which may be resized.

        Raises:
            MsfnetError: it may be cropped, by :func:`msfnet_runtime.types.resize_scales`.
        """
        scales = resize_scales(size, self.size or size)
        if scales is None:
            height, width = self.size or size
            raise MsfnetError(
                f"the image is {size[1]}x{size[0]} and may be cropped from the {width}x{height} "
                "of its calibration; use the whole frame, or resize it as a whole"
            )
        y, x = scales
        resized = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
        return replace(self, p_rect=resized @ self.p_rect, size=size)

    def project(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (N, 3): u w, v w and w = camera-z depth of points (N, 3) in metres."""
        count = len(points)
        velodyne = np.column_stack([points.astype(np.float64), np.ones(count)])
        rectified = self.r_rect_00 @ self.tr_velo_to_cam
        camera = np.column_stack([velodyne @ rectified.T, np.ones(count)])
        return np.asarray(camera @ self.p_rect.T)


def load_kitti_calibration(folder: Path, camera: str = CAMERA) -> KittiCalibration:
    """Read a date's ``calib_cam_to_cam.txt`` and ``calib_velo_to_cam.txt``.

    Args:
        folder: of the date.
        camera: ``image_02``, the left colour camera, or ``image_03``, the right one.

    Raises:
        MsfnetError: a file or an entry is missing, or has values that are not finite.
    """
    cameras_file, velodyne_file = (
        Path(folder) / f"calib_{name}_to_cam.txt" for name in ("cam", "velo")
    )
    cameras, velodyne = read_calibration_file(cameras_file), read_calibration_file(velodyne_file)
    number = camera[-2:]
    rotation, shift = (
        read_matrix(velodyne_file, velodyne, key, shape)
        for key, shape in (("R", (3, 3)), ("T", (3,)))
    )
    return KittiCalibration(
        read_matrix(cameras_file, cameras, f"P_rect_{number}", (3, 4)),
        read_matrix(cameras_file, cameras, "R_rect_00", (3, 3)),
        np.column_stack([rotation, shift]),
        read_size(cameras_file, cameras, f"S_rect_{number}"),
    )


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
        size: (height, width) of the image: the calibration's, or of the whole image resized.
        depth: ``camera_z``; or ``lidar_x``, monodepth's convention, about 0.27 m more.

    Returns:
        (H, W) float32 metres, 0 where no point falls.

    Raises:
        MsfnetError: the image may be cropped.
    """
    calibration = calibration.fitted(size)
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
