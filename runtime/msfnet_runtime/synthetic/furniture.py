"""Generates the content of rooms: furniture along the walls, door, window, rug and lamp."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from msfnet_runtime.synthetic.scenes import Box, Colour
from msfnet_runtime.synthetic.surfaces import Material

Span = tuple[float, float]

REACH = 0.9
"""Largest depth of furniture along a wall, metres."""

_FABRIC: tuple[Colour, ...] = (
    (0.30, 0.42, 0.58),
    (0.62, 0.26, 0.22),
    (0.42, 0.50, 0.34),
    (0.68, 0.60, 0.48),
    (0.30, 0.30, 0.34),
    (0.70, 0.52, 0.20),
)
_WHITE: Colour = (0.90, 0.89, 0.86)
_BRASS: Colour = (0.75, 0.62, 0.32)


@dataclass(frozen=True)
class Wall:
    """A wall of a room, which can place boxes relative to itself."""

    room: Box
    number: int
    """0 far, 1 right, 2 near, 3 left."""

    @property
    def span(self) -> Span:
        """Start and end of the wall along its length, metres."""
        along = 0 if self.number % 2 == 0 else 2
        return self.room.low[along], self.room.high[along]

    def box(
        self,
        along: Span,
        off: Span,
        heights: Span,
        colour: Colour,
        material: Material = Material.PAINT,
    ) -> Box:
        """Return a box by its spans along the wall, off the wall and above the floor."""
        axis = 2 if self.number % 2 == 0 else 0
        end = self.room.high[axis] if self.number in (0, 1) else self.room.low[axis]
        sign = -1 if self.number in (0, 1) else 1
        across = sorted(end + sign * distance for distance in off)
        spans = {axis: across, 2 - axis: along, 1: (-heights[1], -heights[0])}
        low, high = ((spans[0][i], spans[1][i], spans[2][i]) for i in (0, 1))
        return Box(low, high, colour, material)


def furnish(rng: np.random.Generator, room: Box) -> list[Box]:
    """Return a room's furniture: within ``REACH`` of a wall, or below 0.5 m."""
    walls = [Wall(room, number) for number in rng.permutation(4)]
    boxes = _rug(rng)
    for wall, hang in zip(walls, (_door, _window, _picture, _picture), strict=True):
        boxes += hang(rng, wall)
        start = wall.span[0] + (1.5 if hang is _door else REACH)
        boxes += _row(rng, wall, start, low=hang is _window)
    return boxes


def lamp(place: tuple[float, float, float], ceiling: float) -> list[Box]:
    """Return a shade around a light at ``place`` and its cord."""
    x, y, z = place
    shade = Box((x - 0.2, y - 0.1, z - 0.2), (x + 0.2, y + 0.1, z + 0.2), (1.9, 1.75, 1.4))
    cord = Box((x - 0.01, ceiling, z - 0.01), (x + 0.01, y - 0.1, z + 0.01), (0.1, 0.1, 0.1))
    return [shade, cord]


def _row(rng: np.random.Generator, wall: Wall, start: float, low: bool) -> list[Box]:
    """Place pieces side by side; only low ones below a window."""
    kinds = _LOW if low else _ALL
    boxes: list[Box] = []
    end = wall.span[1] - REACH  # the corners stay free
    at = start
    while at < end - 0.8:
        piece = kinds[rng.integers(len(kinds))]
        width = min(rng.uniform(0.8, 1.9), end - at)
        boxes += piece(rng, wall, (at, at + width))
        at += width + rng.uniform(0.15, 0.9)
    return boxes


def _wood(rng: np.random.Generator) -> Colour:
    tone = np.array([0.55, 0.40, 0.26]) * rng.uniform(0.6, 1.4)
    return float(tone[0]), float(tone[1]), float(tone[2])


