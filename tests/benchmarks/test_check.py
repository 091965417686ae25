from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from msfnet_benchmarks.check import check_data
from msfnet_benchmarks.synthesize import synthesize_kitti, synthesize_nyu
from msfnet_runtime import MsfnetError


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    """Write two small rooms."""
    synthesize_nyu(tmp_path / "nyu", scenes=2, frames=3, size=(64, 96))
    return tmp_path / "nyu"


def test_drives_are_counted_frame_by_frame(tmp_path: Path) -> None:
    """A frame without a scan is named; depth and coverage are those of the scans."""
    synthesize_kitti(tmp_path / "kitti", drives=2, frames=3, size=(96, 320))
    lost = next(tmp_path.glob("kitti/*/*0002_sync/velodyne_points/data/0000000001.bin"))
    lost.unlink()

    first, second = check_data(tmp_path / "kitti").lists

    assert (first.frames, first.missing) == (3, ())
    assert second.frames == 2
    assert second.missing[0].endswith("0000000001.png")
    assert first.sizes == ((96, 320),)
    low, median, high = first.depth_m
    assert 1 < low < median < high < 121
    assert 0.01 < first.coverage < 0.5


def test_lists_are_read_in_their_units_and_missing_files_counted(rooms: Path) -> None:
    """Rooms are 1 to 10 m, whether stored in 8 bits or in millimetres."""
    lost = next((rooms / "data/nyu2_train").rglob("2.jpg"))
    lost.unlink()

    checks = {checked.name: checked for checked in check_data(rooms).lists}

    assert checks["list train"].frames == 2
    assert checks["list train"].missing == (str(lost),)
    for checked in checks.values():
        assert 0.3 < checked.depth_m[1] < 8
        assert checked.coverage > 0.99
    assert str(lost) in check_data(rooms).text()


def test_depth_that_contradicts_its_unit_is_refused(rooms: Path) -> None:
    """A room of three millimetres was not written in millimetres."""
    for file in (rooms / "data/nyu2_test").glob("*_depth.png"):
        cv2.imwrite(str(file), np.full((64, 96), 3, np.uint16))

    with pytest.raises(MsfnetError, match="not in the unit"):
        check_data(rooms)


def test_files_of_another_type_than_their_list_are_refused(rooms: Path) -> None:
    """The training list holds 8 bits; 16 bits there are of another unit."""
    for file in (rooms / "data/nyu2_train").rglob("*.png"):
        cv2.imwrite(str(file), np.full((64, 96), 2000, np.uint16))

    with pytest.raises(MsfnetError, match="declares UINT8_10M"):
        check_data(rooms)


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    """A missing folder, and one that holds something else."""
    (tmp_path / "empty").mkdir()

    for name in ("none", "empty"):
        with pytest.raises(MsfnetError, match=name):
            check_data(tmp_path / name)


def test_the_real_sets_pass(real_data: Path) -> None:
    """1,114 training and 213 validation pairs of rooms; streets of tens of metres."""
    train, val = check_data(real_data / "nyu_mini").lists

    assert (train.frames, val.frames) == (1114, 213)
    assert not train.missing
    assert not val.missing
    assert 1 < train.depth_m[1] < 3
