"""Depth as NumPy files, bit for bit what the estimator gave."""

from __future__ import annotations

import io
import zipfile
from typing import Any, ClassVar

import numpy as np

from msfnet_runtime.sinks.folder import FolderSink
from msfnet_runtime.types import DepthMap, Frame


class NpzSink(FolderSink):
    """``NAME.npz``, compressed: ``depth_m`` (H, W) float32, ``valid`` (H, W) bool, the rest.

    ``timestamp_s`` and ``index`` are scalars; ``intrinsics`` is the (3, 3) float64 camera matrix
    where the source or the user knows it.
    """

    suffix: ClassVar[str] = ".npz"

    def encode(self, frame: Frame, depth: DepthMap) -> bytes:
        """Return an archive for ``np.load``."""
        arrays: dict[str, Any] = {
            "depth_m": depth.values,
            "valid": depth.valid,
            "timestamp_s": depth.timestamp_s,
            "index": depth.index,
        }
        if (camera := frame.intrinsics) is not None:
            arrays["intrinsics"] = np.array(
                [[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]]
            )
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
        return content.getvalue()

    def encoding(self) -> dict[str, Any]:
        """Return the arrays' names."""
        return {
            "encoding": "npz: depth_m float32 metres, valid bool, timestamp_s, index, intrinsics"
        }
