"""Training pairs are scaled, cropped and augmented, and reproducible by key."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_datasets import open_dataset
from msfnet_runtime import MsfnetError
from msfnet_runtime.images import read_image, read_raw
from msfnet_runtime.preprocess import prepare
from msfnet_train.data import (
    EpochSampler,
    TrainingPairs,
    ValidationFrames,
    crop_pair,
    join_training,
    join_validation,
    scatter_depth,
    start_worker,
    to_target,
)
from msfnet_train.recipe import DataConfig, Recipe, at_size, load_recipe
from msfnet_train.split import open_split
from tests.train.datasets import nyu_recipe, write_nyu


def sparse_depth(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Return depth in metres at one pixel in twelve, 0 elsewhere."""
    depth = rng.uniform(2, 80, shape).astype(np.float32)
    return np.where(rng.random(shape) < 1 / 12, depth, np.float32(0))


@pytest.mark.parametrize(
    ("shape", "scaled", "offset", "crop"),
    [
        ((37, 124), (39, 124), (0, 40), (39, 51)),
        ((40, 60), (40, 60), (8, 10), (32, 32)),
        ((50, 70), (33, 41), (1, 4), (32, 33)),
    ],
)
def test_sparse_depth_is_moved_point_by_point(
    rng: np.random.Generator,
    shape: tuple[int, int],
    scaled: tuple[int, int],
    offset: tuple[int, int],
    crop: tuple[int, int],
) -> None:
    """Every point's centre falls into one cell; the nearest of a cell stays; no value is new."""
    depth = sparse_depth(rng, *shape)
    grid = -(-crop[0] // 2), -(-crop[1] // 2)
    expected = np.zeros(grid, np.float32)
    for row, column in np.argwhere(depth):
        y = ((row + 0.5) * scaled[0] / shape[0] - offset[0]) * grid[0] / crop[0]
        x = ((column + 0.5) * scaled[1] / shape[1] - offset[1]) * grid[1] / crop[1]
        if 0 <= y < grid[0] and 0 <= x < grid[1]:
            held = expected[int(y), int(x)]
            expected[int(y), int(x)] = min(held or np.inf, depth[row, column])

    moved = scatter_depth(depth, scaled, offset, crop)

    np.testing.assert_array_equal(moved, expected)
    assert 0 < np.count_nonzero(moved) < np.count_nonzero(depth)


def test_a_kitti_frame_is_stretched_to_the_crop_in_height_only(
    rng: np.random.Generator, photo: NDArray[np.uint8]
) -> None:
    """The paper's 385 rows exceed KITTI's 370: rows are scaled, columns kept."""
    recipe = load_recipe("kitti")
    recipe = replace(recipe, data=replace(recipe.data, crop=(101, 77)))
    depth = sparse_depth(rng, *photo.shape[:2])

    image, target = crop_pair(photo, depth, recipe, np.random.default_rng(1))

    assert image.shape == (101, 77, 3)
    assert target.shape == (51, 39)
    scaled = cv2.resize(photo, (131, 101))
    left = [x for x in range(131 - 77 + 1) if np.array_equal(scaled[:, x : x + 77], image)]
    assert len(left) == 1
    np.testing.assert_array_equal(target, scatter_depth(depth, (101, 131), (0, left[0]), (101, 77)))


def test_the_papers_nyu_crop_is_the_centre(rng: np.random.Generator) -> None:
    """640x480 halved, the centre 304x228 of it, depth at half of that again, by nearest."""
    rows, columns = np.mgrid[0:480, 0:640].astype(np.float32)
    image = np.stack([rows / 2, columns / 3, rows * 0 + 9], axis=-1).astype(np.uint8)
    depth = 1 + rows / 100 + columns / 1000

    cut, target = crop_pair(image, depth, load_recipe("nyu"), rng)

    assert cut.shape == (228, 304, 3)
    assert target.shape == (114, 152)
    np.testing.assert_array_equal(cut, cv2.resize(image, (320, 240))[6:234, 8:312])
    y, x = (np.arange(n) * 4 + first for n, first in ((114, 12), (152, 16)))
    centres = 1 + (y[:, None] + 1.5) / 100 + (x + 1.5) / 1000
    assert np.abs(target - centres).max() < 0.025
    assert np.isin(target, depth).all()


def test_inverse_depth_is_clipped_to_the_range() -> None:
    """DenseDepth: 10 / metres, 0.1 to 10 m; farther counts as 10 m, nothing measured as nothing."""
    config = load_recipe("nyu").data

    target, valid = to_target(np.array([[0.0, 0.05, 0.1, 2.5, 10.0, 12.0]], np.float32), config)

    np.testing.assert_array_equal(valid, [[False, True, True, True, True, True]])
    np.testing.assert_allclose(target, [[0, 100, 100, 4, 1, 1]], rtol=1e-6)


def test_metric_depth_beyond_the_range_is_not_learnt_from() -> None:
    """KITTI's cap of 80 m."""
    config = load_recipe("kitti").data

    target, valid = to_target(np.array([[0.0, 0.5, 1.0, 33.0, 80.0, 81.0]], np.float32), config)

    np.testing.assert_array_equal(valid, [[False, False, True, True, True, False]])
    np.testing.assert_allclose(target, [[0, 0, 1, 33, 80, 0]])


@pytest.fixture
def pairs(tmp_path: Path) -> TrainingPairs:
    """Return the training pairs of a small data set, cropped at random."""
    recipe = nyu_recipe(augmentation_random_crop=True)
    return TrainingPairs(open_split(recipe.data, write_nyu(tmp_path)).train, recipe)


def test_a_pair_depends_on_its_key_and_the_seed_alone(tmp_path: Path, pairs: TrainingPairs) -> None:
    """Same (seed, epoch, index), same pair, in any order and process; each of the three counts."""
    again = TrainingPairs(pairs.samples, nyu_recipe(augmentation_random_crop=True))
    other = TrainingPairs(pairs.samples, nyu_recipe(augmentation_random_crop=True, trainer_seed=1))
    first = [pairs[0, i].image for i in range(8)]

    for i in reversed(range(8)):
        assert (again[0, i].image == first[i]).all()
    for different in (other, pairs):
        epoch = 0 if different is other else 1
        changed = [not np.array_equal(different[epoch, i].image, first[i]) for i in range(8)]
        assert sum(changed) >= 6


def test_a_pair_is_what_its_files_hold(tmp_path: Path) -> None:
    """Without chance: the centre crop, normalised by ImageNet's figures, and 1 / metres."""
    recipe = nyu_recipe(
        data_image_size=None,
        data_crop=(240, 320),
        augmentation_flip=0.0,
        augmentation_channel_permutation=0.0,
    )
    root = write_nyu(tmp_path)
    batch = TrainingPairs(open_split(recipe.data, root).train, recipe)[0, 3]

    folder = root / "data/nyu2_train/room"
    image = read_image(folder / "3.png").astype(float) / 255
    depth = read_raw(folder / "3_depth.png").astype(float) * 10 / 255
    expected = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(batch.image[0].numpy(), expected.transpose(2, 0, 1), atol=1e-5)
    np.testing.assert_allclose(batch.target[0, 0].numpy(), 1 / depth[::2, ::2], rtol=1e-5)
    assert batch.valid.all()
    assert batch.names == ("room/3",)


def test_batches_are_pairs_side_by_side(pairs: TrainingPairs) -> None:
    """Pairs are in order, with their names; validation frames too."""
    joined = join_training([pairs[0, 2], pairs[0, 5]])

    assert joined.names == ("room/2", "room/5")
    assert joined.image.shape == (2, 3, 64, 64)
    assert joined.target.shape == joined.valid.shape == (2, 1, 32, 32)
    assert (joined.image[1] == pairs[0, 5].image[0]).all()
    frames = ValidationFrames(pairs.samples, nyu_recipe())
    both = join_validation([frames[1], frames[4]])
    assert both.names == ("room/1", "room/4")
    assert both.image.shape == (2, 3, 64, 96)
    assert [depth.shape for depth in both.ground_truth] == [(228, 304)] * 2


def test_validation_shows_what_a_deployed_model_sees(pairs: TrainingPairs) -> None:
    """The protocol's crop, then the runtime's preprocessing, and untouched ground truth."""
    recipe = nyu_recipe()
    sample = pairs.samples[2]
    frame = ValidationFrames(pairs.samples, recipe)[2]

    image = sample.frame().image[6:234, 8:312]
    np.testing.assert_array_equal(frame.image.numpy(), prepare(image, recipe.spec()))
    depth = sample.ground_truth((240, 320))[6:234, 8:312]
    np.testing.assert_array_equal(frame.ground_truth[0], depth)


def test_each_process_takes_its_share_of_one_order() -> None:
    """Three shares of ten: equally long, disjoint, the same order in every process."""
    whole = list(EpochSampler(10, 7, lambda: 2))
    shares = [list(EpochSampler(10, 7, lambda: 2, rank, 3)) for rank in range(3)]

    assert sorted(index for _, index in whole) == list(range(10))
    assert {epoch for epoch, _ in whole} == {2}
    assert [key for keys in zip(*shares, strict=True) for key in keys] == whole[:9]
    assert len(EpochSampler(10, 7, lambda: 2, 1, 3)) == 3


def test_every_epoch_has_its_own_order() -> None:
    """The order depends on (seed, epoch) only; the next epoch and another seed differ."""
    epoch = 0
    sampler = EpochSampler(50, 7, lambda: epoch)
    first = [index for _, index in sampler]
    assert [index for _, index in sampler] == first

    epoch = 1
    assert [index for _, index in sampler] != first
    assert [index for _, index in EpochSampler(50, 8, lambda: 0)] != first


def test_a_drives_last_frames_are_held_out(real_data: Path) -> None:
    """KITTI drives: later frames of each drive to validate on, none in both."""
    recipe = load_recipe("kitti")
    config = replace(recipe.data, validation_share=0.25)

    split = open_split(config, real_data / "kitti_raw")

    train, held = ({s.name for s in part} for part in (split.train, split.validation))
    assert not train & held
    drive = "2011_09_26_drive_0013_sync/"
    last = max(name for name in train if name.startswith(drive))
    assert sum(name.startswith(drive) for name in held) == 3
    assert all(name > last for name in held if name.startswith(drive))


def test_a_real_frame_and_its_scan_become_a_pair(real_data: Path) -> None:
    """KITTI at the paper's sizes: 385x513, 193x257, metres within 1 to 80, sparse."""
    recipe = load_recipe("kitti")
    batch = TrainingPairs(open_split(recipe.data, real_data / "kitti_raw").train, recipe)[0, 0]

    assert batch.image.shape == (1, 3, 385, 513)
    assert batch.target.shape == (1, 1, 193, 257)
    metres = batch.target[batch.valid]
    assert 1 <= float(metres.min()) < 10
    assert 30 < float(metres.max()) <= 80
    assert 0.02 < float(batch.valid.float().mean()) < 0.4


def test_real_pairs_are_read_at_the_papers_sizes(real_data: Path) -> None:
    """NYU: 228x304, 114x152, inverse depth between 1 and 100, and the lists' own lengths."""
    recipe = load_recipe("nyu")
    config = replace(recipe.data, validation_list="val", validation_depth="uint8_10m")
    recipe = replace(recipe, data=config)

    split = open_split(config, real_data / "nyu_mini")
    batch = TrainingPairs(split.train, recipe)[3, 17]

    assert (len(split.train), len(split.validation)) == (1114, 213)
    assert batch.image.shape == (1, 3, 228, 304)
    assert batch.target.shape == (1, 1, 114, 152)
    metres = 10 / batch.target[batch.valid].numpy()
    stored = open_dataset(real_data / "nyu_mini", split="train")[17].ground_truth((240, 320))
    assert np.isin(np.round(metres * 25.5), np.round(stored * 25.5)).all()
    assert 1 <= float(batch.target[batch.valid].min()) <= float(batch.target.max()) <= 100


def test_fewer_samples_are_spread_over_the_list(tmp_path: Path) -> None:
    """First and last included."""
    recipe = nyu_recipe(data_max_train=3)

    split = open_split(recipe.data, write_nyu(tmp_path))

    assert [s.name for s in split.train] == ["room/0", "room/4", "room/7"]


def config_for(layout: str) -> DataConfig:
    """Return what the paper's recipe of a layout reads."""
    return load_recipe(layout).data


def test_data_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """No folder, no list, no drive, a list that is not there."""
    with pytest.raises(MsfnetError, match="no data at"):
        open_split(config_for("nyu"), tmp_path / "absent")
    with pytest.raises(MsfnetError, match="holds no NYU list"):
        open_split(config_for("nyu"), tmp_path)
    with pytest.raises(MsfnetError, match="holds no KITTI drive"):
        open_split(config_for("kitti"), tmp_path)
    with pytest.raises(MsfnetError, match=r"has no list nyu2_test\.csv"):
        open_split(config_for("nyu"), write_nyu(tmp_path / "data set"))


def test_a_pair_without_depth_in_the_range_is_named(tmp_path: Path) -> None:
    """It would teach nothing, and a mean over nothing is a NaN."""
    recipe: Recipe = nyu_recipe(data_depth_kind="metric", data_depth_range_m=(50.0, 80.0))
    pairs = TrainingPairs(open_split(recipe.data, write_nyu(tmp_path)).train, recipe)

    with pytest.raises(MsfnetError, match="room/4 has no depth"):
        _ = pairs[0, 4]


def test_a_spec_can_be_had_at_another_size() -> None:
    """Input and output follow."""
    spec = at_size(load_recipe("nyu").spec(), (385, 513))

    assert spec.size == (385, 513)
    assert spec.inputs[0].shape == (1, 3, 385, 513)
    assert spec.outputs[0].shape == (1, 1, 193, 257)


def test_a_reading_process_ends_with_status_0_when_all_are_told_to_stop() -> None:
    """PyTorch reports one that a signal ended as a fault, while the run itself is stopping."""
    context = multiprocessing.get_context("fork")
    started = context.Event()

    def read() -> None:
        start_worker(0)
        started.set()
        time.sleep(60)

    process = context.Process(target=read)
    process.start()
    assert started.wait(30)
    process.terminate()
    process.join(30)

    assert process.exitcode == 0
