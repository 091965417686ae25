from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet.__main__ import run
from msfnet_datasets import open_dataset
from msfnet_datasets.check import check_data
from msfnet_datasets.data_sheet import draw_sheet
from msfnet_datasets.figures import widen_points
from msfnet_datasets.synthesize import synthesize_kitti, synthesize_nyu
from msfnet_runtime import MsfnetError
from msfnet_runtime.images import read_image


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

    assert (first.frames, first.unmeasured) == (3, ())
    assert second.frames == 2
    assert second.unmeasured[0].endswith("0000000001.png")
    assert second.missing == ()
    assert first.sizes == ((96, 320),)
    assert first.depth is not None
    low, median, high = first.depth.range_m
    assert 1 < low < median < high < 121
    assert 0.01 < first.depth.coverage < 0.5


def test_a_drive_without_scans_is_reported_beside_those_with(tmp_path: Path) -> None:
    """It does not keep the others from being checked, and a stray file is not a scan."""
    synthesize_kitti(tmp_path / "kitti", drives=2, frames=2, size=(96, 320))
    first, second = sorted(tmp_path.glob("kitti/*/*_sync/velodyne_points/data"))
    shutil.rmtree(second)
    (first / "notes.bin").write_bytes(b"x" * 16)

    result = check_data(tmp_path / "kitti")

    assert [(c.frames, c.depth is None) for c in result.lists] == [(2, False), (2, True)]
    assert (
        "0002_sync, no velodyne: 2 frames\n  images 96x320 (2 read)\n  no ground" in result.text()
    )
    assert result.has_ground_truth


def test_improved_maps_are_ground_truth_on_their_own(tmp_path: Path) -> None:
    """Drives without scans; frames without a map are counted and the first is named."""
    synthesize_kitti(tmp_path / "kitti", drives=1, frames=3, size=(96, 320))
    (drive,) = tmp_path.glob("kitti/*/*_sync")
    shutil.rmtree(drive / "velodyne_points")
    folder = tmp_path / "kitti/depth/train" / drive.name / "proj_depth/groundtruth/image_02"
    folder.mkdir(parents=True)
    pixels = np.zeros((96, 320), np.uint16)
    pixels[:48] = np.linspace(256 * 4, 256 * 12, 320).astype(np.uint16)
    cv2.imwrite(str(folder / "0000000001.png"), pixels)

    improved = check_data(tmp_path / "kitti").lists[-1]

    assert (improved.frames, improved.listed, len(improved.unmeasured)) == (1, 3, 2)
    assert improved.unmeasured[0].endswith("0000000000.png")
    assert improved.depth is not None
    assert improved.depth.unit == "uint16, 256 = 1 m"
    assert improved.depth.range_m == pytest.approx((4, 8, 12), abs=0.02)
    assert improved.depth.coverage == 0.5


def test_a_folder_of_images_says_that_it_has_no_ground_truth(tmp_path: Path) -> None:
    """Sizes are counted, the most frequent first."""
    for index, height in enumerate((6, 8, 8)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((height, 9, 3), 90, np.uint8))

    result = check_data(tmp_path)

    (images,) = result.lists
    assert (images.frames, images.sizes, images.depth) == (3, ((8, 9), (6, 9)), None)
    assert not result.has_ground_truth
    assert "no ground truth: usable for streaming and calibration" in result.text()


def test_lists_are_read_in_their_units_and_missing_files_counted(rooms: Path) -> None:
    """Rooms are 1 to 10 m, whether stored in 8 bits or in millimetres."""
    lost = next((rooms / "data/nyu2_train").rglob("2.jpg"))
    lost.unlink()

    checks = {checked.name: checked for checked in check_data(rooms).lists}

    assert checks["list train"].frames == 2
    assert checks["list train"].missing == (str(lost),)
    for checked in checks.values():
        assert checked.depth is not None
        assert 0.3 < checked.depth.range_m[1] < 8
        assert checked.depth.coverage > 0.99
    units = {name: checked.depth.unit for name, checked in checks.items() if checked.depth}
    assert units["list train"] == "uint8, 255 = 10 m"
    assert units["list test"] == "uint16, millimetres"
    assert str(lost) in check_data(rooms).text()


def test_depth_that_contradicts_its_unit_is_refused(rooms: Path) -> None:
    """A room of three millimetres was not written in millimetres."""
    for file in (rooms / "data/nyu2_test").glob("*_depth.png"):
        cv2.imwrite(str(file), np.full((64, 96), 3, np.uint16))

    with pytest.raises(MsfnetError, match=r"millimetres, the median depth is 0\.003 m"):
        check_data(rooms)


def test_files_of_another_type_than_their_list_are_refused(rooms: Path) -> None:
    """The training list holds 8 bits; 16 bits there are of another unit."""
    for file in (rooms / "data/nyu2_train").rglob("*.png"):
        cv2.imwrite(str(file), np.full((64, 96), 2000, np.uint16))

    with pytest.raises(MsfnetError, match="declares uint8"):
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
    assert train.depth is not None
    assert 1 < train.depth.range_m[1] < 3
    assert train.opened == 64


