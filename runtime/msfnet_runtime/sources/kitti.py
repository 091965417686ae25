"""Reads KITTI raw drives: ``DATE/DATE_drive_NNNN_sync/image_02/data``.

The calibration is beside the drives of a date.

Source: the KITTI raw development kit's readme (Geiger et al., 2013). ``image_02`` is the left
colour camera.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.sources.images import FileSource
from msfnet_runtime.types import CameraIntrinsics, Frame

FRAME_RATE = 10.0
"""Frames per second of synchronised drives; timestamps are index / 10 Hz without their file."""

CAMERA = "image_02"


def is_drive(path: Path) -> bool:
    """Return whether a folder is one KITTI drive."""
    return (path / CAMERA / "data").is_dir()


def find_drives(path: Path) -> list[Path]:
    """Return the sorted drives at ``path``: itself, those of a date, or those of all dates.

    Raises:
        MsfnetError: there is none.
    """
    if is_drive(path):
        return [path]
    candidates = [*path.glob(f"*/{CAMERA}/data"), *path.glob(f"*/*/{CAMERA}/data")]
    drives = sorted(folder.parents[1] for folder in candidates)
    if not drives:
        raise MsfnetError(
            f"{path} holds no KITTI drive; name a folder with DATE/DRIVE/{CAMERA}/data below it"
        )
    return drives


def frame_files(drive: Path, camera: str = CAMERA) -> list[Path]:
    """Return a drive's images (png or jpg), sorted by index.

    Raises:
        MsfnetError: there is none.
    """
    folder = drive / camera / "data"
    files = [f for f in folder.glob("*") if f.suffix in (".png", ".jpg") and f.stem.isdecimal()]
    if not files:
        raise MsfnetError(f"{folder} holds no png or jpg frames; check the drive")
    return sorted(files, key=lambda file: int(file.stem))


def read_calibration_file(path: Path) -> dict[str, NDArray[np.float64]]:
    """Return the numeric lines of a KITTI calibration file (``P_rect_02: 7.2e+02 0.0 …``).

    Raises:
        MsfnetError: missing or without numbers.
    """
    values: dict[str, NDArray[np.float64]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise MsfnetError(f"no calibration at {path}; put the date's calibration there") from None
    for line in lines:
        key, _, numbers = line.partition(":")
        try:
            values[key.strip()] = np.array([float(word) for word in numbers.split()])
        except ValueError:
            continue  # calib_time and the like are not numbers
    if not values:
        raise MsfnetError(f"{path} holds no calibration; replace it")
    return values


def calibration_folder(drive: Path) -> Path:
    """Return the folder of a drive's calibration: that of its date."""
    return drive.parent


def read_intrinsics(folder: Path, camera: str = CAMERA) -> CameraIntrinsics | None:
    """Return a colour camera of a date's ``calib_cam_to_cam.txt``; None without the file."""
    file = folder / "calib_cam_to_cam.txt"
    if not file.exists():
        return None
    values, number = read_calibration_file(file), camera[-2:]
    try:
        width, height = values[f"S_rect_{number}"]
    except (KeyError, ValueError):
        raise MsfnetError(f"{file} lacks S_rect_{number} of 2 numbers; replace it") from None
    return projected_camera(file, values, f"P_rect_{number}", (height, width))


def projected_camera(
    file: Path, values: Mapping[str, NDArray[np.float64]], key: str, size: tuple[float, float]
) -> CameraIntrinsics:
    """Return the camera of a projection matrix in a calibration file.

    Args:
        file: the calibration file, for errors.
        values: its content.
        key: the name of the matrix, 12 numbers row by row.
        size: (height, width) of the camera's images, pixels.

    Raises:
        MsfnetError: the matrix is missing or does not describe a camera.
    """
    try:
        projection = values[key].reshape(3, 4)
    except (KeyError, ValueError):
        raise MsfnetError(f"{file} lacks {key} of 12 numbers; replace it") from None
    height, width = size
    sizes = np.array([projection[0, 0], projection[1, 1], width, height])
    if not (np.isfinite(projection).all() and (sizes > 0).all() and (sizes < 1e6).all()):
        raise MsfnetError(f"{file} describes no camera; replace it")
    return CameraIntrinsics(
        fx=float(projection[0, 0]),
        fy=float(projection[1, 1]),
        cx=float(projection[0, 2]),
        cy=float(projection[1, 2]),
        width=int(width),
        height=int(height),
    )


def read_timestamps(drive: Path) -> list[float]:
    """Return the seconds since the first frame from ``timestamps.txt``; empty if it is absent."""
    file = drive / CAMERA / "timestamps.txt"
    if not file.exists():
        return []
    try:
        text = file.read_text(encoding="utf-8")
        lines = [line[:26] for line in text.splitlines() if line.strip()]
        moments = [datetime.fromisoformat(line).replace(tzinfo=None) for line in lines]
    except (OSError, ValueError):  # invalid UTF-8 is a ValueError too
        raise MsfnetError(f"{file} is not a list of times; replace or remove it") from None
    return [(moment - moments[0]).total_seconds() for moment in moments]


class KittiDrive(FileSource):
    """Yields the left colour frames of one drive, or of all drives of a date, in order.

    They are named after their files; those of several drives ``DRIVE/FRAME``.
    """

    fps = FRAME_RATE

    def __init__(self, path: Path, *, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self._files = [(drive, file) for drive in find_drives(path) for file in frame_files(drive)]
        self.length = len(self._files)
        self._intrinsics = {
            drive: read_intrinsics(calibration_folder(drive)) for drive, _ in self._files
        }
        self._timestamps = {drive: read_timestamps(drive) for drive, _ in self._files}

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; the index counts over all drives.

        Raises:
            MsfnetError: an unreadable image, or a drive whose timestamps end before its frames.
        """
        for index, drive, file, image in self._images(self._files):
            number, times = int(file.stem), self._timestamps[drive]
            if times and number >= len(times):
                raise MsfnetError(
                    f"{drive} has a frame {number}, but its timestamps.txt only {len(times)} "
                    "times; replace or remove that file"
                )
            seconds = times[number] if times else number / FRAME_RATE
            name = f"{drive.name}/{file.stem}" if len(self._timestamps) > 1 else file.stem
            yield Frame(image, index, seconds, self._intrinsics[drive], name)
