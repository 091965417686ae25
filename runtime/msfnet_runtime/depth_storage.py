"""Names how files store depth, for writing, reading and scoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

PngStorage = Literal["uint16_mm", "uint16_256"]
"""How msfnet writes 16-bit PNG files: millimetres, or KITTI's 256 counts per metre."""

DepthStorage = Literal["uint8_10m", "uint16_mm", "uint16_256", "float32_m", "velodyne"]
"""Storage formats of depth; ``velodyne`` means scans, the others images of one channel.

``uint8_10m`` is DenseDepth's NYU, 255 = 10 m. ``uint16_mm`` is NYU's test list and what most
RGB-D cameras write. ``uint16_256`` is KITTI's depth benchmark. ``float32_m`` is metres.
"""


@dataclass(frozen=True)
class DepthEncoding:
    """The type and unit of a stored depth image."""

    dtype: str
    """NumPy's name of the stored type, or ``any``."""
    counts_per_metre: float
    """The stored number of a depth of one metre."""
    scale: str
    """The unit, as text."""

    def fits(self, dtype: np.dtype[Any]) -> bool:
        """Return whether samples can have this type; metres can have any floating-point type."""
        return self.dtype in ("any", dtype.name) or (self.dtype == "float32" and dtype.kind == "f")

    def text(self) -> str:
        """Return type and unit, such as ``uint16, millimetres``."""
        return f"{self.dtype}, {self.scale}"

    def decode(self, stored: NDArray[np.generic]) -> NDArray[np.float32]:
        """Return stored samples of any shape as metres, the nearest float32 of each."""
        return np.asarray(stored, np.float32) / np.float32(self.counts_per_metre)


ENCODINGS: Mapping[DepthStorage, DepthEncoding] = MappingProxyType(
    {
        "uint8_10m": DepthEncoding("uint8", 25.5, "255 = 10 m"),
        "uint16_mm": DepthEncoding("uint16", 1000, "millimetres"),
        "uint16_256": DepthEncoding("uint16", 256, "256 = 1 m"),
        "float32_m": DepthEncoding("float32", 1, "metres"),
    }
)
"""The encodings of depth images; scans have none."""