def test_real_drives_are_counted_as_their_folders_are(real_data: Path) -> None:
    """Frames with and without a scan add up to the images of each drive."""
    result = check_data(real_data / "kitti_raw")

    for checked in result.lists:
        drive = real_data / "kitti_raw/2011_09_26" / checked.name.split(",")[0]
        scans = {f.stem for f in drive.glob("velodyne_points/data/*.bin")}
        images = {f.stem for f in drive.glob("image_02/data/*.*")}
        assert checked.frames == len(images & scans)
        assert len(checked.unmeasured) == len(images - scans)
        assert checked.depth is not None
        assert 5 < checked.depth.range_m[1] < 20
    assert [checked.frames for checked in result.lists] == [1, 12, 2]


def test_real_millimetres_in_a_list_of_eight_bits_are_refused(
    real_data: Path, tmp_path: Path
) -> None:
    """The official test pairs are 16 bits; as the test list they pass, as training they do not."""
    folder = real_data / "nyu_pairs/nyu2_test"
    pairs = [(str(f).replace("_depth", "_colors"), str(f)) for f in folder.glob("*_depth.png")]
    (tmp_path / "data").mkdir()
    rows = "".join(f"{image},{depth}\n" for image, depth in pairs)
    (tmp_path / "data/nyu2_test.csv").write_text(rows)

    (test,) = check_data(tmp_path).lists

    assert test.frames == 7
    assert test.depth is not None
    assert 1 < test.depth.range_m[1] < 5
    (tmp_path / "data/nyu2_train.csv").write_text(rows)
    with pytest.raises(MsfnetError, match="declares uint8"):
        check_data(tmp_path)


def test_the_histogram_is_numpys(rooms: Path) -> None:
    """Shares of all measured pixels of the list, in its bins and in words."""
    (train,) = (c for c in check_data(rooms).lists if c.name == "list train")
    stored = [
        cv2.imread(str(sample.depth_path), cv2.IMREAD_UNCHANGED)
        for sample in open_dataset(rooms, "nyu", "train")
    ]
    depths = np.concatenate([np.ravel(d).astype(float) * 10 / 255 for d in stored if d is not None])
    depths = depths[depths > 0]

    assert train.depth is not None
    edges = [0, 0.5, 1, 2, 3, 5, 7, 10, 20, 40, 80, 1e9]
    expected = [float(np.mean((depths >= low) & (depths < high))) for low, high in pairwise(edges)]
    np.testing.assert_allclose(train.depth.histogram, expected, atol=2e-3)
    assert train.depth.histogram[4] > 0.5
    assert f"3-5 m {train.depth.histogram[4]:6.1%} ####" in train.text()


def test_every_file_is_opened_when_asked(rooms: Path) -> None:
    """Bad samples are counted and named; the figures are those of the good ones."""
    samples = open_dataset(rooms, "nyu", "train")
    image = samples[1].image_path
    image.write_bytes(image.read_bytes()[:-300])
    cv2.imwrite(str(samples[2].depth_path), np.zeros((64, 96), np.uint8))

    result = check_data(rooms, every=True)

    train = next(c for c in result.lists if c.name == "list train")
    assert (train.frames, train.opened, result.bad) == (len(samples) - 2,) * 2 + (2,)
    assert [bad.name for bad in train.bad] == [samples[1].name, samples[2].name]
    assert f"bad: {samples[2].depth_path} holds no depth at all" in result.text()
    kept = json.loads(result.to_json())["lists"]
    assert [len(c["bad"]) for c in kept if c["name"] == "list train"] == [2]


def test_every_image_without_ground_truth_is_opened_when_asked(
    tmp_path: Path, photo: NDArray[np.uint8]
) -> None:
    """Beyond the 64 that are otherwise read; bad ones are named, the others counted."""
    for index in range(70):
        cv2.imwrite(str(tmp_path / f"{index:02}.jpg"), photo)
    cut = tmp_path / "35.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])

    (images,) = check_data(tmp_path, every=True).lists

    assert (images.frames, images.listed, images.opened) == (69, 70, 69)
    assert images.sizes == (photo.shape[:2],)
    ((name, path, reason),) = [(bad.name, bad.path, bad.reason) for bad in images.bad]
    assert (name, path) == ("35", cut)
    assert f"{cut} is cut short" in reason
    for index in range(70):
        (tmp_path / f"{index:02}.jpg").write_bytes(b"no image")
    with pytest.raises(MsfnetError, match="images: 70 of 70 opened frames cannot be used"):
        check_data(tmp_path, every=True)


