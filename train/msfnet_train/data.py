"""Training and validation pairs from the readers that evaluation uses (``msfnet_datasets``).

Training pairs are scaled, cropped and augmented as in Sec. IV; sparse depth is moved point by
point and never interpolated. Validation frames go through the very steps of a deployed model: the
protocol's preparation, then the runtime's preprocessing.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from msfnet_benchmarks.scoring.protocols import find_protocol
from msfnet_datasets.layouts import LAYOUTS
from msfnet_datasets.sample import SPARSE_BELOW, Sample
from msfnet_runtime import ModelSpec, MsfnetError
from msfnet_runtime.preprocess import prepare, resize_bilinear
from msfnet_train.augmentation import augment
from msfnet_train.recipe import DataConfig, Recipe, half


class TrainingBatch(NamedTuple):
    """The batch of one training step."""

    image: Tensor
    """(N, 3, H, W) float32, normalised."""
    target: Tensor
    """(N, 1, ceil(H/2), ceil(W/2)) float32: metres or inverse depth, 0 where not valid."""
    valid: Tensor
    """The target's shape, bool: there is a measurement."""
    names: tuple[str, ...]
    """The names of the samples."""


class ValidationBatch(NamedTuple):
    """A batch of the validation."""

    image: Tensor
    """(N, 3, h, w) float32, normalised, at the inference size."""
    ground_truth: tuple[NDArray[np.float32], ...]
    """(H, W) metres each, 0 = none, as the protocol prepared it."""
    names: tuple[str, ...]
    """The names of the samples."""


class TrainingPairs(Dataset[TrainingBatch]):
    """Augmented pairs, by (epoch, index): the same key gives the same pair in any process."""

    def __init__(self, samples: Sequence[Sample], recipe: Recipe) -> None:
        self.samples = samples
        self._recipe = recipe
        self._spec = recipe.spec()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> TrainingBatch:
        """Read, scale, crop and augment one pair: a batch of one.

        Raises:
            MsfnetError: an unreadable file, or a pair without depth in the range.
        """
        epoch, index = key
        sample = self.samples[index]
        rng = np.random.default_rng((self._recipe.trainer.seed, epoch, index))
        image = sample.frame().image
        depth = sample.ground_truth((image.shape[0], image.shape[1]))
        image, depth = crop_pair(image, depth, self._recipe, rng)
        image, depth = augment(image, depth, self._recipe.augmentation, rng)
        target, valid = to_target(depth, self._recipe.data)
        if not valid.any():
            raise MsfnetError(f"{sample.name} has no depth inside the crop; remove it")
        normalised = prepare(image, self._spec_of(image))
        return TrainingBatch(
            torch.from_numpy(normalised),
            torch.from_numpy(target)[None, None],
            torch.from_numpy(valid)[None, None],
            (sample.name,),
        )

    def _spec_of(self, image: NDArray[np.uint8]) -> ModelSpec:
        """Return the run's spec at the crop's size, so that prepare() only normalises."""
        return replace(self._spec, size=(image.shape[0], image.shape[1]))


class ValidationFrames(Dataset[ValidationBatch]):
    """Frames as a deployed model sees them, with their ground truth."""

    def __init__(self, samples: Sequence[Sample], recipe: Recipe) -> None:
        self.samples = samples
        self._protocol = find_protocol(recipe.data.protocol)
        self._spec = recipe.spec()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> ValidationBatch:
        """Read one frame: a batch of one.

        Raises:
            MsfnetError: an unreadable file, or a size the protocol is not defined for.
        """
        sample = self.samples[index]
        image = sample.frame().image
        depth = sample.ground_truth((image.shape[0], image.shape[1]))
        image, depth = self._protocol.prepare(image, depth)
        return ValidationBatch(
            torch.from_numpy(prepare(image, self._spec)), (depth,), (sample.name,)
        )


