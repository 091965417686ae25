"""Renders streets and rooms: ``synthetic:street?seed=1&frames=48&size=375x1242``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import parse_qsl

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.source import SourceBase
from msfnet_runtime.sources import kitti, nyu
from msfnet_runtime.synthetic.layouts import Journey, make_room, make_street
from msfnet_runtime.synthetic.scenes import Rendering, render
from msfnet_runtime.types import CameraIntrinsics, Frame

SCHEME = "synthetic:"

KITTI_INTRINSICS = CameraIntrinsics(721.5377, 721.5377, 609.5593, 172.854, 1242, 375)
"""Left colour camera of KITTI's 2011_09_26 drives, rectified."""


class _Kind(NamedTuple):
    make: Callable[[int], Journey]
    intrinsics: CameraIntrinsics
    fps: float


KINDS = {
    "street": _Kind(make_street, KITTI_INTRINSICS, kitti.FRAME_RATE),
    "room": _Kind(make_room, nyu.INTRINSICS, nyu.FRAME_RATE),
}


class SyntheticSource(SourceBase):
    """Renders a drive along a random street, or a walk around a random room.

    Args:
        kind: ``street`` or ``room``.
        seed: the same seed gives the same pixels.
        frames: number of frames.
        size: (height, width) in pixels; by default that of KITTI or NYU.

    Raises:
        MsfnetError: unknown kind, or a seed below 0.
    """

    length: int

    def __init__(
        self, kind: str, *, seed: int = 0, frames: int = 48, size: tuple[int, int] | None = None
    ) -> None:
        if kind not in KINDS:
            raise MsfnetError(f"unknown scene {kind!r}; write synthetic:street or synthetic:room")
        if seed < 0:
            raise MsfnetError(f"seed {seed} is below 0; choose 0 or more")
        maker, camera, self.fps = KINDS[kind]
        self.length = frames
        self.intrinsics = camera.scaled(*size) if size else camera
        self.journey = maker(seed)
        """The scene and the path of the camera."""

    def rendering(self, index: int) -> Rendering:
        """Return the picture and the exact depth of one frame."""
        return render(self.journey.scene, self.journey.pose(index), self.intrinsics)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames."""
        for index in range(self.length):
            image = self.rendering(index).image
            yield Frame(image, index, index / self.fps, self.intrinsics, f"{index:010d}")


def open_synthetic(text: str) -> SyntheticSource:
    """Open ``synthetic:KIND?seed=N&frames=N&size=HxW``; every option has a default.

    Raises:
        MsfnetError: unknown kind or option, or a value that is not a number.
    """
    kind, _, query = text.removeprefix(SCHEME).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = set(options) - {"seed", "frames", "size"}
    if unknown:
        raise MsfnetError(
            f"unknown option {sorted(unknown)[0]!r} in {text}; use seed, frames and size"
        )
    height, _, width = options.get("size", "").partition("x")
    numbers = [options.get("seed", "0"), options.get("frames", "48"), height or "64", width or "64"]
    if not all(n.isdecimal() and len(n) < 10 for n in numbers) or ("size" in options) != bool(
        height and width
    ):
        example = "synthetic:street?frames=48&size=375x1242"
        raise MsfnetError(f"{text} is not valid; write for example {example}")
    seed, frames, rows, columns = (int(number) for number in numbers)
    if frames < 1 or not (32 <= rows <= 4096 and 32 <= columns <= 4096):
        raise MsfnetError(f"{text}: frames must be at least 1, height and width 32 to 4096")
    return SyntheticSource(kind, seed=seed, frames=frames, size=(rows, columns) if height else None)
