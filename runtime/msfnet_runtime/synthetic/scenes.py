"""Renders textured boxes on a ground or in a room by ray casting, with exact depth.

World axes are those of a level camera: x right, y down, z forward, metres; the ground is y = 0, so
heights are negative. All randomness comes from a seed: the same seed gives the same pixels in any
process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.synthetic import surfaces
from msfnet_runtime.types import CameraIntrinsics

Floats = NDArray[np.floating]

NEAR = 0.05
"""Objects nearer to the camera are not drawn, metres."""

FAR = 1000.0
"""Distance at which the ground ends, metres."""

NOTHING = -1
"""Owner of a ray that hits nothing."""

GROUND = -2
"""Owner of a ray that ends on the ground or on a wall of the room."""


Colour = tuple[float, float, float]
"""RGB, 0 to 1."""


@dataclass(frozen=True, eq=False)
class Box:
    """An axis-aligned box."""

    low: tuple[float, float, float]
    """Smallest x, y and z, metres."""
    high: tuple[float, float, float]
    """Largest x, y and z, metres."""
    colour: Colour
    material: surfaces.Material = surfaces.Material.PAINT


@dataclass(frozen=True, eq=False)
class Pose:
    """Position and rotation of a camera."""

    position: NDArray[np.float64]
    """(3,) metres, world."""
    rotation: NDArray[np.float64]
    """(3, 3), camera axes to world axes."""


@dataclass(frozen=True, eq=False)
class Rendering:
    """An image and its exact depth."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    depth: NDArray[np.float32]
    """(H, W) metres along the camera's z axis, 0 for the sky."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Boxes on a ground under the sky, or inside a closed ``room``."""

    boxes: tuple[Box, ...]
    light: tuple[float, float, float]
    """Direction to the sun, or position of the lamp in a room, metres."""
    seed: int
    """Seed of the textures."""
    room: Box | None = None
    reach: float = 140.0
    """Boxes farther away are not drawn, metres."""

    @cached_property
    def bounds(self) -> NDArray[np.float64]:
        """(N, 2, 3): smallest and largest corners, metres."""
        return np.array([(box.low, box.high) for box in self.boxes]).reshape(-1, 2, 3)

    @cached_property
    def noise(self) -> NDArray[np.float32]:
        """The noise tile of all textures."""
        return surfaces.noise_tile(self.seed)


def yaw_pose(position: tuple[float, float, float], yaw: float, pitch: float = 0.0) -> Pose:
    """Return the pose of a camera turned right by ``yaw`` and down by ``pitch``, radians."""
    (c, s), (cp, sp) = (np.cos(yaw), np.sin(yaw)), (np.cos(pitch), np.sin(pitch))
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    tilt = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return Pose(np.asarray(position, np.float64), turn @ tilt)


def render(scene: Scene, pose: Pose, intrinsics: CameraIntrinsics) -> Rendering:
    """Render a scene as a pinhole camera sees it; the intrinsics set (H, W)."""
    directions = _camera_rays(intrinsics) @ pose.rotation.T.astype(np.float32)
    window = partial(_screen_window, pose=pose, intrinsics=intrinsics)
    hits = _Hits(scene, pose.position, directions, window)
    image = _shade(scene, pose, hits)
    depth = np.where(np.isfinite(hits.distance), hits.distance, 0).astype(np.float32)
    return Rendering(image, depth)


Window = tuple[slice, slice]
"""Rows and columns of a grid of rays."""

FindWindow = Callable[[NDArray[np.float64]], Window | None]
"""Returns the part of a grid that can hit a box with bounds (2, 3), or None for no part."""


def cast(
    scene: Scene,
    origin: Floats,
    directions: Floats,
    window: FindWindow | None = None,
) -> NDArray[np.float64]:
    """Return the length of rays up to the first hit.

    Args:
        scene: the scene.
        origin: (3,) metres, start of all rays.
        directions: (R, C, 3) grid of rays; lengths are multiples of these vectors.
        window: selects the rays for a box; by default every box is tested with every ray.

    Returns:
        (R, C), inf if a ray hits nothing.
    """
    hits = _Hits(scene, np.asarray(origin, np.float64), directions, window)
    return np.asarray(hits.distance, np.float64)


