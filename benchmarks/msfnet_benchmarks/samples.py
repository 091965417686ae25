"""Frames with ground truth, loaded when asked for; used by evaluation and by training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.ground_truth import (
    DepthEncoding,
    KittiCalibration,
    ScanDepth,
    load_kitti_calibration,
    project_velodyne,
    read_depth,
    read_velodyne,
)
from msfnet_benchmarks.protocols import GroundTruth
from msfnet_runtime import CameraIntrinsics, Frame, MsfnetError
from msfnet_runtime.images import read_image
from msfnet_runtime.sources import kitti, nyu


@dataclass(frozen=True)
class Sample:
    """One image file and where its ground truth comes from."""

    name: str
    """Readable and unique within the data set."""
    image_path: Path
    depth_path: Path
    """The file that holds the measurement: a depth image or a scan."""
    depth_reader: Callable[[tuple[int, int]], NDArray[np.float32]]
    """Reads the ground truth for an image of (height, width), in metres, 0 = none."""
    intrinsics: CameraIntrinsics | None = None
    unit: str = ""
    """How ``depth_path`` stores depth, as its layout declares it, in words."""

    def frame(self, index: int = 0) -> Frame:
        """Read the image.

        Raises:
            MsfnetError: unreadable.
        """
        image = read_image(self.image_path)
        return Frame(image, index, intrinsics=self.intrinsics, name=self.name)

    def ground_truth(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """Read the ground truth of an image of ``size``: (H, W) float32 metres, 0 = none.

        Raises:
            MsfnetError: unreadable, or of another size than the image.
        """
        depth = self.depth_reader(size)
        if depth.shape != size:
            raise MsfnetError(
                f"{self.depth_path} is {depth.shape}, its image {size}; check the data set"
            )
        return depth


def open_samples(
    path: Path, ground_truth: GroundTruth, split: str | None = None
) -> Sequence[Sample]:
    """Find the samples of a data set that carry the wanted kind of ground truth.

    Args:
        path: KITTI raw drives, or the root of NYU in DenseDepth's layout.
        ground_truth: what a protocol asks for.
        split: NYU's list; the test list, or else the validation list, if left out.

    Raises:
        MsfnetError: missing folder, another layout, or no sample with such ground truth.
    """
    if not path.exists():
        raise MsfnetError(f"{path} does not exist; check the path of the data set")
    if ground_truth == "nyu_depth":
        return nyu_samples(path, split)
    if ground_truth == "improved":
        return kitti_improved_samples(path)
    return kitti_raw_samples(path, "camera_z" if ground_truth == "velodyne" else "lidar_x")


def kitti_raw_samples(path: Path, depth: ScanDepth = "camera_z") -> list[Sample]:
    """Return the frames of KITTI raw drives that have a velodyne scan."""
    drives = kitti.find_drives(path)
    samples = [sample for drive in drives for sample in scanned_frames(drive, depth)]
    if not samples:
        raise MsfnetError(f"no frame in {path} has a scan in velodyne_points/data; add the scans")
    return samples


def scanned_frames(drive: Path, depth: ScanDepth = "camera_z") -> list[Sample]:
    """Return the frames of one drive that have a scan; there may be none.

    Raises:
        MsfnetError: no frames, or scans without their calibration.
    """
    scans = _numbered(drive.glob("velodyne_points/data/*.bin"))
    images = [f for f in kitti.frame_files(drive) if int(f.stem) in scans]
    if not images:
        return []
    folder = kitti.calibration_folder(drive)
    calibration, camera = load_kitti_calibration(folder), kitti.read_intrinsics(folder)
    return [
        Sample(
            name=f"{drive.name}/{image.stem}",
            image_path=image,
            depth_path=(scan := scans[int(image.stem)]),
            depth_reader=partial(_read_scan, scan, calibration, depth),
            intrinsics=camera,
            unit="float32 scans, metres",
        )
        for image in images
    ]


def _numbered(files: Iterable[Path]) -> dict[int, Path]:
    """Return files by the number they are named with; others are not the data set's."""
    return {int(file.stem): file for file in files if file.stem.isdecimal()}


def _read_scan(
    path: Path, calibration: KittiCalibration, depth: ScanDepth, size: tuple[int, int]
) -> NDArray[np.float32]:
    return project_velodyne(read_velodyne(path), calibration, size, depth)


def kitti_improved_samples(path: Path) -> list[Sample]:
    """Return the frames of KITTI raw drives that have an improved depth map.

    The maps are looked for in the depth benchmark's own layout, anywhere below ``path``:
    ``DRIVE/proj_depth/groundtruth/image_02/NNNNNNNNNN.png``.
    """
    samples = mapped_frames(path)
    if not samples:
        raise MsfnetError(
            f"no frame in {path} has an improved depth map; expected raw drives and "
            "DRIVE/proj_depth/groundtruth/image_02/*.png below it"
        )
    return samples


def mapped_frames(path: Path) -> list[Sample]:
    """Return the frames of all drives below ``path`` with an improved map; there may be none."""
    maps: dict[str, dict[int, Path]] = {}
    for folder in path.rglob("proj_depth/groundtruth/image_02"):
        maps.setdefault(folder.parents[2].name, {}).update(_numbered(folder.glob("*.png")))
    encoding = DepthEncoding.UINT16_256
    return [
        Sample(
            name=f"{drive.name}/{image.stem}",
            image_path=image,
            depth_path=(depth := maps[drive.name][int(image.stem)]),
            depth_reader=partial(_read_encoded, depth, encoding),
            intrinsics=kitti.read_intrinsics(kitti.calibration_folder(drive)),
            unit=encoding.text(),
        )
        for drive in _drives_below(path)
        if drive.name in maps
        for image in kitti.frame_files(drive)
        if int(image.stem) in maps[drive.name]
    ]


def _drives_below(path: Path) -> list[Path]:
    return sorted(f.parents[1] for f in path.rglob(f"{kitti.CAMERA}/data") if f.is_dir())


def _read_encoded(
    path: Path, encoding: DepthEncoding, size: tuple[int, int]
) -> NDArray[np.float32]:
    return read_depth(path, encoding)


def nyu_samples(path: Path, split: str | None = None) -> list[Sample]:
    """Return the pairs of an NYU list; DenseDepth's test maps are millimetres, the rest 8 bits.

    Raises:
        MsfnetError: no such list.
    """
    lists = nyu.find_lists(path)
    chosen = split or next((name for name in ("test", "val") if name in lists), "train")
    if chosen not in lists:
        raise MsfnetError(f"{path} has no list nyu2_{chosen}.csv; it has {', '.join(lists)}")
    encoding = DepthEncoding.UINT16_MM if chosen == "test" else DepthEncoding.UINT8_10M
    return [
        Sample(
            f"{image.parent.name}/{image.stem}",
            image,
            depth,
            partial(_read_encoded, depth, encoding),
            nyu.INTRINSICS,
            encoding.text(),
        )
        for image, depth in nyu.read_list(lists[chosen])
    ]
