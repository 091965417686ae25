"""Writes one file per frame into a folder: 16-bit PNG, NumPy archives or point clouds.

The folder also contains a manifest, which is complete at any time.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.colour import check_sizes
from msfnet_runtime.depth_storage import ENCODINGS, PngStorage
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import (
    append_whole,
    atomic_path,
    cannot_write,
    check_writable,
    disk_full,
    is_folder,
    locked,
    refuse_filled,
)
from msfnet_runtime.sink import SinkBase
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.typed import to_json
from msfnet_runtime.types import CameraIntrinsics, DepthMap, Frame

MANIFEST = "manifest.jsonl"

SCHEMA_VERSION = 2

MAX_COUNT = 65535

_LONGEST_PART = 200
"""Bytes of a frame's name in a file name; file systems end at 255, with number and suffix."""

_POSITION, _COLOUR = ("x", "y", "z"), ("red", "green", "blue")

_POINT = np.dtype([(name, "<f4") for name in _POSITION] + [(name, "u1") for name in _COLOUR])


class FolderSink(SinkBase, ABC):
    """Writes files named after their frames or indices, and ``manifest.jsonl``.

    Frames of several drives or rooms are written to one folder for each, as in their source.

    The first line of the manifest is a JSON object with the encoding and the model's spec; each
    further line describes one frame: file, index, timestamp, size and intrinsics. A file is
    renamed when it is complete, and its line is appended afterwards: a process that is killed
    leaves all finished frames, and a manifest of them.

    Raises:
        MsfnetError: on entering, the folder is not empty and is not an earlier
            run that may be replaced, or cannot be created, or another process writes it.
    """

    suffix: ClassVar[str]
    description: Mapping[str, Any]
    """The manifest's description of the files."""

    def __init__(self, folder: str | Path, spec: ModelSpec, options: SinkOptions) -> None:
        self._folder = Path(folder).absolute()
        self._spec = spec
        self._options = options
        self._written = 0
        self._earlier: list[Path] = []
        self._manifest: FileIO | None = None

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Write one file and its line in the manifest.

        Raises:
            MsfnetError: the disk is full, or another error of the file system; earlier frames are
                kept.
        """
        frame = self._options.with_camera(frame)
        content = self.encode(frame, depth)
        name = self._file_name(frame)
        height, width = depth.values.shape
        line = {
            "file": name,
            "index": depth.index,
            "timestamp_s": depth.timestamp_s,
            "width": width,
            "height": height,
            "intrinsics": frame.intrinsics,
        }
        try:
            if self._manifest is None:
                self._begin()
            self._write(name, content)
            try:
                self._append(line)
            except MsfnetError:
                (self._folder / name).unlink(missing_ok=True)
                raise
        except MsfnetError as error:
            kept = f"; the frames before it are kept: {self._written}" if self._written else ""
            raise MsfnetError(f"{error}{kept}") from None
        self._written += 1

    def _write(self, name: str, content: bytes) -> None:
        """Write one file, whole or not at all, unless the folder has gone."""
        try:
            self._check_place()
        except OSError:
            raise MsfnetError(
                f"{self._folder} was renamed or removed while it was written; repeat the run and "
                "leave its folder alone"
            ) from None
        with atomic_path(self._folder / name) as partial:
            partial.write_bytes(content)

    @abstractmethod
    def encode(self, frame: Frame, depth: DepthMap) -> bytes:
        """Return the content of a frame's file."""

    @contextmanager
    def _opened(self) -> Iterator[None]:
        earlier_files(self._folder, force=self._options.force)  # refuses before anything is made
        existed = is_folder(self._folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self._folder, error) from None
        try:
            with locked(self._folder):
                self._earlier = earlier_files(self._folder, force=self._options.force)
                check_writable(self._folder / MANIFEST)
                try:
                    yield
                finally:
                    if not self._written:
                        self._clear()
                    if self._manifest is not None:
                        self._manifest.close()
        finally:
            if not self._written and not existed:
                with suppress(OSError):
                    self._folder.rmdir()

    def _begin(self) -> None:
        """Remove the files of an earlier run that is replaced, and begin the manifest."""
        for file in self._earlier:
            file.unlink(missing_ok=True)
        try:
            self._manifest = (self._folder / MANIFEST).open("xb", buffering=0)
        except OSError as error:
            raise cannot_write(self._folder / MANIFEST, error) from None
        self._append({"schema_version": SCHEMA_VERSION, **self.description, "spec": self._spec})

    def _clear(self) -> None:
        """Remove the manifest of a run without a complete frame, and the folders made for it."""
        if self._manifest is None:
            return
        with suppress(OSError):
            self._check_place()
            (self._folder / MANIFEST).unlink()
            for place in sorted(self._folder.rglob("*/"), reverse=True):
                with suppress(OSError):
                    place.rmdir()

    def _check_place(self) -> None:
        """Check that the folder still has its name and manifest.

        Raises:
            OSError: it was renamed or removed.
        """
        assert self._manifest is not None, "the manifest is begun"
        here, there = os.fstat(self._manifest.fileno()), (self._folder / MANIFEST).stat()
        if not os.path.samestat(here, there):
            raise FileNotFoundError

    def _append(self, line: dict[str, Any]) -> None:
        """Append a whole line, or nothing."""
        assert self._manifest is not None, "the manifest is begun"
        data = to_json(line, indent=None).encode() + b"\n"
        with disk_full(self._folder / MANIFEST):
            append_whole(self._manifest, data, self._manifest.tell())

    def _file_name(self, frame: Frame) -> str:
        """Return an unused file name, in the folder that the frame's own name contains."""
        number = f"{frame.index:010d}"
        parts = [_safe(part) for part in PurePosixPath(frame.name).parts if part not in ("/", "..")]
        stem = "/".join(parts) or number
        stems = itertools.chain(
            (stem, f"{stem}_{number}"), (f"{stem}_{number}_{n}" for n in itertools.count(2))
        )
        names = (f"{each}{self.suffix}" for each in stems)
        return next(name for name in names if not (self._folder / name).exists())


