"""Augments training pairs: as in the paper (Sec. IV), and further as small data sets need it.

An image is (H, W, 3) uint8 RGB, its depth (ceil(H/2), ceil(W/2)) float32 metres, 0 = none.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_train.recipe import AugmentationConfig

Image = NDArray[np.uint8]
Depth = NDArray[np.float32]


def augment(
    image: Image, depth: Depth, config: AugmentationConfig, rng: np.random.Generator
) -> tuple[Image, Depth]:
    """Apply the recipe's flip, channel permutation, zoom, colour jitter and erasing in turn."""
    if rng.random() < config.flip:
        image, depth = image[:, ::-1], depth[:, ::-1]
    if rng.random() < config.channel_permutation:
        image = image[..., rng.permutation(3)]
    if config.zoom > 1:
        image, depth = zoom(image, depth, config.zoom, rng)
    if config.colour_jitter:
        image = jitter_colour(image, config.colour_jitter, rng)
    if rng.random() < config.erase:
        image = erase(image, rng)
    return np.ascontiguousarray(image), np.ascontiguousarray(depth)


def zoom(
    image: Image, depth: Depth, largest: float, rng: np.random.Generator
) -> tuple[Image, Depth]:
    """Enlarge a random window to the full size and divide its depth by the same factor.

    An object that looks s times larger in the same camera is s times nearer (Eigen et al. 2014,
    Sec. 3.3). The factor is log-uniform between 1 and ``largest``. Depth is resized by nearest
    neighbour, so that no depth between two surfaces is invented.
    """
    factor = float(np.exp(rng.uniform(0, np.log(largest))))
    height, width = depth.shape
    rows, columns = round(height / factor), round(width / factor)
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    cropped = depth[top : top + rows, left : left + columns]
    window = image[2 * top : 2 * (top + rows), 2 * left : 2 * (left + columns)]
    size = image.shape[1], image.shape[0]
    larger = cv2.resize(window, size, interpolation=cv2.INTER_LINEAR)
    nearer = cv2.resize(cropped, (width, height), interpolation=cv2.INTER_NEAREST)
    return (
        np.asarray(larger, np.uint8),
        np.asarray(nearer, np.float32) * np.float32(rows / height),
    )


def jitter_colour(image: Image, amount: float, rng: np.random.Generator) -> Image:
    """Scale brightness, channels and contrast by random factors.

    The factors lie within 1 ± ``amount``, those of the channels within 1 ± ``amount`` / 2.
    """
    gain = rng.uniform(1 - amount, 1 + amount) * rng.uniform(1 - amount / 2, 1 + amount / 2, 3)
    scaled = image * gain
    mean = scaled.mean()
    contrast = rng.uniform(1 - amount, 1 + amount)
    changed = np.rint((scaled - mean) * contrast + mean)
    return np.asarray(np.clip(changed, 0, 255), np.uint8)


def erase(image: Image, rng: np.random.Generator) -> Image:
    """Paint one random rectangle, a sixth to half of each side, in one random colour.

    Its depth remains a target, to be predicted from the surroundings (Zhong et al. 2020).
    """
    height, width = image.shape[:2]
    rows, columns = (int(rng.integers(side // 6, side // 2)) for side in (height, width))
    top, left = int(rng.integers(height - rows)), int(rng.integers(width - columns))
    painted = image.copy()
    painted[top : top + rows, left : left + columns] = rng.integers(0, 256, 3)
    return painted
