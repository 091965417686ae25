"""What can be asked of a source beside its name."""

from __future__ import annotations

from dataclasses import dataclass

from msfnet_runtime.errors import MsfnetError


@dataclass(frozen=True)
class SourceOptions:
    """Asked of any source; what a kind of source does not have, it ignores.

    Raises:
        MsfnetError: a value out of range.
    """

    rotate: int = 0
    """Degrees clockwise: 0, 90, 180 or 270."""
    camera_size: tuple[int, int] | None = None
    """(height, width), pixels, asked of a camera; it gives the nearest it has."""
    camera_fps: float | None = None
    """Frames per second asked of a camera."""
    reconnect: bool = True
    """Wait for a lost camera or network stream to come back, instead of ending."""
    timeout_s: float = 10.0
    """Seconds that a network stream may stay silent before it counts as lost."""
    skip_bad: bool = False
    """Count and skip images that cannot be decoded, instead of raising."""

    def __post_init__(self) -> None:
        if self.rotate not in (0, 90, 180, 270):
            raise MsfnetError(f"cannot rotate by {self.rotate}; choose 0, 90, 180 or 270 degrees")
        if self.camera_size is not None and min(self.camera_size) < 1:
            raise MsfnetError(f"camera size {self.camera_size} is too small; give HxW in pixels")
        if self.camera_fps is not None and not 0 < self.camera_fps <= 1000:
            raise MsfnetError(f"camera rate {self.camera_fps} is out of range; give 1 to 1000")
        if not 0 < self.timeout_s <= 86_400:
            raise MsfnetError(f"time-out {self.timeout_s} is out of range; give seconds above 0")


DEFAULTS = SourceOptions()
