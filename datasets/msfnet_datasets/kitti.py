"""KITTI raw with ground truth: projected scans or improved maps, by drive or by split list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from msfnet_datasets.ground_truth import (
    GroundTruth,
    ScanDepth,
    load_kitti_calibration,
    project_velodyne,
    read_depth,
    read_velodyne,
)
from msfnet_datasets.layout import ALL, DatasetLayout, GroundTruths, Part
from msfnet_datasets.sample import Sample, SampleList
from msfnet_datasets.split_lists import ListEntry, existing_image, find_list, read_split_list
from msfnet_runtime import MsfnetError
from msfnet_runtime.depth_storage import ENCODINGS, DepthStorage
from msfnet_runtime.sources import holds, kitti
from msfnet_runtime.words import counted

_Maps = Mapping[tuple[str, str], Path]
"""(drive, camera) to the folder of its improved maps."""

_DEPTH = 4
"""Folders between a root of everything and ``DRIVE/proj_depth``, at most."""


class Kitti(DatasetLayout):
    """Raw drives with velodyne scans, or with the depth benchmark's improved maps.

    The maps are looked for in the benchmark's own layout, up to four folders below the root:
    ``DRIVE/proj_depth/groundtruth/image_02/NNNNNNNNNN.png``.
    """

    name = "kitti"
    title = "KITTI raw"
    expects = "KITTI drives (DATE/DRIVE/image_02/data)"
    ground_truths: ClassVar[GroundTruths] = {
        "velodyne": ("velodyne",),
        "velodyne_lidar_x": ("velodyne",),
        "improved": ("uint16_256",),
    }
    protocol = "kitti_raw"
    sparse = True

    def recognises(self, path: Path, split: str | None) -> bool:
        """Recognise the drives' folders."""
        return holds(kitti.find_drives, path)

    def open(
        self, path: Path, split: str | None, depth: DepthStorage | None, kind: GroundTruth
    ) -> SampleList:
        """Open a list file, or every left frame with ground truth for None."""
        scan = _SCANS.get(kind)
        if split and split != ALL:
            return _listed(path, split, scan)
        if scan is None:
            samples, missing = mapped_frames(path), _NO_MAPS
        else:
            drives = kitti.find_drives(path)
            samples = [sample for drive in drives for sample in scanned_frames(drive, scan)]
            missing = _NO_SCANS
        if not samples:
            raise MsfnetError(f"no frame in {path} {missing}")
        return SampleList(tuple(samples))

    def describe(self, path: Path) -> str:
        """Return how many drives there are."""
        return f"{self.title}, {counted(len(kitti.find_drives(path)), 'drive')}"

    def parts(self, path: Path, split: str | None, depth: DepthStorage | None) -> Sequence[Part]:
        """Return drive by drive, then the improved maps; or the list asked for."""
        if split or depth:
            return super().parts(path, split, depth)
        images = {drive: kitti.frame_files(drive) for drive in kitti.find_drives(path)}
        parts = []
        for drive, files in images.items():
            scanned = scanned_frames(drive)
            kind = "velodyne" if scanned else "no velodyne"
            parts.append(_part(f"{drive.name}, {kind}", scanned, files))
        mapped = mapped_frames(path)
        every = [file for files in images.values() for file in files]
        return [*parts, _part("improved depth maps", mapped, every)] if mapped else parts


_SCANS: Mapping[GroundTruth, ScanDepth] = {"velodyne": "camera_z", "velodyne_lidar_x": "lidar_x"}
"""What the depth of a projected scan is; improved maps have no scan."""

_NO_SCANS = "has a scan in velodyne_points/data; add the scans"
_NO_MAPS = (
    "has an improved depth map; expected raw drives and "
    "DRIVE/proj_depth/groundtruth/image_02/*.png below it"
)


def _part(title: str, samples: Sequence[Sample], files: Sequence[Path]) -> Part:
    measured = {sample.image_path for sample in samples}
    bare = tuple(file for file in files if file not in measured)
    return Part(title, SampleList(tuple(samples)), bare)


def scanned_frames(drive: Path, depth: ScanDepth = "camera_z") -> list[Sample]:
    """Return the frames of one drive that have a scan; there may be none.

    Raises:
        MsfnetError: no frames, or scans without their calibration.
    """
    scans = _numbered(drive.glob("velodyne_points/data/*.bin"))
    images = [f for f in kitti.frame_files(drive) if int(f.stem) in scans]
    if images:
        _calibration(kitti.calibration_folder(drive), kitti.CAMERA)
    return [_sample(image, scans[int(image.stem)], depth) for image in images]


