"""Defines the data that flows through the runtime: frames, cameras and depth maps."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.words import shape_text

CROPS = frozenset({(352, 1216), (176, 608), (228, 304), (416, 544), (426, 560), (427, 561)})
"""(height, width) of the crops of KITTI and NYU Depth V2 that are in use, and of the half KITTI
crop: frames of these sizes are never taken for resized pictures."""

_SAME_ASPECT = 0.04
"""Largest relative difference of the scales of both axes; sizes of networks are rounded to
multiples of 32: 1024x320 of 1242x375 differs by 3.4 %."""

_CLEAR_OF_ONE = 0.1
"""Smallest relative change of both sides; a slightly smaller frame is usually cropped, a slightly
larger one padded."""


def resize_scales(size: tuple[int, int], original: tuple[int, int]) -> tuple[float, float] | None:
    """Return by how much a whole picture was resized along y and x, if its size proves that it was.

    Both scales agree within 4 %, both differ from 1 by more than 10 %, and the size is none of
    :data:`CROPS`; or the size is unchanged. Anything else can be a crop or padding. A crop of the
    picture's own aspect that is much smaller than it cannot be told from a resize.

    Args:
        size: (height, width) of the frame, pixels.
        original: (height, width) of the picture, pixels.

    Returns:
        None where it may be a crop.
    """
    y, x = size[0] / original[0], size[1] / original[1]
    if size == original:
        return y, x
    alike = abs(x / y - 1) <= _SAME_ASPECT
    clear = min(abs(x - 1), abs(y - 1)) > _CLEAR_OF_ONE
    return (y, x) if alike and clear and size not in CROPS else None


@dataclass(frozen=True)
class CameraIntrinsics:
    """A pinhole camera without distortion, in pixels of an image of ``width`` x ``height``.

    NumPy numbers, such as those of a camera matrix, become Python's.

    Raises:
        MsfnetError: a value is not a finite number, or a focal length or size is not above 0.
    """

    fx: float
    """Focal length along x, pixels."""
    fy: float
    """Focal length along y, pixels."""
    cx: float
    """Column of the principal point, pixels; 0 is the centre of the first pixel."""
    cy: float
    """Row of the principal point, pixels; 0 is the centre of the first pixel."""
    width: int
    """Image width the values refer to, pixels."""
    height: int
    """Image height the values refer to, pixels."""

    def __post_init__(self) -> None:
        for name in ("fx", "fy", "cx", "cy"):
            object.__setattr__(self, name, finite(getattr(self, name), f"the camera's {name}"))
        for name in ("width", "height"):
            object.__setattr__(self, name, whole(getattr(self, name), f"the camera's {name}"))
        if min(self.fx, self.fy, self.width, self.height) <= 0:
            raise MsfnetError(
                f"a camera of focal lengths {self.fx:g}, {self.fy:g} and {self.width} x "
                f"{self.height} pixels is not possible; correct it"
            )

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The (3, 3) camera matrix, pixels."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    def scaled(self, height: int, width: int) -> CameraIntrinsics:
        """Return the camera of the same image resized to ``height`` x ``width`` pixels."""
        x, y = width / self.width, height / self.height
        return CameraIntrinsics(
            fx=self.fx * x,
            fy=self.fy * y,
            cx=(self.cx + 0.5) * x - 0.5,
            cy=(self.cy + 0.5) * y - 0.5,
            width=width,
            height=height,
        )

    def fitted(self, height: int, width: int) -> CameraIntrinsics | None:
        """Return the camera of a frame; None where it may be a crop, by :func:`resize_scales`."""
        size = self.height, self.width
        return self.scaled(height, width) if resize_scales((height, width), size) else None

    def rotated(self, degrees: int) -> CameraIntrinsics:
        """Return the camera of the same image rotated clockwise by a multiple of 90 degrees.

        A rotation by 90 degrees moves pixel (column, row) to (height - 1 - row, column).
        """
        camera = self
        for _ in range(degrees // 90):
            camera = CameraIntrinsics(
                fx=camera.fy,
                fy=camera.fx,
                cx=camera.height - 1 - camera.cy,
                cy=camera.cx,
                width=camera.height,
                height=camera.width,
            )
        return camera


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a stream.

    NumPy numbers become Python's.

    Raises:
        MsfnetError: the image is not (H, W, 3) uint8, the index is not a whole number, or the time
            is not finite.
    """

    image: NDArray[np.uint8]
    """(H, W, 3) uint8, RGB."""
    index: int = 0
    """Position in the source, from 0; a live source also counts dropped frames."""
    timestamp_s: float = 0.0
    """Capture time on the source's own clock, seconds."""
    intrinsics: CameraIntrinsics | None = None
    """The camera, if the source knows it."""
    name: str = ""
    """Stem of the file if the source reads files, else empty."""

    def __post_init__(self) -> None:
        _number(self)
        check_image(self.image, f"the image of frame {self.index}")


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Metric depth of one frame: the distance along the camera's z axis.

    NumPy numbers become Python's.

    Raises:
        MsfnetError: values and validity are not (H, W) of the same size and with pixels, the index
            is not a whole number, or the time is not finite.
    """

    values: NDArray[np.float32]
    """(H, W) float32, metres; defined where ``valid``."""
    valid: NDArray[np.bool_]
    """(H, W) bool: the depth is finite and positive."""
    index: int = 0
    """Index of the frame."""
    timestamp_s: float = 0.0
    """Capture time of the frame, seconds."""

    def __post_init__(self) -> None:
        _number(self)
        for part in (self.values, self.valid):
            if not isinstance(part, np.ndarray):
                raise MsfnetError(
                    f"a depth map needs NumPy arrays, not {type(part).__name__}; convert it with "
                    "numpy.asarray"
                )
        shape = self.values.shape
        if len(shape) != 2 or 0 in shape or self.valid.shape != shape:
            raise MsfnetError(
                f"a depth map must be (H, W) with pixels, and its validity of the same size, not "
                f"{shape_text(shape)} and {shape_text(self.valid.shape)}"
            )


def _number(timed: Frame | DepthMap) -> None:
    """Make index and time of a frame or depth map Python's numbers."""
    index = whole(timed.index, "the index of a frame")
    object.__setattr__(timed, "index", index)
    seconds = finite(timed.timestamp_s, f"the time stamp of frame {index}")
    object.__setattr__(timed, "timestamp_s", seconds)