def earlier_files(folder: Path, *, force: bool) -> list[Path]:
    """Return the files that an earlier run wrote into a folder, which will be replaced.

    Only what its manifest lists counts as written by msfnet; other files are never replaced.

    Raises:
        MsfnetError: the folder is not empty and is not an earlier run, or ``force`` is not set; or
            its manifest cannot be read.
    """
    manifest = folder / MANIFEST
    if not is_folder(folder) or not manifest.is_file():
        refuse_filled(folder)
        return []
    if not force:
        raise MsfnetError(
            f"{folder} contains frames of an earlier run, finished or not; choose another folder "
            "to keep them or replace them",
            parameter="force",
        )
    try:
        head, *lines = map(json.loads, manifest.read_text(encoding="utf-8").splitlines())
        names = [line["file"] for line in lines]
        if "schema_version" not in head or not all(_is_ours(folder, name) for name in names):
            raise ValueError
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise MsfnetError(
            f"{manifest} is not a manifest of msfnet; choose another folder"
        ) from None
    return [*(folder / name for name in names), manifest]


def _is_ours(folder: Path, name: str) -> bool:
    """Return whether a manifest's file name can be that of a file which a sink wrote."""
    path = PurePosixPath(name)
    return (
        path.suffix in (PngSink.suffix, NpzSink.suffix, PlySink.suffix)
        and (folder / path).parent.resolve().is_relative_to(folder.resolve())
        and ".." not in path.parts
    )


def _safe(part: str) -> str:
    """Return a part of a frame's name as a file name that every system and terminal accepts."""
    text = "".join(c if c.isprintable() else "_" for c in part)
    return text.encode()[:_LONGEST_PART].decode(errors="ignore")