def mapped_frames(path: Path) -> list[Sample]:
    """Return the left frames of all drives below ``path`` with an improved map, if any."""
    maps: dict[str, dict[int, Path]] = {}
    for (drive_name, camera), folder in _map_folders(path).items():
        if camera == kitti.CAMERA:
            maps[drive_name] = _numbered(folder.glob("*.png"))
    drives = [folder.parents[1] for folder in _below(path, f"{kitti.CAMERA}/data")]
    return [
        _sample(image, maps[drive.name][int(image.stem)], None)
        for drive in drives
        if drive.name in maps
        for image in kitti.frame_files(drive)
        if int(image.stem) in maps[drive.name]
    ]


def _listed(path: Path, name: str, scan: ScanDepth | None) -> SampleList:
    """Return the frames of a list, with scans or, for None, with improved maps where it has some.

    Raises:
        MsfnetError: no such list, or one of other lines. Absent files are not looked for here.
    """
    maps = _map_folders(path)
    samples, without = [], []
    for entry in read_split_list(find_list(name, path)):
        image = existing_image(path / entry.image)
        if len(entry.image.parts) < 4 or not image.stem.isdecimal():
            raise MsfnetError(
                f"{name}: {entry.image} is not a frame of a KITTI drive; correct the list"
            )
        if scan:
            file = image.parents[2] / "velodyne_points/data" / f"{image.stem}.bin"
            samples.append(_sample(image, file, scan))
        elif entry.declared_none:
            without.append(_name(image))
        else:
            samples.append(_sample(image, _find_map(path, entry, image, maps), None))
    return SampleList(tuple(samples), tuple(without))


def _map_folders(path: Path) -> dict[tuple[str, str], Path]:
    """Return the folders of improved depth maps below ``path``."""
    return {
        (folder.parents[2].name, folder.name): folder
        for folder in _below(path, "proj_depth/groundtruth/image_0[23]")
    }


def _below(path: Path, pattern: str) -> list[Path]:
    """Return what lies in ``path`` or up to :data:`_DEPTH` folders below it, links followed.

    Not every folder is walked through: KITTI has half a million files.
    """
    found = (path.glob("*/" * depth + pattern) for depth in range(_DEPTH + 1))
    return sorted(folder for folders in found for folder in folders)


def _find_map(path: Path, entry: ListEntry, image: Path, maps: _Maps) -> Path:
    """Return where a frame's map lies: as the list says, or in the benchmark's own layout."""
    named = path / (entry.depth or entry.image.with_suffix(".png"))
    if entry.depth and named.is_file():
        return named
    folder = maps.get((image.parents[2].name, image.parents[1].name))
    return folder / f"{image.stem}.png" if folder else named


def _sample(image: Path, depth: Path, scan: ScanDepth | None) -> Sample:
    """Return a frame with its scan or, for None, its improved map."""
    camera, folder = image.parents[1].name, kitti.calibration_folder(image.parents[2])
    maps = ENCODINGS["uint16_256"]
    return Sample(
        name=_name(image),
        image_path=image,
        depth_path=depth,
        depth_reader=partial(_read_scan, depth, folder, camera, scan)
        if scan
        else partial(read_depth, depth, maps),
        intrinsics=_intrinsics(folder, camera),
        unit="float32 scans, metres" if scan else maps.text(),
    )


def _name(image: Path) -> str:
    """Return ``DRIVE/INDEX``, with the camera between for the right one."""
    drive, camera = image.parents[2].name, image.parents[1].name
    side = "" if camera == kitti.CAMERA else f"{camera}/"
    return f"{drive}/{side}{image.stem}"


_intrinsics = cache(kitti.read_intrinsics)
_calibration = cache(load_kitti_calibration)


def _numbered(files: Iterable[Path]) -> dict[int, Path]:
    """Return files by the number they are named with; others are not the data set's."""
    return {int(file.stem): file for file in files if file.stem.isdecimal()}


def _read_scan(
    path: Path, folder: Path, camera: str, depth: ScanDepth, size: tuple[int, int]
) -> NDArray[np.float32]:
    points, calibration = read_velodyne(path), _calibration(folder, camera)
    try:
        return project_velodyne(points, calibration, size, depth)
    except MsfnetError as error:
        raise MsfnetError(f"{path}: {error}") from None
