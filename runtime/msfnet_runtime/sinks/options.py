"""Defines the options that sinks share: colours, unit and camera."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.colour import Layout, colour_table, panels
from msfnet_runtime.depth_storage import PngStorage
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.types import CameraIntrinsics, DepthMap, Frame

Lens = tuple[float, float, float, float] | float
"""A camera: fx, fy, cx, cy in pixels of its frames, or its horizontal field of view, degrees."""


@dataclass(frozen=True)
class SinkOptions:
    """Options of an output; the defaults follow the model and the source.

    Raises:
        MsfnetError: the colour map is unknown, or the ends of the scale are not a range.
    """

    layout: Layout = "side-by-side"
    """What a video or window shows: frame and depth side by side, blended, or depth alone."""
    colours: str = "turbo"
    """Name of a colour map in :data:`msfnet_runtime.colour.COLOUR_MAPS`."""
    range_m: tuple[float, float] | None = None
    """Ends of the colour scale, metres; by default the model's."""
    unit: PngStorage | None = None
    """How 16-bit depth is stored; by default millimetres if the model's range fits, else
    KITTI's."""
    lens: Lens | None = None
    """The camera of frames whose source does not know it, before they are rotated."""
    rotate: int = 0
    """By how many degrees clockwise the source rotates its frames."""
    force: bool = False
    """Whether an existing recording is replaced."""

    def __post_init__(self) -> None:
        colour_table(self.colours)  # refuses an unknown map, even if no output uses it
        if self.range_m and not 0 < self.range_m[0] < self.range_m[1] < math.inf:
            low, high = self.range_m
            raise MsfnetError(
                f"{low:g} to {high:g} m is not a range; use near,far in metres, 0 < near < far",
                parameter="range_m",
            )

    def panels(self, frame: Frame, depth: DepthMap, spec: ModelSpec) -> list[NDArray[np.uint8]]:
        """Return the panels of a picture, see :func:`msfnet_runtime.colour.panels`."""
        scale_m = self.range_m or spec.depth_range_m
        return panels(frame, depth, scale_m, self.layout, self.colours)

    def with_camera(self, frame: Frame) -> Frame:
        """Return the frame with its camera in its own pixels, if the camera is known."""
        if frame.intrinsics is None and self.lens is None:
            return frame
        return replace(frame, intrinsics=self.camera(frame))

    def camera(self, frame: Frame) -> CameraIntrinsics:
        """Return the camera of a frame in pixels of that frame; the frame's own has priority.

        Raises:
            MsfnetError: the camera is unknown, or is that of another picture; the centre of
                ``lens`` outside the frame shows that too.
        """
        height, width = frame.image.shape[:2]
        if frame.intrinsics is not None:
            camera = frame.intrinsics.fitted(height, width)
            if camera is None:
                raise MsfnetError(
                    f"frame {frame.index} is {width}x{height} and may be cropped from the "
                    f"{frame.intrinsics.width}x{frame.intrinsics.height} of its camera; set "
                    "intrinsics of the frame's own size"
                )
            return camera
        if self.lens is None:
            raise MsfnetError(
                "point clouds need a camera, and the source has none; specify fx,fy,cx,cy in "
                "pixels of its frames, or the horizontal field of view, for example 60deg",
                parameter="lens",
            )
        if self.rotate % 180:
            height, width = width, height
        if isinstance(self.lens, tuple):
            fx, fy, cx, cy = self.lens
        else:
            fx = fy = width / 2 / math.tan(math.radians(self.lens / 2))
            cx, cy = (width - 1) / 2, (height - 1) / 2
        if not (0 <= cx < width and 0 <= cy < height):
            raise MsfnetError(
                f"the camera's centre {cx:g}, {cy:g} is outside the source's frames of {width}x"
                f"{height}; specify the camera of frames of this size",
                parameter="lens",
            )
        return CameraIntrinsics(fx, fy, cx, cy, width, height).rotated(self.rotate)


DEFAULTS = SinkOptions()


def parse_lens(text: str) -> Lens:
    """Read ``fx,fy,cx,cy`` in pixels, or a horizontal field of view such as ``60deg``.

    Raises:
        MsfnetError: it is neither.
    """
    try:
        if text.endswith("deg"):
            degrees = float(text.removesuffix("deg"))
            if 0 < degrees < 180:
                return degrees
        else:
            fx, fy, cx, cy = (float(part) for part in text.split(","))
            if min(fx, fy) > 0 and all(map(math.isfinite, (fx, fy, cx, cy))):
                return fx, fy, cx, cy
    except ValueError:
        pass
    raise MsfnetError(
        f"{text!r} is not a camera; write fx,fy,cx,cy in pixels, for example 720,720,620.5,187, or "
        "the horizontal field of view between 0 and 180 degrees, for example 60deg",
        parameter="lens",
    )


def parse_range(text: str) -> tuple[float, float]:
    """Read ``near,far`` in metres; :class:`SinkOptions` checks their order.

    Raises:
        MsfnetError: the text is not two numbers.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise MsfnetError(
            f"{text!r} is not a range; write near,far in metres, for example 0.5,80",
            parameter="range_m",
        ) from None
    return low, high
