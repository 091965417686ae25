"""Depth as 16-bit PNG files with a manifest that says how to read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.files import atomic_directory
from msfnet_runtime.images import write_image
from msfnet_runtime.sink import SinkBase
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.types import DepthMap, Frame

SCHEMA_VERSION = 1

MAX_COUNT = 65535


def counts_per_metre(spec: ModelSpec) -> int:
    """Return 1000 (millimetres) where the model's range fits 16 bits, else 256 (KITTI's)."""
    return 1000 if spec.depth_range_m[1] * 1000 <= MAX_COUNT else 256


def encode_depth(depth: DepthMap, counts: int) -> NDArray[np.uint16]:
    """Return depth as (H, W) uint16 counts; 0 is invalid, too far for 16 bits is 65535.

    Valid depth is at least 1, so that it never reads as invalid.
    """
    metres = np.where(depth.valid, depth.values, 0).astype(np.float64)
    scaled = np.clip(np.rint(metres * counts), 1, MAX_COUNT)
    return np.where(depth.valid, scaled, 0).astype(np.uint16)


class PngSink(SinkBase):
    """One PNG per frame, ``NAME.png`` after the frame's name or its index, and a manifest.

    Frames of several drives or rooms lie in a folder for each, as the frames themselves do.

    ``manifest.json`` holds the counts per metre, the model's spec, and each frame's file, index,
    timestamp, size and intrinsics. The folder appears when all of it is written.

    Raises:
        MsfnetError: on entering, where the folder exists and holds something, or cannot be made.
    """

    def __init__(self, folder: Path, spec: ModelSpec) -> None:
        self._folder = folder
        self._spec = spec
        self._counts = counts_per_metre(spec)
        self._frames: dict[str, dict[str, Any]] = {}

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Write one PNG.

        Raises:
            MsfnetError: the disk is full, or the like.
        """
        name = self._file_name(frame)
        (self._partial / name).parent.mkdir(exist_ok=True, parents=True)
        write_image(self._partial / name, encode_depth(depth, self._counts))
        height, width = depth.values.shape
        self._frames[name] = {
            "file": name,
            "index": depth.index,
            "timestamp_s": depth.timestamp_s,
            "width": width,
            "height": height,
            "intrinsics": asdict(frame.intrinsics) if frame.intrinsics else None,
        }

    @contextmanager
    def _opened(self) -> Iterator[None]:
        with atomic_directory(self._folder) as self._partial:
            yield
            self._write_manifest(self._partial / "manifest.json")

    def _file_name(self, frame: Frame) -> str:
        """Return a name no frame has taken, in the folder that the frame's own name has."""
        number = f"{frame.index:010d}"
        parts = [part for part in PurePosixPath(frame.name).parts if part not in ("/", "..")]
        stem = "/".join(parts) or number
        names = (f"{stem}.png", f"{stem}_{number}.png")
        return next(name for name in names if name not in self._frames)

    def _write_manifest(self, path: Path) -> None:
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "encoding": "uint16 PNG: metres = count / counts_per_metre, 0 is invalid",
            "counts_per_metre": self._counts,
            "saturates_at_m": MAX_COUNT / self._counts,
            "spec": json.loads(self._spec.to_json()),
            "frames": list(self._frames.values()),
        }
        path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
