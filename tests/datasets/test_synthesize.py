from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msfnet_datasets import open_dataset
from msfnet_datasets.ground_truth import load_kitti_calibration, read_velodyne
from msfnet_datasets.synthesize import AZIMUTHS, synthesize_kitti, synthesize_nyu
from msfnet_runtime import MsfnetError
from msfnet_runtime.sources.kitti import KittiDrive
from msfnet_runtime.sources.synthetic import SyntheticSource

SIZE = (188, 621)


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two drives of three frames, half KITTI's size."""
    out = tmp_path_factory.mktemp("streets") / "kitti"
    synthesize_kitti(out, drives=2, frames=3, seed=4, size=SIZE)
    return out


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write three rooms of two frames."""
    out = tmp_path_factory.mktemp("rooms") / "nyu"
    synthesize_nyu(out, scenes=3, frames=2, seed=4, size=(120, 160))
    return out


def test_the_reader_of_real_drives_reads_generated_ones(streets: Path) -> None:
    """Order, times, pixels and the camera are those of the scene itself."""
    with KittiDrive(streets) as source:
        frames = list(source)

    drives = [folder.name for folder in sorted(streets.glob("*/*_sync"))]
    assert [f.name for f in frames] == [f"{name}/{i:010d}" for name in drives for i in (0, 1, 2)]
    assert [f.timestamp_s for f in frames[:3]] == pytest.approx([0, 0.1, 0.2])
    for drive in range(2):
        street = SyntheticSource("street", seed=4000 + drive, frames=3, size=SIZE)
        np.testing.assert_array_equal(frames[3 * drive + 1].image, street.rendering(1).image)
    camera = frames[0].intrinsics
    assert camera is not None
    assert (camera.width, camera.height) == (621, 188)
    own = street.intrinsics
    assert (camera.fx, camera.fy) == pytest.approx((own.fx, own.fy), rel=1e-6)
    # KITTI's projection counts pixels from 1.
    assert (camera.cx, camera.cy) == pytest.approx((own.cx + 1, own.cy + 1), rel=1e-6)


def test_scans_projected_as_real_ones_agree_with_the_exact_depth(streets: Path) -> None:
    """Median within 1 %, and 95 % of the points within 3 %: the rest lies at edges."""
    for sample, seed in zip(open_dataset(streets), [4000] * 3 + [4001] * 3, strict=True):
        index = int(sample.image_path.stem)
        measured = sample.ground_truth(SIZE)
        street = SyntheticSource("street", seed=seed, frames=3, size=SIZE)
        exact = street.rendering(index).depth
        both = (measured > 0) & (exact > 0)
        difference = np.abs(measured[both] / exact[both] - 1)
        assert both.sum() > 3000
        assert both.sum() > 0.98 * np.count_nonzero(measured)
        assert np.median(difference) < 0.01
        assert np.percentile(difference, 95) < 0.03


def test_a_scan_is_kittis(streets: Path) -> None:
    """All around, x forward, reflectance 0 to 1, within 120 m and some 27 cm behind the camera."""
    points = read_velodyne(next(streets.glob("*/*0001_sync/velodyne_points/data/0000000000.bin")))
    calibration = load_kitti_calibration(streets / "2011_09_26")

    azimuth = np.arctan2(points[:, 1], points[:, 0])
    assert len(points) > 15_000
    assert azimuth.min() < AZIMUTHS[20]
    assert azimuth.max() > AZIMUTHS[-20]
    assert np.linalg.norm(points[:, :3], axis=1).max() < 120.1
    assert 0 <= points[:, 3].min() <= points[:, 3].max() <= 1
    place = calibration.r_rect_00 @ calibration.tr_velo_to_cam[:, 3]
    np.testing.assert_allclose(place, (0, -0.08, -0.27), atol=1e-6)
    for rotation in (calibration.r_rect_00, calibration.tr_velo_to_cam[:, :3]):
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert not np.allclose(calibration.r_rect_00, np.eye(3), atol=1e-3)


def test_calibration_files_have_the_entries_of_real_ones(streets: Path, real_data: Path) -> None:
    """All names in their order, and as many numbers behind each."""
    for name in ("cam_to_cam", "velo_to_cam", "imu_to_velo"):
        real, own = (
            (root / f"2011_09_26/calib_{name}.txt").read_text().splitlines()
            for root in (real_data / "kitti_raw", streets)
        )
        assert [(line.split()[0], len(line.split())) for line in own] == [
            (line.split()[0], len(line.split())) for line in real
        ]


def test_scans_are_taken_with_the_images(streets: Path) -> None:
    """Ten a second, to the nanosecond as KITTI writes them."""
    for sensor in ("image_02", "velodyne_points"):
        file = streets / f"2011_09_26/2011_09_26_drive_0002_sync/{sensor}/timestamps.txt"
        moments = file.read_text().splitlines()
        assert [moment[-12:] for moment in moments] == [
            "00.000000000",
            "00.100000000",
            "00.200000000",
        ]


def test_lists_of_rooms_are_read_in_their_units(rooms: Path) -> None:
    """Training: 8 bits, half a count of 10 m / 255. Test: millimetres."""
    train, test = (open_dataset(rooms, split=name) for name in ("train", "test"))

    assert (len(train), len(test)) == (4, 2)
    exact = [
        SyntheticSource("room", seed=4000 + room, frames=2, size=(120, 160)).rendering(index)
        for room in range(3)
        for index in range(2)
    ]
    for sample, truth in zip([*train, *test], exact, strict=True):
        depth = sample.ground_truth((120, 160))
        step = 0.5e-3 if "nyu2_test" in str(sample.depth_path) else 0.5 * 10 / 255
        rounding = 2 * np.spacing(np.float32(10))  # both sides are float32 metres
        assert np.abs(depth - truth.depth).max() <= step + rounding
        difference = sample.frame().image.astype(int) - truth.image
        assert np.abs(difference).mean() < 6


def test_the_same_seed_writes_the_same_bytes(streets: Path, tmp_path: Path) -> None:
    """Every file of a second run; another seed differs."""
    synthesize_kitti(tmp_path / "again", drives=2, frames=3, seed=4, size=SIZE)
    synthesize_kitti(tmp_path / "other", drives=1, frames=1, seed=5, size=SIZE)

    for file in streets.rglob("*.*"):
        if file.is_file():
            again = tmp_path / "again" / file.relative_to(streets)
            assert again.read_bytes() == file.read_bytes(), file
    name = "2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000000.png"
    assert (tmp_path / "other" / name).read_bytes() != (streets / name).read_bytes()


def test_one_room_is_cut_into_training_and_test(tmp_path: Path) -> None:
    """Its last fifth is the test list."""
    synthesize_nyu(tmp_path / "nyu", scenes=1, frames=6, size=(64, 64))

    assert len(open_dataset(tmp_path / "nyu", split="train")) == 5
    assert len(open_dataset(tmp_path / "nyu", split="test")) == 1


@pytest.mark.parametrize(("frames", "seed"), [(0, 0), (1, -1)])
def test_what_cannot_be_made_is_refused(tmp_path: Path, frames: int, seed: int) -> None:
    """The error is one line, and nothing is written."""
    for synthesize in (synthesize_kitti, synthesize_nyu):
        with pytest.raises(MsfnetError, match="at least 1 of each and a seed of 0 or more"):
            synthesize(tmp_path / "out", frames=frames, seed=seed, size=(64, 64))
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    """And a run that is stopped leaves nothing."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("kept")

    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(MsfnetError, match="already exists"):
        synthesize_kitti(tmp_path / "kept", drives=1, frames=1, size=(64, 64))
    with pytest.raises(KeyboardInterrupt):
        synthesize_nyu(tmp_path / "new", scenes=1, frames=2, size=(64, 64), progress=stop)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept"]
