"""Seeded streets and rooms, and the way a camera takes through them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msfnet_runtime.scenes import Box, Pose, Scene, yaw_pose
from msfnet_runtime.surfaces import Material

Colour = tuple[float, float, float]

STREET_LENGTH = 420.0
"""Metres that are built up; a drive turns back to the start before it sees the end."""
STREET_DRIVEN = 240.0

METRES_PER_FRAME = 0.8
"""29 km/h at KITTI's 10 frames per second."""

CAMERA_HEIGHT = 1.65
"""Metres, as on KITTI's car."""

_PLASTER: tuple[Colour, ...] = (
    (0.78, 0.70, 0.58),
    (0.70, 0.55, 0.45),
    (0.82, 0.80, 0.74),
    (0.62, 0.66, 0.70),
    (0.74, 0.62, 0.42),
    (0.60, 0.42, 0.36),
)
_CARS: tuple[Colour, ...] = (
    (0.62, 0.10, 0.10),
    (0.12, 0.20, 0.45),
    (0.80, 0.80, 0.82),
    (0.10, 0.10, 0.12),
    (0.45, 0.47, 0.50),
    (0.15, 0.35, 0.22),
)
_FABRIC: tuple[Colour, ...] = (
    (0.30, 0.38, 0.50),
    (0.55, 0.25, 0.22),
    (0.40, 0.45, 0.33),
    (0.62, 0.55, 0.45),
    (0.25, 0.25, 0.28),
)


@dataclass(frozen=True, eq=False)
class Journey:
    """A scene and a camera's way through it."""

    scene: Scene
    poses: tuple[Pose, ...]


def make_street(seed: int, frames: int) -> Journey:
    """Return a street of houses, trees and parked cars, driven along at 0.8 m per frame."""
    rng = np.random.default_rng((seed, 1))
    boxes: list[Box] = []
    for side in (-1, 1):
        boxes += _houses(rng, side)
        boxes += _trees(rng, side)
        boxes += _parked_cars(rng, side)
    boxes += _traffic(rng)
    sun = (float(rng.uniform(-0.8, 0.8)), -1.0, float(rng.uniform(-0.6, 0.3)))
    scene = Scene(tuple(boxes), sun, seed)
    phase, start = rng.uniform(0, 2 * np.pi), rng.uniform(0, 30)
    return Journey(scene, tuple(_street_pose(i, start, phase) for i in range(frames)))


def _street_pose(frame: int, start: float, phase: float) -> Pose:
    travelled = (start + METRES_PER_FRAME * frame) % STREET_DRIVEN
    sway = float(np.sin(travelled / 23 + phase))
    turn = 0.018 * float(np.cos(travelled / 23 + phase))
    return yaw_pose((1.75 + 0.35 * sway, -CAMERA_HEIGHT, travelled), turn)


def _houses(rng: np.random.Generator, side: int) -> list[Box]:
    boxes, z = [], -15.0
    while z < STREET_LENGTH:
        length, height = rng.uniform(8, 17), rng.uniform(5, 13)
        near, depth = rng.uniform(9, 12), rng.uniform(8, 12)
        colour = _PLASTER[rng.integers(len(_PLASTER))]
        x = sorted((side * near, side * (near + depth)))
        boxes.append(Box((x[0], -height, z), (x[1], 0.0, z + length), colour, Material.FACADE))
        z += length + (rng.uniform(3, 12) if rng.random() < 0.45 else 0.3)
    return boxes


def _trees(rng: np.random.Generator, side: int) -> list[Box]:
    boxes, z = [], float(rng.uniform(0, 14))
    while z < STREET_LENGTH:
        x, trunk = side * 7.2, rng.uniform(2.0, 3.0)
        green = (rng.uniform(0.16, 0.28), rng.uniform(0.34, 0.46), rng.uniform(0.12, 0.18))
        boxes.append(_upright(x, z, 0.14, 0.0, trunk + 0.5, (0.33, 0.25, 0.18), Material.WOOD))
        for level, radius in enumerate((1.2, 1.6, 1.0)):
            base = trunk + 0.9 * level
            boxes.append(
                _upright(x, z, radius * rng.uniform(0.8, 1.1), base, 1.0, green, Material.FOLIAGE)
            )
        z += float(rng.uniform(12, 30))
    return boxes


def _upright(
    x: float, z: float, radius: float, base: float, height: float, colour: Colour, kind: Material
) -> Box:
    return Box(
        (x - radius, -base - height, z - radius), (x + radius, -base, z + radius), colour, kind
    )


def _parked_cars(rng: np.random.Generator, side: int) -> list[Box]:
    boxes, z = [], float(rng.uniform(4, 20))
    while z < STREET_LENGTH:
        boxes += _car(rng, side * float(rng.uniform(4.45, 4.6)), z)
        z += float(rng.uniform(5.5, 8) if rng.random() < 0.5 else rng.uniform(12, 30))
    return boxes


def _traffic(rng: np.random.Generator) -> list[Box]:
    """Cars that wait in the oncoming lane."""
    boxes: list[Box] = []
    for z in np.arange(25, STREET_LENGTH, 45):
        boxes += _car(rng, -1.75, float(z + rng.uniform(-12, 12)))
    return boxes


