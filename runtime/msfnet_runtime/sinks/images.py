"""Depth as 16-bit PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.depth_storage import ENCODINGS, PngStorage
from msfnet_runtime.sinks.folder import FolderSink
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.types import DepthMap, Frame

MAX_COUNT = 65535


def counts_per_metre(spec: ModelSpec, unit: PngStorage | None = None) -> int:
    """Return the unit's counts, or millimetres where the model's range fits them, else KITTI's."""
    fits = spec.depth_range_m[1] * ENCODINGS["uint16_mm"].counts_per_metre <= MAX_COUNT
    return int(ENCODINGS[unit or ("uint16_mm" if fits else "uint16_256")].counts_per_metre)


def encode_depth(depth: DepthMap, counts: int) -> NDArray[np.uint16]:
    """Return depth as (H, W) uint16 counts; 0 is invalid, too far for 16 bits is 65535.

    Valid depth is at least 1, so that it never reads as invalid.
    """
    metres = np.where(depth.valid, depth.values, 0).astype(np.float64)
    scaled = np.clip(np.rint(metres * counts), 1, MAX_COUNT)
    return np.where(depth.valid, scaled, 0).astype(np.uint16)


class PngSink(FolderSink):
    """``NAME.png``, (H, W) uint16: metres = count / ``counts_per_metre``, 0 is invalid."""

    suffix: ClassVar[str] = ".png"

    def __init__(self, folder: Path, spec: ModelSpec, options: SinkOptions) -> None:
        super().__init__(folder, spec, options)
        self._counts = counts_per_metre(spec, options.unit)

    def encode(self, frame: Frame, depth: DepthMap) -> bytes:
        """Return a PNG."""
        return cv2.imencode(".png", encode_depth(depth, self._counts))[1].tobytes()

    def encoding(self) -> dict[str, Any]:
        """Return the counts per metre and where they end."""
        return {
            "encoding": "uint16 PNG: metres = count / counts_per_metre, 0 is invalid",
            "counts_per_metre": self._counts,
            "saturates_at_m": MAX_COUNT / self._counts,
        }