class PngSink(FolderSink):
    """Writes ``NAME.png``, (H, W) uint16: metres = count / ``counts_per_metre``, 0 is invalid."""

    suffix: ClassVar[str] = ".png"

    def __init__(self, folder: str | Path, spec: ModelSpec, options: SinkOptions) -> None:
        super().__init__(folder, spec, options)
        self._counts = counts_per_metre(spec, options.unit)
        self.description = {
            "encoding": "uint16 PNG: metres = count / counts_per_metre, 0 is invalid",
            "counts_per_metre": self._counts,
            "saturates_at_m": MAX_COUNT / self._counts,
        }

    def encode(self, frame: Frame, depth: DepthMap) -> bytes:
        """Return a PNG file."""
        return cv2.imencode(".png", encode_depth(depth, self._counts))[1].tobytes()


class NpzSink(FolderSink):
    """Writes ``NAME.npz``, compressed: ``depth_m`` (H, W) float32, ``valid`` (H, W) bool.

    ``timestamp_s`` and ``index`` are scalars; ``intrinsics`` is the (3, 3) float64 camera matrix
    if the source or the user knows it.
    """

    suffix: ClassVar[str] = ".npz"
    description = MappingProxyType(
        {"encoding": "npz: depth_m float32 metres, valid bool, timestamp_s, index, intrinsics"}
    )

    def encode(self, frame: Frame, depth: DepthMap) -> bytes:
        """Return an archive for ``np.load``."""
        arrays: dict[str, Any] = {
            "depth_m": depth.values,
            "valid": depth.valid,
            "timestamp_s": depth.timestamp_s,
            "index": depth.index,
        }
        if frame.intrinsics is not None:
            arrays["intrinsics"] = frame.intrinsics.matrix
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
        return content.getvalue()


class PlySink(FolderSink):
    """Writes ``NAME.ply``, binary little endian: a coloured point for every valid pixel."""

    suffix: ClassVar[str] = ".ply"
    description = MappingProxyType(
        {"encoding": "PLY: x right, y down, z ahead of the camera, metres; RGB colours"}
    )

    def check(self, frame: Frame) -> None:
        """Refuse a frame without a camera.

        Raises:
            MsfnetError: neither the frame nor the user knows the camera.
        """
        self._options.camera(frame)

    def encode(self, frame: Frame, depth: DepthMap) -> bytes:
        """Return a PLY file.

        Raises:
            MsfnetError: the camera is unknown, or frame and depth differ in size.
        """
        check_sizes(frame, depth)
        points = point_cloud(frame.image, depth, self._options.camera(frame))
        properties = "".join(
            [f"property float {name}\n" for name in _POSITION]
            + [f"property uchar {name}\n" for name in _COLOUR]
        )
        head = (
            "ply\nformat binary_little_endian 1.0\n"
            f"comment metres; x right, y down, z ahead\ncomment frame {depth.index} "
            f"at {depth.timestamp_s} s\nelement vertex {len(points)}\n{properties}end_header\n"
        )
        return head.encode("ascii") + points.tobytes()


def counts_per_metre(spec: ModelSpec, unit: PngStorage | None = None) -> int:
    """Return the unit's counts; by default millimetres if the model's range fits, else KITTI's."""
    fits = spec.depth_range_m[1] * ENCODINGS["uint16_mm"].counts_per_metre <= MAX_COUNT
    return int(ENCODINGS[unit or ("uint16_mm" if fits else "uint16_256")].counts_per_metre)


def encode_depth(depth: DepthMap, counts: int) -> NDArray[np.uint16]:
    """Return depth as (H, W) uint16 counts; 0 is invalid, 65535 is that depth or farther.

    Valid depth is at least 1 count, so that it never reads as invalid.
    """
    metres = np.where(depth.valid, depth.values, 0).astype(np.float64)
    scaled = np.clip(np.rint(metres * counts), 1, MAX_COUNT)
    return np.where(depth.valid, scaled, 0).astype(np.uint16)


def point_cloud(
    image: NDArray[np.uint8], depth: DepthMap, camera: CameraIntrinsics
) -> NDArray[np.void]:
    """Return the valid pixels as points, row by row.

    The camera is at the origin: x to the right, y down, z ahead, metres.

    Args:
        image: (H, W, 3) uint8 RGB, the colours of the points.
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
