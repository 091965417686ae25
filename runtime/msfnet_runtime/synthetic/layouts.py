"""Generates random streets and rooms, and the path of a camera through them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from msfnet_runtime.synthetic import furniture
from msfnet_runtime.synthetic.scenes import Box, Colour, Pose, Scene, yaw_pose
from msfnet_runtime.synthetic.surfaces import Material

STREET_LENGTH = 420.0
"""Length of the street, metres; a drive returns to the start before it sees the end."""
STREET_DRIVEN = 240.0

METRES_PER_FRAME = 0.8
"""29 km/h at KITTI's 10 frames per second."""

RADIANS_PER_FRAME = 0.03
"""Angle of the camera's walk around a room from one frame to the next."""

CAMERA_HEIGHT = 1.65
"""Metres, as in KITTI."""

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


@dataclass(frozen=True, eq=False)
class Journey:
    """A scene and the path of a camera through it."""

    scene: Scene
    pose: Callable[[int], Pose]
    """Returns the camera's pose for the index of a frame, from 0."""


def make_street(seed: int) -> Journey:
    """Return a street of houses, trees and parked cars, with a drive of 0.8 m per frame."""
    rng = np.random.default_rng((seed, 1))
    boxes: list[Box] = []
    for side in (-1, 1):
        boxes += _houses(rng, side)
        boxes += _trees(rng, side)
        boxes += _parked_cars(rng, side)
    boxes += _traffic(rng)
    sun = (rng.uniform(-0.8, 0.8), -1.0, rng.uniform(-0.6, 0.3))
    scene = Scene(tuple(boxes), sun, seed)
    phase, start = rng.uniform(0, 2 * np.pi), rng.uniform(0, 30)
    pitch = rng.uniform(-0.03, 0.05)
    return Journey(scene, partial(_street_pose, float(start), float(phase), float(pitch)))


def _street_pose(start: float, phase: float, pitch: float, frame: int) -> Pose:
    """Return a pose that sways and turns in the lane, and nods around ``pitch``, radians."""
    travelled = (start + METRES_PER_FRAME * frame) % STREET_DRIVEN
    sway = float(np.sin(travelled / 23 + phase))
    turn = 0.05 * float(np.cos(travelled / 23 + phase))
    nod = 0.008 * float(np.sin(travelled / 5 + 2 * phase))
    return yaw_pose((1.75 + 0.35 * sway, -CAMERA_HEIGHT, travelled), turn, pitch + nod)


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
    boxes, z = [], rng.uniform(0, 14)
    while z < STREET_LENGTH:
        x, trunk = side * 7.2, rng.uniform(2.0, 3.0)
        green = (rng.uniform(0.16, 0.28), rng.uniform(0.34, 0.46), rng.uniform(0.12, 0.18))
        boxes.append(_upright(x, z, 0.14, 0.0, trunk + 0.5, (0.33, 0.25, 0.18), Material.WOOD))
        for level, radius in enumerate((1.2, 1.6, 1.0)):
            base = trunk + 0.9 * level
            boxes.append(
                _upright(x, z, radius * rng.uniform(0.8, 1.1), base, 1.0, green, Material.FOLIAGE)
            )
        z += rng.uniform(12, 30)
    return boxes


def _upright(
    x: float, z: float, radius: float, base: float, height: float, colour: Colour, kind: Material
) -> Box:
    return Box(
        (x - radius, -base - height, z - radius), (x + radius, -base, z + radius), colour, kind
    )


def _parked_cars(rng: np.random.Generator, side: int) -> list[Box]:
    boxes, z = [], rng.uniform(4, 20)
    while z < STREET_LENGTH:
        boxes += _car(rng, side * rng.uniform(4.45, 4.6), z)
        z += float(rng.uniform(5.5, 8) if rng.random() < 0.5 else rng.uniform(12, 30))
    return boxes


def _traffic(rng: np.random.Generator) -> list[Box]:
    """Return cars that wait in the oncoming lane."""
    boxes: list[Box] = []
    for z in np.arange(25, STREET_LENGTH, 45):
        boxes += _car(rng, -1.75, float(z + rng.uniform(-12, 12)))
    return boxes


def _car(rng: np.random.Generator, x: float, z: float) -> list[Box]:
    """Return body, glass cabin with roof, and four wheels; 4.2 m long, at least 1.45 m high."""
    paint = _CARS[rng.integers(len(_CARS))]
    tall = rng.uniform(0.0, 0.35)
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


def make_room(seed: int) -> Journey:
    """Return a furnished room of 4.6 to 7.6 m, and a walk around it that looks across."""
    rng = np.random.default_rng((seed, 2))
    width, depth, height = rng.uniform(4.6, 7.6), rng.uniform(4.6, 7.6), rng.uniform(2.5, 2.9)
    tint = rng.uniform(0.72, 0.92) * (1 - rng.uniform(0, 0.22, 3))
    room = Box(
        (-width / 2, -height, -depth / 2),
        (width / 2, 0.0, depth / 2),
        (float(tint[0]), float(tint[1]), float(tint[2])),
        Material.ROOM,
    )
    light = (rng.uniform(-0.6, 0.6), -height + 0.45, rng.uniform(-0.6, 0.6))
    boxes = (*furniture.furnish(rng, room), *furniture.lamp(light, -height))
    start, eye = rng.uniform(0, 2 * np.pi), -rng.uniform(1.35, 1.6)
    return Journey(Scene(boxes, light, seed, room), partial(_room_pose, room, start, eye))


def _room_pose(room: Box, start: float, eye: float, frame: int) -> Pose:
    """Return a pose on an ellipse that avoids the furniture, looking across the room."""
    angle = start + RADIANS_PER_FRAME * frame
    clear = furniture.REACH + 0.35
    x = -(room.high[0] - clear) * float(np.sin(angle))
    z = -(room.high[2] - clear) * float(np.cos(angle))
    glance = 0.25 * float(np.sin(2.3 * angle))
    return yaw_pose((x, eye, z), angle + glance, 0.16 + 0.05 * float(np.sin(angle)))
