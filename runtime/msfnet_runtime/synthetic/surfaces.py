"""Computes the colours of surfaces: textures, light and haze.

All functions process N surface points at once: (N, 3) float32 metres, colours (N, 3) RGB 0 to 1.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

TILE = 512
"""Side of the noise tile, pixels."""

HAZE_COLOUR = np.array([0.78, 0.83, 0.90], np.float32)
HAZE_METRES = 150.0
"""Distance at which haze replaces 63 % of a colour."""


class Material(IntEnum):
    """The pattern of a surface."""

    PAINT = 0
    """Uniform, with a little noise."""
    FACADE = 1
    """Plaster with rows of windows."""
    STREET = 2
    """The ground of a street: asphalt, lane marks, pavement, grass."""
    FOLIAGE = 3
    WOOD = 4
    """Grain along the longer side."""
    ROOM = 5
    """Floorboards below, plain walls with a skirting board, a white ceiling."""


def noise_tile(seed: int) -> NDArray[np.float32]:
    """Return a (512, 512) tile of noise of many scales, mean 0, that repeats seamlessly."""
    rng = np.random.default_rng((seed, 7))
    tile = np.zeros((TILE, TILE), np.float32)
    for cells in (8, 32, 128, 512):
        coarse = rng.normal(size=(cells, cells)).astype(np.float32)
        padded = np.pad(coarse, 2, mode="wrap")
        size = TILE + 4 * TILE // cells
        wide = np.asarray(cv2.resize(padded, (size, size), interpolation=cv2.INTER_LINEAR))
        start = 2 * TILE // cells
        tile += wide[start : start + TILE, start : start + TILE]
    return tile / np.float32(2)


def paint(
    materials: NDArray[np.int8],
    base: Array,
    points: Array,
    axis: NDArray[np.int8],
    distance: Array,
    noise: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return the unlit colours of surface points.

    Args:
        materials: (N,) values of :class:`Material`.
        base: (N, 3) base colours of the surfaces.
        points: (N, 3) metres, world.
        axis: (N,) 0, 1 or 2: which axis the surface is perpendicular to.
        distance: (N,) metres; fine grain fades with it, as in a camera.
        noise: the noise tile of the scene.
    """
    horizontal = np.where(axis == 0, points[:, 2], points[:, 0])
    vertical = np.where(axis == 1, points[:, 2], points[:, 1])
    grain = _sample(noise, horizontal * 60, vertical * 60) / (1 + distance / 8)
    blotches = _smooth(noise, horizontal * 7, vertical * 7)
    strength = np.where(materials == Material.ROOM, np.float32(0.025), np.float32(0.06))
    colours = base * (1 + strength * grain + strength * blotches)[:, None]
    for material, pattern in (
        (Material.FACADE, _facade),
        (Material.STREET, _street),
        (Material.FOLIAGE, _foliage),
        (Material.WOOD, _wood),
        (Material.ROOM, _room),
    ):
        chosen = np.flatnonzero(materials == material)
        if chosen.size:
            places = _Places(
                points[chosen], axis[chosen], horizontal[chosen], vertical[chosen], noise
            )
            colours[chosen] = pattern(colours[chosen], places)
    return colours.astype(np.float32)


def _sample(noise: NDArray[np.float32], u: Array, v: Array) -> NDArray[np.float32]:
    """Sample the tile at (N,) pixel positions, which wrap around, without interpolation."""
    return noise[np.floor(v).astype(np.int32) % TILE, np.floor(u).astype(np.int32) % TILE]


def _smooth(noise: NDArray[np.float32], u: Array, v: Array) -> NDArray[np.float32]:
    """Sample the tile with bilinear interpolation."""
    left, top = np.floor(u), np.floor(v)
    right, down = (u - left).astype(np.float32), (v - top).astype(np.float32)
    upper = _sample(noise, left, top) * (1 - right) + _sample(noise, left + 1, top) * right
    lower = _sample(noise, left, top + 1) * (1 - right) + _sample(noise, left + 1, top + 1) * right
    return np.asarray(upper * (1 - down) + lower * down)


class _Places(NamedTuple):
    """The positions of the points of one material."""

    points: Array
    """(N, 3) metres, world."""
    axis: NDArray[np.int8]
    along: Array
    """(N,) metres along the surface: z on surfaces across x, else x."""
    across: Array
    """(N,) metres across it: z on level surfaces, else y."""
    noise: NDArray[np.float32]