def _car(rng: np.random.Generator, x: float, z: float) -> list[Box]:
    """A body, a glass cabin with a roof, and four wheels; 4.2 m long, 1.45 m high or more."""
    paint = _CARS[rng.integers(len(_CARS))]
    tall = float(rng.uniform(0.0, 0.35))
    parts = [
        ((-0.88, -0.88, 0.0), (0.88, -0.28, 4.2), paint),
        ((-0.76, -1.38 - tall, 0.9), (0.76, -0.88, 3.4), (0.14, 0.17, 0.20)),
        ((-0.74, -1.45 - tall, 1.0), (0.74, -1.38 - tall, 3.3), paint),
        ((-0.80, -0.72, -0.02), (-0.50, -0.58, 0.0), (0.85, 0.20, 0.15)),
        ((0.50, -0.72, -0.02), (0.80, -0.58, 0.0), (0.85, 0.20, 0.15)),
    ]
    for left in (-0.9, 0.66):
        for front in (0.45, 3.05):
            parts.append(
                ((left, -0.62, front), (left + 0.24, 0.0, front + 0.62), (0.06, 0.06, 0.07))
            )
    return [
        Box((x + low[0], low[1], z + low[2]), (x + high[0], high[1], z + high[2]), colour)
        for low, high, colour in parts
    ]


def make_room(seed: int, frames: int) -> Journey:
    """Return a furnished room of 4 to 7 m, and a camera that turns in its middle."""
    rng = np.random.default_rng((seed, 2))
    width, depth, height = rng.uniform(4, 7), rng.uniform(4, 7), rng.uniform(2.4, 2.9)
    wall = tuple(float(c) for c in rng.uniform(0.62, 0.86, 3))
    room = Box(
        (-width / 2, -height, -depth / 2),
        (width / 2, 0.0, depth / 2),
        (wall[0], wall[1], wall[2]),
        Material.ROOM,
    )
    boxes = [box for wall_index in range(4) for box in _along_wall(rng, room, wall_index)]
    lamp = (float(rng.uniform(-0.8, 0.8)), -height + 0.25, float(rng.uniform(-0.8, 0.8)))
    scene = Scene(tuple(boxes), lamp, seed, room)
    turn, eye = rng.uniform(0, 2 * np.pi), -float(rng.uniform(1.3, 1.6))
    return Journey(scene, tuple(_room_pose(i, turn, eye) for i in range(frames)))


def _room_pose(frame: int, turn: float, eye: float) -> Pose:
    angle = turn + 0.045 * frame
    x, z = 0.45 * np.sin(0.7 * angle), 0.45 * np.cos(0.9 * angle)
    return yaw_pose((float(x), eye, float(z)), angle, 0.12 + 0.05 * float(np.sin(angle)))


def _along_wall(rng: np.random.Generator, room: Box, wall: int) -> list[Box]:
    """Furnish one wall: cupboards, tables and sofas beside one another, and a picture above."""
    axis = 0 if wall % 2 else 2
    along = 2 - axis
    boxes, at = [], room.low[along] + float(rng.uniform(0.2, 0.8))
    while at < room.high[along] - 1.0:
        length = float(rng.uniform(0.6, 1.8))
        end = min(at + length, room.high[along] - 0.1)
        boxes += _furniture(rng, room, wall, at, end)
        at = end + float(rng.uniform(0.3, 1.2))
    middle = float(rng.uniform(room.low[along] + 0.8, room.high[along] - 0.8))
    picture = tuple(float(c) for c in rng.uniform(0.15, 0.8, 3))
    boxes.append(
        _against(
            room,
            wall,
            (middle - 0.4, middle + 0.4),
            0.04,
            (1.35, 1.95),
            (picture[0], picture[1], picture[2]),
            Material.PAINT,
        )
    )
    return boxes


def _furniture(
    rng: np.random.Generator, room: Box, wall: int, start: float, end: float
) -> list[Box]:
    kind = rng.integers(3)
    wood = tuple(float(c) for c in np.array([0.45, 0.32, 0.20]) * rng.uniform(0.6, 1.5))
    brown = (wood[0], wood[1], wood[2])
    reach = float(rng.uniform(0.4, 0.7))
    if kind == 0:
        tall = float(rng.uniform(1.2, 2.1))
        return [_against(room, wall, (start, end), reach, (0.0, tall), brown, Material.WOOD)]
    if kind == 1:
        top = float(rng.uniform(0.65, 0.8))
        legs = [(start, start + 0.06), (end - 0.06, end)]
        return [
            _against(room, wall, (start, end), reach, (top - 0.05, top), brown, Material.WOOD),
            *(_against(room, wall, leg, reach, (0.0, top), brown, Material.WOOD) for leg in legs),
        ]
    fabric = _FABRIC[rng.integers(len(_FABRIC))]
    return [
        _against(room, wall, (start, end), reach + 0.2, (0.0, 0.42), fabric, Material.PAINT),
        _against(room, wall, (start, end), 0.22, (0.42, 0.85), fabric, Material.PAINT),
    ]


def _against(
    room: Box,
    wall: int,
    along: tuple[float, float],
    reach: float,
    heights: tuple[float, float],
    colour: Colour,
    material: Material,
) -> Box:
    """Return a box that stands against a wall: 0 far, 1 right, 2 near, 3 left."""
    axis = 0 if wall % 2 else 2
    across = (
        (room.high[axis] - reach, room.high[axis])
        if wall in (0, 1)
        else (room.low[axis], room.low[axis] + reach)
    )
    spans = {axis: across, 2 - axis: along, 1: (-heights[1], -heights[0])}
    low, high = ((spans[0][i], spans[1][i], spans[2][i]) for i in (0, 1))
    return Box(low, high, colour, material)
