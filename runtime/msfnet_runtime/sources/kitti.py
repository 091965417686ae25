"""Reads KITTI raw drives: ``DATE/DATE_drive_NNNN_sync/image_02/data``.

The calibration is beside the drives of a date.

Source: the KITTI raw development kit's readme (Geiger et al., 2013). ``image_02`` is the left
colour camera.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError, NothingFoundError
from msfnet_runtime.sources.images import FileSource
from msfnet_runtime.text_lists import read_lines
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
        NothingFoundError: there is none.
    """
    if is_drive(path):
        return [path]
    candidates = [*path.glob(f"*/{CAMERA}/data"), *path.glob(f"*/*/{CAMERA}/data")]
    drives = sorted(folder.parents[1] for folder in candidates)
    if not drives:
        raise NothingFoundError(
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
    if not path.is_file():
        raise MsfnetError(f"no calibration at {path}; put the date's calibration there")
    for _, line in read_lines(path):
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
    size = read_size(file, values, f"S_rect_{number}")
    return projected_camera(file, values, f"P_rect_{number}", size)


def read_matrix(
    file: Path, values: Mapping[str, NDArray[np.float64]], key: str, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Return an entry of a calibration file.

    Args:
        file: the calibration file, for errors.
        values: its content.
        key: the name of the entry.
        shape: of the result.

    Raises:
        MsfnetError: the entry is missing, or is not this many finite numbers.
    """
    numbers = values.get(key, np.empty(0))
    if numbers.size != math.prod(shape) or not np.isfinite(numbers).all():
        raise MsfnetError(f"{file} lacks {key} of {math.prod(shape)} finite numbers; replace it")
    return numbers.reshape(shape)


def read_size(file: Path, values: Mapping[str, NDArray[np.float64]], key: str) -> tuple[int, int]:
    """Return the (height, width) of a camera's rectified images; arguments as :func:`read_matrix`.

    Raises:
        MsfnetError: the entry is missing or is no size.
    """
    width, height = read_matrix(file, values, key, (2,))
    if not (1 <= width < 1e6 and 1 <= height < 1e6):
        raise MsfnetError(f"{file}: {key} is not the size of an image; replace it")
    return int(height), int(width)


def projected_camera(
    file: Path, values: Mapping[str, NDArray[np.float64]], key: str, size: tuple[int, int]
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
    projection = read_matrix(file, values, key, (3, 4))
    focal = np.array([projection[0, 0], projection[1, 1]])
    if not ((focal > 0).all() and (focal < 1e6).all()):
        raise MsfnetError(f"{file} describes no camera: {key} has no focal lengths; replace it")
    height, width = size
    return CameraIntrinsics(
        fx=float(projection[0, 0]),
        fy=float(projection[1, 1]),
        cx=float(projection[0, 2]),
        cy=float(projection[1, 2]),
        width=width,
        height=height,
    )


def read_timestamps(drive: Path) -> list[float]:
    """Return the seconds since the first frame from ``timestamps.txt``; empty if it is absent."""
    file = drive / CAMERA / "timestamps.txt"
    if not file.exists():
        return []
    try:
        lines = [line[:26] for _, line in read_lines(file)]
        moments = [datetime.fromisoformat(line).replace(tzinfo=None) for line in lines]
    except ValueError:
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
            camera = self._fitted(self._intrinsics[drive], file, image)
            yield Frame(image, index, seconds, camera, name)