@pytest.mark.parametrize(
    ("spoilt", "options", "status"),
    [
        ("nothing", "--all", 0),
        ("absent", "", 0),
        ("absent", "--all", 1),
        ("cut", "--all", 1),
        ("scan", "--all", 0),
    ],
)
def test_the_exit_status_tells_whether_every_listed_file_is_good(
    rooms: Path, tmp_path: Path, spoilt: str, options: str, status: int
) -> None:
    """Bad and absent files fail a look at all; a drive's frame without a scan is none of them."""
    root = rooms
    image = open_dataset(rooms, "nyu", "train")[1].image_path
    if spoilt == "absent":
        image.unlink()
    elif spoilt == "cut":
        image.write_bytes(image.read_bytes()[:-300])
    elif spoilt == "scan":
        root = tmp_path / "kitti"
        synthesize_kitti(root, drives=1, frames=3, size=(96, 320))
        next(root.glob("*/*/velodyne_points/data/0000000001.bin")).unlink()

    found = tmp_path / "found.json"

    assert run(["data", "check", str(root), *options.split(), "--json", str(found)]) == status
    lists = json.loads(found.read_text())["lists"]
    assert sum(len(c["missing"]) for c in lists) == (spoilt == "absent")
    assert sum(len(c["unmeasured"]) for c in lists) == (spoilt == "scan")
    assert sum(len(c["bad"]) for c in lists) == (spoilt == "cut")


def test_one_list_is_checked_by_its_own_words(tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    """BTS's list: absent files, declared gaps and the unit are reported."""
    (tmp_path / "room").mkdir()
    for number in (1, 2):
        cv2.imwrite(str(tmp_path / f"room/rgb_{number}.jpg"), photo)
        cv2.imwrite(str(tmp_path / f"room/sync_{number}.png"), np.full((97, 131), 2500, np.uint16))
    (tmp_path / "list.txt").write_text(
        "/room/rgb_1.jpg /room/sync_1.png 518\n/room/rgb_2.jpg /room/sync_2.png 518\n"
        "/room/rgb_3.jpg /room/sync_3.png 518\n/room/rgb_4.jpg None 518\n"
    )

    (checked,) = check_data(tmp_path, name="list.txt").lists

    assert (checked.frames, checked.listed) == (2, 3)
    assert (len(checked.missing), checked.without_ground_truth) == (2, 1)
    assert checked.depth is not None
    assert checked.depth.range_m == pytest.approx((2.5, 2.5, 2.5))
    lost = tmp_path / "room/rgb_3.jpg"
    assert f"2 of 3 frames, 2 files missing ({lost})" in checked.text()
    assert "1 declared to have no ground truth" in checked.text()
    assert "uint16, millimetres" in checked.text()
    with pytest.raises(MsfnetError, match="layout nyu_sync does not store depth as uint8_10m"):
        check_data(tmp_path, name="list.txt", depth="uint8_10m")


def test_a_unit_that_the_depth_contradicts_is_refused(rooms: Path) -> None:
    """The type contradicts it, or a median that no room has."""
    with pytest.raises(MsfnetError, match="declares uint16, millimetres"):
        check_data(rooms, name="train", depth="uint16_mm")
    for sample in open_dataset(rooms, "nyu", "test"):
        stored = cv2.imread(str(sample.depth_path), cv2.IMREAD_UNCHANGED)
        assert stored is not None
        cv2.imwrite(str(sample.depth_path), stored // 1000 + 1)  # metres in the place of mm
    with pytest.raises(MsfnetError, match=r"list test: 3 of 3 opened .* not between 0\.2"):
        check_data(rooms, name="test")


def test_the_sheet_shows_frames_and_depth_of_every_list(rooms: Path, tmp_path: Path) -> None:
    """One PNG whose height grows with the lists; without ground truth there is none to draw."""
    draw_sheet(check_data(rooms), tmp_path / "all.png")
    draw_sheet(check_data(rooms, name="test"), tmp_path / "one.png")

    both, one = (read_image(tmp_path / name) for name in ("all.png", "one.png"))
    assert both.shape[0] > 1.5 * one.shape[0]
    assert len(np.unique(one.reshape(-1, 3), axis=0)) > 300
    images = tmp_path / "images"
    images.mkdir()
    cv2.imwrite(str(images / "a.png"), one)
    with pytest.raises(MsfnetError, match="no ground truth to draw"):
        draw_sheet(check_data(images), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_sparse_points_are_widened_for_the_eye_alone() -> None:
    """A point covers 5x5, the largest on top; nothing is invented elsewhere."""
    sparse = np.zeros((20, 30), np.float32)
    sparse[10, 10], sparse[10, 13] = 5, 7

    wide = widen_points(sparse)

    assert np.count_nonzero(np.isfinite(wide)) == 5 * 8
    assert np.nanmin(wide) == 5
    assert wide[10, 11] == 7


def test_a_list_of_which_nothing_is_there_is_one_line(tmp_path: Path) -> None:
    """No file of it, or no entry that has depth."""
    (tmp_path / "absent.txt").write_text("/room/a.jpg /room/b.png 518\n")
    (tmp_path / "none.txt").write_text("/room/a.jpg None 518\n")

    with pytest.raises(MsfnetError, match=r"none of 1 frame has both .*room/a\.jpg is missing"):
        check_data(tmp_path, name="absent.txt")
    with pytest.raises(MsfnetError, match=r"none\.txt: every frame is declared to have no ground"):
        check_data(tmp_path, name="none.txt")
