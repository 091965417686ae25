"""How depth is drawn, counted and placed in space: the options all sinks share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from msfnet_runtime.colour import Layout
from msfnet_runtime.depth_storage import PngStorage
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.types import CameraIntrinsics, Frame

Lens = tuple[float, float, float, float] | float
"""A camera the user knows: fx, fy, cx, cy in pixels of its frames, or its horizontal field of
view in degrees."""


@dataclass(frozen=True)
class SinkOptions:
    """What a user may choose of an output; the defaults follow the model and the source."""

    layout: Layout = "side-by-side"
    """What a video or window shows: the frame beside its depth, under it, or depth alone."""
    colours: str = "turbo"
    """The colour map's name, of :data:`msfnet_runtime.colour.COLOUR_MAPS`."""
    range_m: tuple[float, float] | None = None
    """The ends of the colour scale, metres; None takes the model's."""
    unit: PngStorage | None = None
    """How 16-bit depth is stored; None: millimetres where the model's range fits them, else
    KITTI's."""
    lens: Lens | None = None
    """The camera of frames whose source knows none."""

    def scale_m(self, spec: ModelSpec) -> tuple[float, float]:
        """Return the ends of the colour scale, metres.

        Raises:
            MsfnetError: they are no range.
        """
        low, high = self.range_m or spec.depth_range_m
        if not 0 < low < high < math.inf:
            raise MsfnetError(f"{low:g} to {high:g} m is no range; give 0 < near < far in metres")
        return low, high

    def with_camera(self, frame: Frame) -> Frame:
        """Return the frame with its camera in its own pixels, where anybody knows it."""
        if frame.intrinsics is None and self.lens is None:
            return frame
        return replace(frame, intrinsics=self.camera(frame))

    def camera(self, frame: Frame) -> CameraIntrinsics:
        """Return the camera of a frame in pixels of that frame, its own before the user's.

        Raises:
            MsfnetError: nobody knows it.
        """
        height, width = frame.image.shape[:2]
        if frame.intrinsics is not None:
            return _scaled(frame.intrinsics, width, height)
        if self.lens is None:
            raise MsfnetError(
                "the source knows no camera, which point clouds need; pass --intrinsics "
                "fx,fy,cx,cy in pixels of its frames, or the horizontal field of view: 60deg"
            )
        if isinstance(self.lens, tuple):
            return CameraIntrinsics(*self.lens, width, height)
        focal = width / 2 / math.tan(math.radians(self.lens / 2))
        return CameraIntrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)


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
        f"{text!r} is no camera; give fx,fy,cx,cy in pixels, such as 720,720,620.5,187, or the "
        "horizontal field of view between 0 and 180, such as 60deg"
    )


def parse_range(text: str) -> tuple[float, float]:
    """Read ``near,far`` in metres.

    Raises:
        MsfnetError: it is no range.
    """
    try:
        low, high = (float(part) for part in text.split(","))
        if 0 < low < high < math.inf:
            return low, high
    except ValueError:
        pass
    raise MsfnetError(f"{text!r} is no range; give near,far in metres, such as 0.5,80")


def _scaled(camera: CameraIntrinsics, width: int, height: int) -> CameraIntrinsics:
    """Return the camera in pixels of an image of another size; the first pixel's centre is 0."""
    x, y = width / camera.width, height / camera.height
    return replace(
        camera,
        fx=camera.fx * x,
        fy=camera.fy * y,
        cx=(camera.cx + 0.5) * x - 0.5,
        cy=(camera.cy + 0.5) * y - 0.5,
        width=width,
        height=height,
    )
