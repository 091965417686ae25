"""Writes generated scenes in the formats of real data sets, for the readers of those."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime import CameraIntrinsics, MsfnetError
from msfnet_runtime.files import atomic_directory
from msfnet_runtime.images import write_image
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sources.synthetic import SyntheticSource
from msfnet_runtime.synthetic.scenes import Pose, Scene, cast, yaw_pose

DATE = "2011_09_26"
"""KITTI's readers look for a folder that is called after a date."""

_START = datetime(2011, 9, 26, 12, 0)

CAMERA_OFFSETS = ((0.0, 0.0, 0.0), (0.54, 0.0, 0.0), (-0.06, 0.0, -0.003), (0.47, 0.0, -0.003))
"""Metres from rectified camera 0 to cameras 0 to 3 along its axes; only camera 2 is written."""

CAMERA_OFFSET = CAMERA_OFFSETS[2]

VELODYNE_OFFSET = (0.0, -0.08, -0.27)
"""Metres from rectified camera 0 to the scanner along the camera's axes (right, down, forward)."""

_VELODYNE_ROTATION = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
"""The scanner's axes (x forward, y left, z up) to rectified camera 0's."""

_RECTIFICATION = yaw_pose((0.0, 0.0, 0.0), 0.008, 0.005).rotation
"""Camera 0's axes to its rectified ones: a small rotation, so that leaving it out shows."""

BEAMS = np.deg2rad(np.linspace(2.0, -24.8, 64))
"""Elevations of a Velodyne HDL-64E's 64 beams."""

AZIMUTHS = np.deg2rad(np.arange(-180.0, 180.0, 0.35))
MAX_RANGE = 120.0
"""Metres."""

RANGE_NOISE = 0.01
"""Standard deviation of a measured distance, metres."""


def synthesize_kitti(
    out: Path,
    *,
    drives: int = 4,
    frames: int = 24,
    seed: int = 0,
    size: tuple[int, int] = (375, 1242),
    progress: Progress = silent,
) -> None:
    """Write streets as KITTI raw drives: images, velodyne scans, timestamps, calibration.

    Args:
        out: folder to make; a date's folder with the drives lands in it.
        drives: how many streets.
        frames: of each drive.
        seed: drive ``i`` is the street of seed ``1000 seed + i``.
        size: (height, width) of the images, pixels.
        progress: called after every frame.

    Raises:
        MsfnetError: ``out`` exists and is not empty, or cannot be written; nothing to make.
    """
    _require(drives, frames, seed)
    with atomic_directory(out) as partial:
        root = partial / DATE
        for number in range(drives):
            street = SyntheticSource("street", seed=1000 * seed + number, frames=frames, size=size)
            drive = root / f"{DATE}_drive_{number + 1:04d}_sync"
            for index in range(frames):
                _write_kitti_frame(drive, street, index)
                progress(number * frames + index + 1, drives * frames, drive.name)
            _write_timestamps(drive, frames, street.fps)
            _write_calibration(root, street.intrinsics)


def _require(scenes: int, frames: int, seed: int) -> None:
    if min(scenes, frames) < 1 or seed < 0:
        raise MsfnetError(
            f"{scenes} scenes of {frames} frames from seed {seed} cannot be made; "
            "give at least 1 of each and a seed of 0 or more"
        )


def _write_kitti_frame(drive: Path, street: SyntheticSource, index: int) -> None:
    images, scans = drive / "image_02/data", drive / "velodyne_points/data"
    for folder in (images, scans):
        folder.mkdir(parents=True, exist_ok=True)
    write_image(images / f"{index:010d}.png", street.rendering(index).image)
    rng = np.random.default_rng((street.journey.scene.seed, index))
    points = scan(street.journey.scene, street.journey.pose(index), rng)
    (scans / f"{index:010d}.bin").write_bytes(points.astype("<f4").tobytes())


