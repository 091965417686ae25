"""Generated and random images as the batch that a model takes, where there are no frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime import ModelSpec
from msfnet_runtime.artifacts import ShapeRange
from msfnet_runtime.preprocess import prepare
from msfnet_runtime.sources.synthetic import SyntheticSource

_INDOORS_M = 20.0
"""Models whose range ends before this get a room as input, others a street."""


def usual_shape(spec: ModelSpec, profiles: Sequence[ShapeRange] = ()) -> tuple[int, ...]:
    """Return the shape of one image as a model's input takes it.

    Args:
        spec: the model's spec; what is open is 1 for the batch and its own size for the sides.
        profiles: of a dynamic engine; the first one's most frequent height and width are taken.
    """
    image = spec.inputs[0]
    sides = iter(spec.size)  # what is open apart from the batch is height and width, in this order
    first = image.shape[0] if isinstance(image.shape[0], int) else 1
    rest = [side if isinstance(side, int) else next(sides) for side in image.shape[1:]]
    return (first, *(profiles[0][1][1:] if profiles else rest))


def generated_batch(spec: ModelSpec, shape: Sequence[int]) -> NDArray[Any]:
    """Return a picture, repeated, of ``shape`` and of the type of the model's input."""
    count, *sides = shape
    height, width = sides[:2] if spec.graph == "deploy" else sides[1:]
    kind = "room" if spec.depth_range_m[1] <= _INDOORS_M else "street"
    frame = next(iter(SyntheticSource(kind, frames=1, size=(height, width))))
    return np.repeat(prepare(frame.image, replace(spec, size=(height, width))), count, axis=0)


def random_batch(spec: ModelSpec, count: int = 1) -> NDArray[Any]:
    """Return random images as a model takes them: 0 to 1, or 0 to 255 as uint8.

    Args:
        spec: the model's.
        count: number of images where the batch is open; else the model's own number.
    """
    image, generator = spec.inputs[0], np.random.default_rng(0)
    first, *rest = usual_shape(spec)
    shape = (count if isinstance(image.shape[0], str) else first, *rest)
    if image.dtype == "uint8":
        return generator.integers(0, 256, shape, np.uint8)
    return generator.random(shape, np.float32).astype(image.dtype)