class _Hits:
    """The nearest hit of every ray; (H, W) rays from one point."""

    def __init__(
        self,
        scene: Scene,
        origin: NDArray[np.float64],
        directions: Floats,
        window: FindWindow | None,
    ) -> None:
        self._bounds = scene.bounds
        self.origin = origin.astype(directions.dtype)
        self.directions = directions
        with np.errstate(divide="ignore"):
            self._inverse = [1 / directions[..., axis] for axis in range(3)]
        shape = directions.shape[:2]
        self.distance = np.full(shape, np.inf, directions.dtype)
        self.owner = np.full(shape, NOTHING, np.int32)
        self.axis = np.ones(shape, np.int8)
        if scene.room is None:
            self._add_ground()
        else:
            self._add_room(scene.room)
        gap = np.maximum(scene.bounds[:, 0] - origin, origin - scene.bounds[:, 1])
        for index in np.flatnonzero(gap.max(axis=1, initial=-np.inf) < scene.reach):
            part = window(scene.bounds[index]) if window else (slice(None), slice(None))
            if part is not None:
                self._add_box(int(index), part)

    def _add_ground(self) -> None:
        with np.errstate(invalid="ignore"):
            distance = -self.origin[1] * self._inverse[1]
        hit = (distance > NEAR) & (distance < FAR)
        self.distance[hit] = distance[hit]
        self.owner[hit] = GROUND

    def _add_room(self, room: Box) -> None:
        """Add the walls, seen from inside: where a ray leaves the room."""
        low, high = (np.asarray(side) - self.origin for side in (room.low, room.high))
        with np.errstate(invalid="ignore"):
            leaving = np.stack(
                [np.fmax(low[k] * part, high[k] * part) for k, part in enumerate(self._inverse)]
            )
        self.axis = leaving.argmin(axis=0).astype(np.int8)
        self.distance = leaving.min(axis=0).astype(self.distance.dtype)
        self.owner[:] = GROUND

    def _add_box(self, index: int, window: Window) -> None:
        """Intersect the rays of a window of the picture with one box."""
        low, high = (self._bounds[index] - self.origin).astype(self.directions.dtype)
        near, far = [], []
        # One axis at a time: a reduction over a last axis of length three is several times slower.
        for axis, inverse in enumerate(self._inverse):
            part = inverse[window]
            with np.errstate(invalid="ignore"):
                first, second = low[axis] * part, high[axis] * part
            near.append(np.fmin(first, second))
            far.append(np.fmax(first, second))
        entry = np.fmax(np.fmax(near[0], near[1]), near[2])
        leaving = np.fmin(np.fmin(far[0], far[1]), far[2])
        closer = (entry <= leaving) & (entry > NEAR) & (entry < self.distance[window])
        self.distance[window][closer] = entry[closer]
        self.owner[window][closer] = index
        self.axis[window][closer] = np.argmax([side[closer] for side in near], axis=0)


def _camera_rays(intrinsics: CameraIntrinsics) -> NDArray[np.float32]:
    """Return (H, W, 3) rays of camera-z 1, so that distances along them are depths."""
    columns = (np.arange(intrinsics.width) - intrinsics.cx) / intrinsics.fx
    rows = (np.arange(intrinsics.height) - intrinsics.cy) / intrinsics.fy
    x, y = np.meshgrid(columns, rows)
    return np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float32)


def _screen_window(
    bounds: NDArray[np.float64], pose: Pose, intrinsics: CameraIntrinsics
) -> Window | None:
    """Return the part of the picture that a box can cover, or None."""
    corners = np.array(np.meshgrid(*bounds.T)).reshape(3, -1).T
    x, y, z = ((corners - pose.position) @ pose.rotation).T
    if z.max() <= NEAR:
        return None
    if z.min() <= NEAR:  # it extends behind the camera, so its corners do not bound it
        return slice(None), slice(None)
    columns = x / z * intrinsics.fx + intrinsics.cx
    rows = y / z * intrinsics.fy + intrinsics.cy
    top, bottom = max(0, int(rows.min())), min(intrinsics.height, int(rows.max()) + 2)
    left, right = max(0, int(columns.min())), min(intrinsics.width, int(columns.max()) + 2)
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def _shade(scene: Scene, pose: Pose, hits: _Hits) -> NDArray[np.uint8]:
    """Return the colour of every ray: texture, light and haze, or sky."""
    image = surfaces.sky(hits.directions) if scene.room is None else np.zeros_like(hits.directions)
    seen = hits.owner != NOTHING
    owner, axis, directions = hits.owner[seen], hits.axis[seen], hits.directions[seen]
    distance = hits.distance[seen]
    points = hits.origin + directions * distance[:, None]
    base, materials = _paints(scene)
    colours = surfaces.paint(materials[owner], base[owner], points, axis, distance, scene.noise)
    normals = np.zeros_like(points)
    rows = np.arange(len(axis))
    normals[rows, axis] = -np.sign(directions[rows, axis])
    light = np.asarray(scene.light, points.dtype)
    if scene.room is None:
        colours *= surfaces.sunlight(normals, light)[:, None]
        colours = surfaces.haze(colours, distance)
    else:
        colours *= surfaces.lamplight(normals, points, light)[:, None]
        low, high = np.asarray((scene.room.low, scene.room.high), points.dtype)
        colours *= surfaces.corners(points, axis, low, high)[:, None]
    image[seen] = colours
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _paints(scene: Scene) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return colours and materials by owner; the last two rows serve GROUND and NOTHING."""
    ground = scene.room or Box((0, 0, 0), (0, 0, 0), (0.4, 0.4, 0.4), surfaces.Material.STREET)
    boxes = (*scene.boxes, ground, ground)
    return (
        np.array([box.colour for box in boxes], np.float32),
        np.array([box.material for box in boxes], np.int8),
    )
