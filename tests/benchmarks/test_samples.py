from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from msfnet_benchmarks.samples import open_samples
from msfnet_benchmarks.synthesize import synthesize_kitti
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
        samples = open_samples(drives, "velodyne")
    finally:
        hidden.rename(scans / "0000000001.bin")

    assert [s.image_path.stem for s in samples] == ["0000000000", "0000000002"]
    assert [s.depth_path.stem for s in samples] == ["0000000000", "0000000002"]
    assert samples[0].frame().intrinsics is not None
    assert np.count_nonzero(samples[0].ground_truth((96, 320))) > 500


def test_improved_maps_are_found_beside_the_drives(drives: Path, tmp_path: Path) -> None:
    """In the depth benchmark's own layout; metres are counts / 256."""
    (drive,) = drives.glob("*/*_sync")
    folder = drives / "depth/train" / drive.name / "proj_depth/groundtruth/image_02"
    folder.mkdir(parents=True)
    pixels = np.full((96, 320), 2560, np.uint16)
    cv2.imwrite(str(folder / "0000000002.png"), pixels)

    (sample,) = open_samples(drives, "improved")

    assert sample.image_path.stem == "0000000002"
    np.testing.assert_array_equal(sample.ground_truth((96, 320)), 10)


def test_real_drives_and_lists_are_opened(real_data: Path) -> None:
    """Counts of the real sets, and depth of the size of its image."""
    drives = open_samples(real_data / "kitti_raw", "velodyne")
    lists = open_samples(real_data / "nyu_mini", "nyu_depth")

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
    sample = open_samples(drives, "improved")[0]

    with pytest.raises(MsfnetError, match="check the data set"):
        sample.ground_truth((96, 320))


def test_data_without_the_wanted_ground_truth_is_refused(drives: Path, tmp_path: Path) -> None:
    """No folder, another layout, no measurement: one line each."""
    (tmp_path / "2011_09_26/a_sync/image_02/data").mkdir(parents=True)
    image = np.full((8, 8, 3), 90, np.uint8)
    cv2.imwrite(str(tmp_path / "2011_09_26/a_sync/image_02/data/0000000000.png"), image)

    with pytest.raises(MsfnetError, match="does not exist"):
        open_samples(tmp_path / "none", "velodyne")
    with pytest.raises(MsfnetError, match="nyu2_train"):
        open_samples(drives, "nyu_depth")
    with pytest.raises(MsfnetError, match="add the scans"):
        open_samples(tmp_path, "velodyne")
    with pytest.raises(MsfnetError, match="proj_depth"):
        open_samples(tmp_path, "improved")