def crop_pair(
    image: NDArray[np.uint8],
    depth: NDArray[np.float32],
    recipe: Recipe,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Scale a frame and cut the crop out of it; bring its depth to half of that.

    Where the crop is larger than the frame on one side, that side alone is scaled up to it.

    Args:
        image: (H, W, 3) uint8.
        depth: (H, W) float32 metres, 0 = none.
        recipe: gives the sizes.
        rng: places a random crop.

    Returns:
        The image at the crop's size, and the depth at half of it, rounded up.
    """
    config, crop = recipe.data, recipe.data.crop
    height, width = (
        max(side, wanted)
        for side, wanted in zip(config.image_size or image.shape[:2], crop, strict=True)
    )
    spare = height - crop[0], width - crop[1]
    top, left = spare[0] // 2, spare[1] // 2
    if recipe.augmentation.random_crop:
        top, left = (int(rng.integers(0, rest + 1)) for rest in spare)
    scaled = resize_bilinear(image, (height, width))
    cut = scaled[top : top + crop[0], left : left + crop[1]]
    sparse = np.count_nonzero(depth) < SPARSE_BELOW * depth.size
    if LAYOUTS[config.layout].sparse or sparse:
        return cut, scatter_depth(depth, (height, width), (top, left), crop)
    dense = cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST)
    dense = dense[top : top + crop[0], left : left + crop[1]]
    rows, columns = half(crop)
    return cut, np.asarray(cv2.resize(dense, (columns, rows), interpolation=cv2.INTER_NEAREST))


def scatter_depth(
    depth: NDArray[np.float32],
    scaled: tuple[int, int],
    offset: tuple[int, int],
    crop: tuple[int, int],
) -> NDArray[np.float32]:
    """Move sparse depth into the half-size grid of a crop; of several points the nearest stays.

    Args:
        depth: (H, W) float32 metres, 0 = none.
        scaled: (height, width) the frame is scaled to, pixels.
        offset: (top, left) of the crop in the scaled frame, pixels.
        crop: (height, width) of the crop, pixels.

    Returns:
        (ceil(h/2), ceil(w/2)) float32 metres, 0 = none.
    """
    grid = half(crop)
    points = np.nonzero(depth)
    cells = []
    for axis in (0, 1):
        pixels = (points[axis] + 0.5) * scaled[axis] / depth.shape[axis] - offset[axis]
        cells.append(np.floor(pixels * grid[axis] / crop[axis]).astype(np.int64))
    rows, columns = cells
    inside = (rows >= 0) & (rows < grid[0]) & (columns >= 0) & (columns < grid[1])
    nearest = np.full(grid, np.inf, np.float32)
    np.minimum.at(nearest, (rows[inside], columns[inside]), depth[points][inside])
    return np.where(np.isfinite(nearest), nearest, np.float32(0))


def to_target(
    depth: NDArray[np.float32], config: DataConfig
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Turn depth into what the network learns.

    Inverse depth is ``inverse_scale`` / metres with the metres clipped to the range (DenseDepth);
    metric depth beyond the range is not learnt from (KITTI's cap).

    Returns:
        The target, 0 where not valid, and where it is valid; both of depth's shape.
    """
    low, high = config.depth_range_m
    if config.depth_kind == "inverse":
        valid = depth > 0
        target = np.float32(config.inverse_scale) / np.clip(depth, low, high)
    else:
        valid = (depth >= low) & (depth <= high)
        target = depth
    return np.where(valid, target, 0).astype(np.float32), valid


class EpochSampler(Sampler[tuple[int, int]]):
    """Shuffles by (seed, epoch), so that a resumed run reads what an uninterrupted one would.

    Every process takes its own share of the same order; all shares are equally long.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        epoch: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._size = size
        self._seed = seed
        self._epoch = epoch
        self._rank = rank
        self._world_size = world_size

    def __len__(self) -> int:
        return self._size // self._world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield this process's keys of the current epoch."""
        epoch = self._epoch()
        order = np.random.default_rng((self._seed, epoch)).permutation(self._size)
        for index in order[self._rank :: self._world_size][: len(self)]:
            yield epoch, int(index)


def join_training(pairs: Sequence[TrainingBatch]) -> TrainingBatch:
    """Join batches of one."""
    images, targets, valid, names = zip(*pairs, strict=True)
    return TrainingBatch(torch.cat(images), torch.cat(targets), torch.cat(valid), sum(names, ()))


def join_validation(frames: Sequence[ValidationBatch]) -> ValidationBatch:
    """Join batches of one."""
    images, depths, names = zip(*frames, strict=True)
    return ValidationBatch(torch.cat(images), sum(depths, ()), sum(names, ()))


def start_worker(worker: int) -> None:
    """Keep a reading process to one core, and leave Ctrl-C to the training process.

    SIGTERM, which service managers send to every process of a run, ends it with status 0: PyTorch
    takes a reading process that a signal ended for a fault, in the middle of the run's own end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def worker_message(error: MsfnetError) -> str:
    """Return an error's own line, which a reading process wraps in its traceback."""
    lines = re.findall(r"MsfnetError: (.*)", str(error))
    return lines[-1] if lines else str(error)