def finite(value: Any, what: str) -> float:
    """Return a number, of Python or NumPy, as a float.

    Raises:
        MsfnetError: ``value``, which the message calls ``what``, is not a finite number.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise MsfnetError(f"{what} is {value}, not a finite number; correct it")
    return number


def whole(value: Any, what: str) -> int:
    """Return a whole number, of Python or NumPy, as an int.

    Raises:
        MsfnetError: ``value``, which the message calls ``what``, is not a whole number.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise MsfnetError(f"{what} is {value}, not a whole number; correct it") from None


def check_image(image: Any, what: str = "an image") -> NDArray[np.uint8]:
    """Return an image that can be a frame's.

    Raises:
        MsfnetError: it, which the message calls ``what``, is not an (H, W, 3) uint8 array.
    """
    if not isinstance(image, np.ndarray):
        raise MsfnetError(
            f"{what} is {type(image).__name__}, not an (H, W, 3) uint8 RGB array; convert it with "
            "numpy.asarray"
        )
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
        return image
    hint = "convert it"
    if image.ndim == 3 and image.shape[2] != 3 and image.shape[0] == 3:
        hint = "transpose(1, 2, 0) moves its channels to the end"
    elif image.ndim == 4:
        hint = "pass its images one by one"
    elif image.ndim == 3 and image.shape[2] == 4:
        hint = "image[..., :3] drops its fourth channel"
    elif image.ndim == 2:
        hint = "repeat its one channel three times"
    elif image.dtype != np.uint8:
        hint = "convert it to levels from 0 to 255"
    raise MsfnetError(
        f"{what} is {shape_text(image.shape)} {image.dtype}, not (H, W, 3) uint8 RGB; {hint}"
    )