def scan(scene: Scene, pose: Pose, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return what a scanner on the roof measures, as KITTI stores it.

    Args:
        scene: the street.
        pose: of camera 2.
        rng: of the measurement's noise.

    Returns:
        (N, 4): x forward, y left, z up in metres from the scanner, and a reflectance 0 to 1.
    """
    elevation, azimuth = np.meshgrid(BEAMS, AZIMUTHS, indexing="ij")
    flat = np.cos(elevation)
    beams = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], axis=-1)
    to_world = pose.rotation @ _VELODYNE_ROTATION
    origin = pose.position + pose.rotation @ np.subtract(VELODYNE_OFFSET, CAMERA_OFFSET)

    def window(bounds: NDArray[np.float64]) -> tuple[slice, slice] | None:
        """Return the azimuths a box spans; all where it lies across the seam behind."""
        corners = np.array(np.meshgrid(*bounds.T)).reshape(3, -1).T
        x, y, _ = ((corners - origin) @ to_world).T
        angles = np.arctan2(y, x)
        if np.ptp(angles) >= np.pi:
            return slice(None), slice(None)
        first, last = np.searchsorted(AZIMUTHS, (angles.min(), angles.max()))
        return slice(None), slice(int(first), int(last))

    distance = cast(scene, origin, beams @ to_world.T, window)
    seen = distance < MAX_RANGE
    measured = distance[seen] + rng.normal(0, RANGE_NOISE, int(seen.sum()))
    reflectance = np.exp(-measured / 60) * rng.uniform(0.5, 1, measured.size)
    return np.column_stack([beams[seen] * measured[:, None], reflectance]).astype(np.float32)


def _write_timestamps(drive: Path, frames: int, fps: float) -> None:
    moments = (_START + timedelta(seconds=index / fps) for index in range(frames))
    lines = "".join(f"{m:%Y-%m-%d %H:%M:%S}.{m.microsecond * 1000:09d}\n" for m in moments)
    for sensor in ("image_02", "velodyne_points"):
        (drive / sensor / "timestamps.txt").write_text(lines, encoding="ascii")


def _write_calibration(root: Path, camera: CameraIntrinsics) -> None:
    """Write the date's three files; KITTI's, with the numbers of the generated cameras.

    KITTI's projection counts pixels from 1 (``project_velodyne`` subtracts it again), so the
    principal point is one more than the camera's own; scans then fall on the very pixels.
    """
    cameras: dict[str, object] = {"corner_dist": (0.0995,)}
    for number, offset in enumerate(CAMERA_OFFSETS):
        cameras |= _camera_entries(f"{number:02d}", camera, np.asarray(offset))
    unrectify = _RECTIFICATION.T
    velodyne = {
        "R": unrectify @ _VELODYNE_ROTATION,
        "T": unrectify @ VELODYNE_OFFSET,
        "delta_f": np.zeros(2),
        "delta_c": np.zeros(2),
    }
    imu = {"R": np.eye(3), "T": (-0.81, 0.32, -0.80)}
    for name, values in (
        ("cam_to_cam", cameras),
        ("velo_to_cam", velodyne),
        ("imu_to_velo", imu),
    ):
        lines = [f"calib_time: {_START:%d-%b-%Y %H:%M:%S}"]
        lines += [f"{key}: {_numbers(value)}" for key, value in values.items()]
        (root / f"calib_{name}.txt").write_text("\n".join(lines) + "\n", encoding="ascii")


def _camera_entries(
    name: str, camera: CameraIntrinsics, offset: NDArray[np.float64]
) -> dict[str, object]:
    """Return one camera's lines: as taken (all four alike, without distortion) and rectified."""
    centre = camera.cx + 1, camera.cy + 1
    intrinsic = np.array([[camera.fx, 0, centre[0]], [0, camera.fy, centre[1]], [0, 0, 1.0]])
    size = (float(camera.width), float(camera.height))
    return {
        f"S_{name}": size,
        f"K_{name}": intrinsic,
        f"D_{name}": np.zeros(5),
        f"R_{name}": np.eye(3),
        f"T_{name}": _RECTIFICATION.T @ -offset,
        f"S_rect_{name}": size,
        f"R_rect_{name}": _RECTIFICATION,
        f"P_rect_{name}": np.column_stack([intrinsic, intrinsic @ -offset]),
    }


def _numbers(values: object) -> str:
    return " ".join(f"{value:.6e}" for value in np.asarray(values, np.float64).ravel())


def synthesize_nyu(
    out: Path,
    *,
    scenes: int = 4,
    frames: int = 24,
    seed: int = 0,
    size: tuple[int, int] = (480, 640),
    progress: Progress = silent,
) -> None:
    """Write rooms in DenseDepth's layout of NYU Depth V2.

    The last room is the test list (``nyu2_test.csv``, 16-bit millimetres), the others the
    training list (``nyu2_train.csv``, 8 bits, 255 = 10 m). A single room is cut: its last fifth,
    at least one frame, is the test list.

    Args:
        out: folder to make; ``data/`` lands in it.
        scenes: how many rooms.
        frames: of each room.
        seed: room ``i`` is that of seed ``1000 seed + i``.
        size: (height, width) of the images, pixels.
        progress: called after every frame.

    Raises:
        MsfnetError: ``out`` exists and is not empty, or cannot be written; nothing to make.
    """
    _require(scenes, frames, seed)
    held_out = frames if scenes > 1 else max(1, frames // 5)
    with atomic_directory(out) as partial:
        rows: dict[str, list[str]] = {"train": [], "test": []}
        for number in range(scenes):
            room = SyntheticSource("room", seed=1000 * seed + number, frames=frames, size=size)
            for index in range(frames):
                last = number == scenes - 1 and index >= frames - held_out
                split = "test" if last else "train"
                stem = _nyu_stem(split, number, index, len(rows["test"]))
                rows[split].append(_write_nyu_pair(partial, room, index, stem))
                progress(number * frames + index + 1, scenes * frames, f"room {number + 1}")
        for split, lines in rows.items():
            if lines:
                content = "\n".join(lines) + "\n"
                (partial / f"data/nyu2_{split}.csv").write_text(content, encoding="ascii")


def _nyu_stem(split: str, room: int, index: int, tests: int) -> str:
    if split == "test":
        return f"data/nyu2_test/{tests:05d}"
    return f"data/nyu2_train/room_{room + 1:04d}_out/{index + 1}"


def _write_nyu_pair(root: Path, room: SyntheticSource, index: int, stem: str) -> str:
    """Write one image and its depth; return the list's row."""
    rendering = room.rendering(index)
    if "nyu2_test" in stem:
        names = f"{stem}_colors.png", f"{stem}_depth.png"
        stored = np.rint(rendering.depth * 1000).clip(0, 65535).astype(np.uint16)
    else:
        names = f"{stem}.jpg", f"{stem}.png"
        stored = np.rint(rendering.depth * 25.5).clip(0, 255).astype(np.uint8)
    (root / names[0]).parent.mkdir(parents=True, exist_ok=True)
    write_image(root / names[0], rendering.image)
    write_image(root / names[1], stored)
    return ",".join(names)
