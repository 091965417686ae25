from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_datasets import open_dataset
from msfnet_datasets.synthesize import synthesize_kitti
from msfnet_runtime import MsfnetError


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one small generated drive."""
    out = tmp_path_factory.mktemp("samples") / "kitti"
    synthesize_kitti(out, drives=1, frames=3, size=(96, 320))
    return out


def test_frames_are_paired_with_the_scan_of_their_number(drives: Path, tmp_path: Path) -> None:
    """A frame without a scan is left out, and no other frame's scan takes its place."""
    (scans,) = drives.glob("*/*/velodyne_points/data")
    hidden = (scans / "0000000001.bin").rename(tmp_path / "hidden.bin")
    try:
        samples = open_dataset(drives, ground_truth="velodyne")
    finally:
        hidden.rename(scans / "0000000001.bin")

    assert [s.image_path.stem for s in samples] == ["0000000000", "0000000002"]
    assert [s.depth_path.stem for s in samples] == ["0000000000", "0000000002"]
    assert samples[0].frame().intrinsics is not None
    assert np.count_nonzero(samples[0].ground_truth((96, 320))) > 500


def test_files_that_are_no_numbers_are_not_the_data_sets(drives: Path) -> None:
    """An editor's or a file manager's file beside the scans breaks nothing."""
    (scans,) = drives.glob("*/*/velodyne_points/data")
    stray = scans / "._0000000001.bin"
    stray.write_bytes(b"x" * 16)
    try:
        samples = open_dataset(drives, ground_truth="velodyne")
    finally:
        stray.unlink()

    assert len(samples) == 3


def test_lists_are_chosen_by_what_they_are_for(tmp_path: Path) -> None:
    """Test before validation before training; only the test list is in millimetres."""
    (tmp_path / "data").mkdir()
    pixels: dict[str, NDArray[np.integer[Any]]] = {
        "test": np.full((6, 8), 2040, np.uint16),
        "val": np.full((6, 8), 51, np.uint8),
        "train": np.full((6, 8), 102, np.uint8),
    }
    for name, depth in pixels.items():
        cv2.imwrite(str(tmp_path / f"data/{name}.png"), depth)
        (tmp_path / f"data/nyu2_{name}.csv").write_text(f"data/{name}.jpg,data/{name}.png\n")

    chosen = []
    for name in ("test", "val", "train"):
        (sample,) = open_dataset(tmp_path, ground_truth="nyu_depth")
        chosen.append(sample.depth_path.stem)
        assert sample.ground_truth((6, 8)).max() == pytest.approx(
            {"test": 2.04, "val": 2.0, "train": 4.0}[name]
        )
        (tmp_path / f"data/nyu2_{name}.csv").rename(tmp_path / f"data/was_{name}.csv")
    assert chosen == ["test", "val", "train"]


def test_a_list_can_be_named_and_an_unknown_one_is_refused(real_data: Path) -> None:
    """The line says which there are."""
    assert (
        len(open_dataset(real_data / "nyu_mini", split="train", ground_truth="nyu_depth")) == 1114
    )
    with pytest.raises(MsfnetError, match=r"no list nyu2_test\.csv; it has train, val"):
        open_dataset(real_data / "nyu_mini", split="test", ground_truth="nyu_depth")


def test_real_improved_maps_are_paired_with_their_frames(real_data: Path) -> None:
    """The depth benchmark's own folders beside the raw drives: two frames of drive 0001."""
    samples = open_dataset(real_data, ground_truth="improved")

    assert [s.image_path.stem for s in samples] == ["0000000005", "0000000050"]
    assert {s.image_path.parents[2].name for s in samples} == {"2011_09_26_drive_0001_sync"}
    for sample in samples:
        assert sample.depth_path.stem == sample.image_path.stem
        stored = cv2.imread(str(sample.depth_path), cv2.IMREAD_UNCHANGED)
        assert stored is not None
        np.testing.assert_array_equal(sample.ground_truth((375, 1242)), stored / 256)


def test_improved_maps_are_found_beside_the_drives(drives: Path, tmp_path: Path) -> None:
    """They are in the depth benchmark's layout; metres are counts / 256."""
    (drive,) = drives.glob("*/*_sync")
    folder = drives / "depth/train" / drive.name / "proj_depth/groundtruth/image_02"
    folder.mkdir(parents=True)
    pixels = np.full((96, 320), 2560, np.uint16)
    cv2.imwrite(str(folder / "0000000002.png"), pixels)

    (sample,) = open_dataset(drives, ground_truth="improved")

    assert sample.image_path.stem == "0000000002"
    np.testing.assert_array_equal(sample.ground_truth((96, 320)), 10)


def test_real_drives_and_lists_are_opened(real_data: Path) -> None:
    """Counts of the real sets, and depth of the size of its image."""
    drives = open_dataset(real_data / "kitti_raw", ground_truth="velodyne")
    lists = open_dataset(real_data / "nyu_mini", ground_truth="nyu_depth")

    assert (len(drives), len(lists)) == (15, 213)
    for sample in (drives[0], lists[0]):
        frame = sample.frame()
        depth = sample.ground_truth((frame.image.shape[0], frame.image.shape[1]))
        assert depth.shape == frame.image.shape[:2]
        assert 0 < np.median(depth[depth > 0]) < 40


def test_ground_truth_of_another_size_is_refused(drives: Path) -> None:
    """Shapes must match; nothing is resampled silently."""
    folder = next(drives.rglob("image_02/data")).parents[1].name
    maps = drives / "depth/train" / folder / "proj_depth/groundtruth/image_02"
    maps.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(maps / "0000000000.png"), np.full((90, 320), 2560, np.uint16))
    sample = open_dataset(drives, ground_truth="improved")[0]

    with pytest.raises(MsfnetError, match="check the data set"):
        sample.ground_truth((96, 320))


def test_data_without_the_wanted_ground_truth_is_refused(drives: Path, tmp_path: Path) -> None:
    """No folder, another layout, no measurement: one line each."""
    (tmp_path / "2011_09_26/a_sync/image_02/data").mkdir(parents=True)
    image = np.full((8, 8, 3), 90, np.uint8)
    cv2.imwrite(str(tmp_path / "2011_09_26/a_sync/image_02/data/0000000000.png"), image)

    with pytest.raises(MsfnetError, match="does not exist"):
        open_dataset(tmp_path / "none", ground_truth="velodyne")
    with pytest.raises(MsfnetError, match="nyu2_train"):
        open_dataset(drives, ground_truth="nyu_depth")
    with pytest.raises(MsfnetError, match="add the scans"):
        open_dataset(tmp_path, ground_truth="velodyne")
    with pytest.raises(MsfnetError, match="proj_depth"):
        open_dataset(tmp_path, ground_truth="improved")
