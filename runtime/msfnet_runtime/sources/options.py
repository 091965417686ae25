"""Defines the options of sources."""

from __future__ import annotations

from dataclasses import dataclass

from msfnet_runtime.errors import MsfnetError


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
        for name, text, valid, allowed in (
            ("rotate", "rotation", self.rotate in (0, 90, 180, 270), "0, 90, 180 or 270 degrees"),
            ("camera_size", "camera size", size is None or min(size) >= 1, "1 pixel or more"),
            ("camera_fps", "camera rate", fps is None or 0 < fps <= 1000, "at most 1000, above 0"),
            ("timeout_s", "time-out", 0 < self.timeout_s <= 86_400, "above 0, at most 86400 s"),
        ):
            if not valid:
                value = getattr(self, name)
                raise MsfnetError(
                    f"{text} {value} is out of range; choose {allowed}", parameter=name
                )


DEFAULTS = SourceOptions()