def _facade(colours: Array, at: _Places) -> Array:
    """Draw windows every 2.4 m along and 3 m up, some lit, with pale frames; a dark roof."""
    height = -at.points[:, 1]
    u, v = at.along % 2.4, height % 3.0
    frame = (u > 0.55) & (u < 1.85) & (v > 0.85) & (v < 2.45) & (at.axis != 1)
    glass = frame & (u > 0.68) & (u < 1.72) & (v > 0.98) & (v < 2.32)
    pane = _sample(at.noise, at.along // 2.4 * 37, height // 3.0 * 53)
    colours[frame] = (0.88, 0.87, 0.84)
    colours[glass] = np.array([0.16, 0.21, 0.28]) * (1 + 0.45 * pane[glass])[:, None]
    colours[height < 0.6] *= 0.72
    colours[at.axis == 1] = (0.36, 0.22, 0.19)
    return colours


def _street(colours: Array, at: _Places) -> Array:
    """Draw asphalt to 5.5 m on both sides, a dashed middle line, kerbs, slabs to 8 m, grass."""
    x, z = np.abs(at.points[:, 0]), at.points[:, 2]
    tone = colours[:, 0] / 0.4
    colours[:] = np.array([0.33, 0.33, 0.35]) * tone[:, None]
    marks = ((x < 0.09) & (z % 6 < 3)) | ((x > 3.3) & (x < 3.44))
    colours[marks] = (0.86, 0.86, 0.82)
    slabs = x > 5.7
    joint = (x % 0.8 < 0.04) | (z % 0.8 < 0.04)
    colours[slabs] = np.array([0.58, 0.56, 0.53]) * tone[slabs, None]
    colours[slabs & joint] *= 0.75
    colours[(x > 5.5) & (x <= 5.7)] = (0.70, 0.69, 0.67)
    grass = x > 8.0
    colours[grass] = np.array([0.25, 0.38, 0.16]) * (1 + 2.5 * (tone[grass, None] - 1))
    return colours


def _foliage(colours: Array, at: _Places) -> Array:
    """Draw clumps of leaves, light and dark."""
    leaves = _sample(at.noise, at.along * 28, at.across * 28)
    return colours * (1 + 0.38 * leaves)[:, None]


def _wood(colours: Array, at: _Places) -> Array:
    """Draw grain along the surface."""
    grain = _smooth(at.noise, at.along * 9, at.across * 120)
    return colours * (1 + 0.14 * grain)[:, None]


def _room(colours: Array, at: _Places) -> Array:
    """Draw floorboards 14 cm wide, striped or panelled walls, skirting board, white ceiling."""
    height = -at.points[:, 1]
    wall = at.axis != 1
    if at.noise[0, 0] > 0:
        colours[wall & (at.along % 0.4 < 0.2)] *= 0.93
    else:
        colours[wall & (height < 0.9)] *= 0.80
        colours[wall & (height < 0.8) & (height > 0.2) & (at.along % 0.6 < 0.02)] *= 0.85
        colours[wall & (height > 0.9) & (height < 0.96)] = (0.88, 0.87, 0.84)
    floor = (at.axis == 1) & (height < 0.1)
    board = np.floor(at.points[:, 0] / 0.14)
    tone = _sample(at.noise, board * 29, at.points[:, 2] // 1.7 * 31)
    grain = _sample(at.noise, at.points[:, 0] * 160, at.points[:, 2] * 12)
    wood = np.array([0.52, 0.36, 0.22]) * (1 + 0.16 * tone + 0.10 * grain)[:, None]
    colours[floor] = wood[floor]
    colours[floor & (at.points[:, 0] % 0.14 < 0.006)] *= 0.55
    colours[(at.axis == 1) & (height > 1)] = (0.90, 0.90, 0.88)
    colours[wall & (height < 0.1)] = (0.88, 0.87, 0.84)
    return colours


def sunlight(normals: Array, towards: Array) -> Array:
    """Return the brightness of surfaces under the open sky."""
    direction = towards / np.linalg.norm(towards)
    upward = -normals[:, 1]
    return np.asarray(0.52 + 0.08 * upward + 0.5 * np.maximum(normals @ direction, 0))


def lamplight(normals: Array, points: Array, lamp: Array) -> Array:
    """Return the brightness of surfaces lit by a lamp."""
    way = lamp - points
    far = np.linalg.norm(way, axis=1)
    facing = np.maximum((normals * way).sum(axis=1) / np.maximum(far, 1e-3), 0)
    from_floor = 0.16 * np.maximum(normals[:, 1], 0)
    return np.asarray(0.52 + from_floor + 0.75 * facing / (1 + (far / 3.5) ** 2))


def corners(points: Array, axis: NDArray[np.int8], low: Array, high: Array) -> Array:
    """Return the fraction of light that reaches points near the edges of a room (low, high)."""
    share = np.ones(len(points), points.dtype)
    for side in range(3):
        gap = np.minimum(points[:, side] - low[side], high[side] - points[:, side])
        dark = 0.25 * np.exp(-np.maximum(gap, 0) / 0.2)
        share *= np.where(axis == side, 1, 1 - dark)  # a surface does not shade itself
    return share


def haze(colours: Array, distance: Array) -> NDArray[np.float32]:
    """Blend colours with haze by distance (N,) metres."""
    clear = np.exp(-distance / HAZE_METRES)[:, None]
    return np.asarray(colours * clear + HAZE_COLOUR * (1 - clear), np.float32)


def sky(directions: Array) -> NDArray[np.float32]:
    """Return the sky's colours along (..., 3) rays: haze at the horizon, blue above."""
    steepness = np.clip(-directions[..., 1] * 2.2, 0, 1)[..., None]
    return np.asarray(HAZE_COLOUR * (1 - steepness) + steepness * (0.36, 0.56, 0.86), np.float32)