def _shade(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def _fabric(rng: np.random.Generator) -> Colour:
    return _FABRIC[rng.integers(len(_FABRIC))]


def _cupboard(rng: np.random.Generator, wall: Wall, along: Span) -> list[Box]:
    """Return a body with two doors and their knobs."""
    wood, deep, tall = _wood(rng), rng.uniform(0.4, 0.6), rng.uniform(0.9, 2.05)
    middle = sum(along) / 2
    boxes = [wall.box(along, (0, deep), (0, tall), _shade(wood, 0.7), Material.WOOD)]
    for left, right, knob in (
        (along[0] + 0.03, middle - 0.01, middle - 0.08),
        (middle + 0.01, along[1] - 0.03, middle + 0.05),
    ):
        front = (deep, deep + 0.02)
        boxes.append(wall.box((left, right), front, (0.08, tall - 0.04), wood, Material.WOOD))
        height = min(tall * 0.55, 1.0)
        boxes.append(
            wall.box((knob, knob + 0.03), (deep, deep + 0.05), (height, height + 0.12), _BRASS)
        )
    return boxes


def _shelf(rng: np.random.Generator, wall: Wall, along: Span) -> list[Box]:
    """Return boards with books on them."""
    wood, storeys = _wood(rng), int(rng.integers(3, 6))
    tall, (start, end) = 0.36 * storeys + 0.05, along
    boxes = [wall.box(along, (0, 0.02), (0, tall), _shade(wood, 0.6), Material.WOOD)]
    for side in ((start, start + 0.03), (end - 0.03, end)):
        boxes.append(wall.box(side, (0, 0.32), (0, tall), wood, Material.WOOD))
    for storey in range(storeys + 1):
        base = 0.36 * storey
        boxes.append(wall.box(along, (0, 0.31), (base + 0.02, base + 0.05), wood, Material.WOOD))
        if storey < storeys:
            boxes += _books(rng, wall, (start + 0.05, end - 0.05), base + 0.05)
    return boxes


def _books(rng: np.random.Generator, wall: Wall, along: Span, base: float) -> list[Box]:
    boxes, at = [], along[0]
    while at < along[1] - 0.12:
        width, height = rng.uniform(0.04, 0.12), rng.uniform(0.18, 0.28)
        colour = _shade(_fabric(rng), rng.uniform(0.6, 1.3))
        depth = rng.uniform(0.18, 0.26)
        boxes.append(wall.box((at, at + width), (0.03, depth), (base, base + height), colour))
        at += width + (0.004 if rng.random() < 0.85 else rng.uniform(0.1, 0.3))
    return boxes


def _table(rng: np.random.Generator, wall: Wall, along: Span) -> list[Box]:
    """Return a top on four legs, with a few objects on it."""
    wood, top, deep = _wood(rng), rng.uniform(0.68, 0.78), rng.uniform(0.5, 0.75)
    boxes = [wall.box(along, (0.03, deep), (top - 0.04, top), wood, Material.WOOD)]
    for left in (along[0] + 0.02, along[1] - 0.08):
        for near in (0.05, deep - 0.08):
            leg = (left, left + 0.06), (near, near + 0.06), (0.0, top - 0.04)
            boxes.append(wall.box(*leg, _shade(wood, 0.8), Material.WOOD))
    for _ in range(int(rng.integers(1, 4))):
        at = rng.uniform(along[0] + 0.05, along[1] - 0.35)
        wide, tall = rng.uniform(0.08, 0.3), rng.uniform(0.05, 0.35)
        boxes.append(wall.box((at, at + wide), (0.15, 0.35), (top, top + tall), _fabric(rng)))
    return boxes


def _sofa(rng: np.random.Generator, wall: Wall, along: Span) -> list[Box]:
    """Return seat, back, arms and a cushion."""
    cloth, (start, end) = _fabric(rng), along
    cushion = rng.uniform(start + 0.15, end - 0.6)
    return [
        wall.box(along, (0.05, 0.85), (0.06, 0.40), cloth),
        wall.box(along, (0.05, 0.28), (0.40, 0.86), cloth),
        wall.box((start, start + 0.14), (0.05, 0.87), (0.0, 0.60), _shade(cloth, 0.9)),
        wall.box((end - 0.14, end), (0.05, 0.87), (0.0, 0.60), _shade(cloth, 0.9)),
        wall.box((cushion, cushion + 0.42), (0.28, 0.42), (0.40, 0.76), _fabric(rng)),
    ]


def _plant(rng: np.random.Generator, wall: Wall, along: Span) -> list[Box]:
    """Return leaves in a pot."""
    at, tall = along[0] + 0.1, rng.uniform(0.8, 1.3)
    green = (0.20, 0.42, 0.16)
    return [
        wall.box((at + 0.15, at + 0.45), (0.2, 0.5), (0.0, 0.32), (0.66, 0.38, 0.26)),
        wall.box((at + 0.05, at + 0.55), (0.1, 0.6), (0.42, tall - 0.2), green, Material.FOLIAGE),
        wall.box((at + 0.14, at + 0.46), (0.19, 0.5), (0.32, tall), green, Material.FOLIAGE),
    ]


Piece = Callable[[np.random.Generator, Wall, Span], list[Box]]
_LOW: tuple[Piece, ...] = (_sofa, _table, _table)
_ALL: tuple[Piece, ...] = (_cupboard, _shelf, _table, _sofa, _plant)


def _door(rng: np.random.Generator, wall: Wall) -> list[Box]:
    """Return frame, leaf and handle at the wall's start."""
    start = wall.span[0] + 0.35
    return [
        wall.box((start, start + 1.02), (0, 0.03), (0, 2.10), _WHITE),
        wall.box((start + 0.08, start + 0.94), (0, 0.05), (0.01, 2.02), _wood(rng), Material.WOOD),
        wall.box((start + 0.12, start + 0.24), (0.05, 0.09), (1.02, 1.05), _BRASS),
    ]


def _window(rng: np.random.Generator, wall: Wall) -> list[Box]:
    """Return bright panes in a white frame at the wall's middle."""
    middle = sum(wall.span) / 2 + rng.uniform(-0.3, 0.3)
    half, pane = rng.uniform(0.6, 0.9), (0.95, 1.15, 1.40)
    sides = ((-half + 0.07, -0.03), (0.03, half - 0.07))
    return [
        wall.box((middle - half, middle + half), (0, 0.05), (0.95, 2.15), _WHITE),
        wall.box((middle - half - 0.05, middle + half + 0.05), (0, 0.12), (0.90, 0.95), _WHITE),
        *(
            wall.box((middle + left, middle + right), (0, 0.052), (1.02, 2.08), pane)
            for left, right in sides
        ),
    ]


def _picture(rng: np.random.Generator, wall: Wall) -> list[Box]:
    """Return a framed picture with two fields of colour."""
    half, low = rng.uniform(0.3, 0.55), rng.uniform(1.3, 1.45)
    middle = rng.uniform(wall.span[0] + 1.0, wall.span[1] - 1.0)
    inner, horizon = (middle - half + 0.05, middle + half - 0.05), low + 0.3
    return [
        wall.box((middle - half, middle + half), (0, 0.03), (low, low + 0.7), _wood(rng)),
        wall.box(inner, (0, 0.032), (low + 0.05, horizon), _fabric(rng)),
        wall.box(inner, (0, 0.032), (horizon, low + 0.65), _shade(_fabric(rng), 1.3)),
    ]


def _rug(rng: np.random.Generator) -> list[Box]:
    """Return a rug with a border and a low table on it, in the room's middle."""
    x, z = rng.uniform(0.7, 1.0), rng.uniform(0.7, 1.0)
    wood, cloth = _wood(rng), _fabric(rng)
    boxes = [
        Box((-x, -0.008, -z), (x, 0, z), _shade(cloth, 0.6)),
        Box((-x + 0.15, -0.010, -z + 0.15), (x - 0.15, 0, z - 0.15), cloth),
        Box((-0.45, -0.42, -0.3), (0.45, -0.38, 0.3), wood, Material.WOOD),
    ]
    for left in (-0.43, 0.38):
        for near in (-0.28, 0.23):
            leg = (left, -0.38, near), (left + 0.05, 0.0, near + 0.05)
            boxes.append(Box(*leg, _shade(wood, 0.8), Material.WOOD))
    return boxes
