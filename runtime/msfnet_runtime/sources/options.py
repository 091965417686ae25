"""Defines the options of sources."""

from __future__ import annotations

from dataclasses import dataclass

from msfnet_runtime.errors import MsfnetError

_ROTATIONS = "0, 90, 180 or 270 degrees"


@dataclass(frozen=True)
class SourceOptions:
    """Options of any source; a source ignores those that do not apply to it.

    Raises:
        MsfnetError: a value is out of range.
    """

    rotate: int = 0
    """Rotation of the frames, degrees clockwise: 0, 90, 180 or 270."""
    camera_size: tuple[int, int] | None = None
    """Requested (height, width) of a camera, pixels; it uses the nearest it supports."""
    camera_fps: float | None = None
    """Requested frames per second of a camera."""
    reconnect: bool = True
    """Wait for a lost camera or network stream, instead of ending."""
    timeout_s: float = 10.0
    """Seconds without data after which a network stream counts as lost."""
    skip_bad: bool = False
    """Skip and count images that cannot be decoded, instead of raising an error."""

    def __post_init__(self) -> None:
        size, fps = self.camera_size, self.camera_fps
        for parameter, text, valid, allowed in (
            ("rotate", f"rotation {self.rotate}", self.rotate in (0, 90, 180, 270), _ROTATIONS),
            ("camera_size", f"camera size {size}", size is None or min(size) >= 1, "1 pixel up"),
            ("camera_fps", f"camera rate {fps}", fps is None or 0 < fps <= 1000, "1 to 1000"),
            (
                "timeout_s",
                f"time-out {self.timeout_s}",
                0 < self.timeout_s <= 86_400,
                "seconds above 0",
            ),
        ):
            if not valid:
                raise MsfnetError(f"{text} is out of range; choose {allowed}", parameter=parameter)


DEFAULTS = SourceOptions()
