from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_datasets import open_dataset
from msfnet_datasets.ground_truth import (
    KittiCalibration,
    load_kitti_calibration,
    project_velodyne,
    read_depth,
    read_stored,
    read_velodyne,
)
from msfnet_runtime import MsfnetError
from msfnet_runtime.depth_storage import ENCODINGS, DepthEncoding
from msfnet_runtime.images import read_image

STRAIGHT = KittiCalibration(
    p_rect=np.array([[10.0, 0, 20, 0], [0, 10, 15, 0], [0, 0, 1, 0]]),
    r_rect_00=np.eye(3),
    tr_velo_to_cam=np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, -0.25]]),
)
"""A camera 25 cm ahead of the scanner, focal length 10, centre (20, 15)."""


def project_one_by_one(
    points: NDArray[np.float32], calibration: KittiCalibration, size: tuple[int, int]
) -> NDArray[np.float64]:
    """Project point after point in plain Python: the reference."""
    depth = np.zeros(size)
    matrix = calibration.p_rect @ np.vstack(
        [calibration.r_rect_00 @ calibration.tr_velo_to_cam, [0, 0, 0, 1]]
    )
    for x, y, z, _ in points.astype(float):
        u, v, w = matrix @ (x, y, z, 1.0)
        if x < 0 or w <= 0:
            continue
        column, row = round(u / w) - 1, round(v / w) - 1
        if (
            0 <= row < size[0]
            and 0 <= column < size[1]
            and (depth[row, column] == 0 or w < depth[row, column])
        ):
            depth[row, column] = w
    return depth


def test_a_point_falls_where_the_formula_says() -> None:
    """5 m ahead, 0.5 m left, 1 m up: camera-z 4.75, pixel (round(10 (-0.5)/4.75 + 20) - 1, …)."""
    depth = project_velodyne(np.array([[5.0, 0.5, 1.0, 0.3]]), STRAIGHT, (30, 40))

    assert np.count_nonzero(depth) == 1
    assert depth[round(15 - 10 / 4.75) - 1, round(20 - 5 / 4.75) - 1] == pytest.approx(4.75)


def test_the_scanners_own_distance_is_offered_by_name() -> None:
    """monodepth's convention: 25 cm more here."""
    points = np.array([[5.0, 0.0, 0.0, 0.0]])

    depth = project_velodyne(points, STRAIGHT, (30, 40), depth="lidar_x")

    assert depth.max() == 5


def test_halves_are_rounded_to_even_and_the_nearest_point_stays() -> None:
    """u = 20.5 goes to 20, 21.5 to 22; of two on one pixel the one in front wins, in any order."""
    near, far = [1.25, 0.0, 0.0, 0], [10.25, 0.0, 0.0, 0]
    half = [[1.25, -0.05, 0.0, 0], [1.25, -0.15, 0.0, 0]]

    for points in ([near, far], [far, near]):
        assert project_velodyne(np.array(points), STRAIGHT, (30, 40))[14, 19] == 1
    columns = project_velodyne(np.array(half), STRAIGHT, (30, 40)).nonzero()[1]
    np.testing.assert_array_equal(columns, [19, 21])


def test_points_behind_and_beside_are_dropped() -> None:
    """Behind the scanner, behind the camera, outside the picture."""
    points = np.array([[-5.0, 0, 0, 0], [0.1, 0, 0, 0], [1.25, 9, 0, 0], [1.25, 0, -9, 0]])

    assert not project_velodyne(points, STRAIGHT, (30, 40)).any()


def test_points_behind_the_scanner_are_dropped_even_before_the_camera() -> None:
    """A camera 50 cm behind the scanner sees x = -0.1 m, and it does not count; x = 0 does."""
    turned = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0.5]])
    behind = replace(STRAIGHT, tr_velo_to_cam=turned)

    depth = project_velodyne(np.array([[-0.1, 0, 0, 0], [0, 0.1, 0, 0]]), behind, (30, 40))

    np.testing.assert_array_equal(depth[depth > 0], 0.5)


def test_the_real_scanners_distance_is_a_quarter_metre_more(real_data: Path) -> None:
    """LiDAR x against camera z on the same pixels: the scanner sits 27 cm behind the camera."""
    folder = real_data / "kitti_raw/2011_09_26"
    scan = read_velodyne(next(folder.glob("*0013_sync/velodyne_points/data/*.bin")))
    calibration = load_kitti_calibration(folder)

    z, x = (project_velodyne(scan, calibration, (375, 1242), d) for d in ("camera_z", "lidar_x"))

    seen = (z > 0) & (x > 0)
    assert np.count_nonzero(seen) > 10_000
    assert np.median((x - z)[seen]) == pytest.approx(0.27, abs=0.08)


def test_a_real_scan_agrees_with_the_improved_map(real_data: Path) -> None:
    """Another program's ground truth of the same frame: most pixels of both within 5 %."""
    improved = next(
        s for s in open_dataset(real_data, ground_truth="improved") if s.name.endswith("0000000005")
    )
    drive = improved.image_path.parents[2]
    scan = read_velodyne(drive / "velodyne_points/data/0000000005.bin")

    depth = project_velodyne(scan, load_kitti_calibration(drive.parent), (375, 1242))

    reference = improved.ground_truth((375, 1242))
    both = (depth > 0) & (reference > 0)
    close = np.abs(depth - reference)[both] < 0.05 * reference[both]
    assert np.count_nonzero(both) > 5_000
    assert close.mean() > 0.97


def object_calibration(file: Path) -> KittiCalibration:
    """Return a calibration of KITTI's object benchmark, which has names of its own."""
    entries = {
        name: np.array([float(word) for word in numbers.split()])
        for name, _, numbers in (line.partition(":") for line in file.read_text().splitlines())
    }
    return KittiCalibration(
        entries["P2"].reshape(3, 4),
        entries["R0_rect"].reshape(3, 3),
        entries["Tr_velo_to_cam"].reshape(3, 4),
    )


def test_every_real_scan_covers_its_image_as_scans_do(real_data: Path) -> None:
    """Four per cent of the pixels, next to none in the upper quarter, the lower ones nearer."""
    maps = [sample.ground_truth((375, 1242)) for sample in open_dataset(real_data / "kitti_raw")]
    folder = real_data / "kitti_object/training"
    for scan in sorted(folder.glob("velodyne/*.bin")):
        height, width, _ = read_image(folder / f"image_2/{scan.stem}.png").shape
        calibration = object_calibration(folder / f"calib/{scan.stem}.txt")
        maps.append(project_velodyne(read_velodyne(scan), calibration, (height, width)))

    assert len(maps) == 18
    for depth in maps:
        height = depth.shape[0]
        assert 0.03 < np.mean(depth > 0) < 0.06
        assert np.mean(depth[: height // 4] > 0) < 0.005
        middle, low = (depth[height * a // 10 : height * b // 10] for a, b in ((4, 6), (8, 10)))
        assert np.median(low[low > 0]) < np.median(middle[middle > 0])


def test_encodings_of_one_real_frame_agree(real_data: Path) -> None:
    """The same depth in millimetres and in tenths of them, filled and raw: within 1 %."""
    folder = real_data / "nyu_pairs"
    millimetres = read_depth(folder / "nyu2_test/00000_depth.png", ENCODINGS["uint16_mm"])
    tenths = cv2.imread(
        str(folder / "misc/depth2hha_frame00000_rawdepth_x10000.png"), cv2.IMREAD_UNCHANGED
    )
    filled, raw = (
        read_depth(folder / f"misc/rcnndepth_{name}_mm_425x560.png", ENCODINGS["uint16_mm"])
        for name in ("depth", "rawdepth")
    )
    assert tenths is not None
    for first, second in ((millimetres, tenths / 1e4), (filled, raw)):
        both = (first > 0) & (second > 0)
        ratio = first[both] / second[both]
        assert both.mean() > 0.5
        assert np.median(ratio) == pytest.approx(1, abs=1e-3)
        assert np.mean(np.abs(ratio - 1) < 0.01) > 0.97


def test_a_real_scan_is_projected_as_point_by_point(real_data: Path) -> None:
    """Every 40th point of a real scan, against plain Python."""
    folder = real_data / "kitti_raw/2011_09_26"
    scan = read_velodyne(next(folder.glob("*0013_sync/velodyne_points/data/*.bin")))[::40]
    calibration = load_kitti_calibration(folder)

    depth = project_velodyne(scan, calibration, (375, 1242))

    np.testing.assert_allclose(depth, project_one_by_one(scan, calibration, (375, 1242)), rtol=1e-6)
    assert np.count_nonzero(depth) > 300


@pytest.mark.parametrize(
    ("encoding", "stored", "metres"),
    [
        (ENCODINGS["uint8_10m"], np.uint8(255), 10.0),
        (ENCODINGS["uint8_10m"], np.uint8(51), 2.0),
        (ENCODINGS["uint16_mm"], np.uint16(1234), 1.234),
        (ENCODINGS["uint16_256"], np.uint16(2560), 10.0),
    ],
)
def test_units_are_those_the_data_set_declares(
    tmp_path: Path, encoding: DepthEncoding, stored: np.generic, metres: float
) -> None:
    """A map of one value and a hole."""
    pixels = np.full((4, 5), stored)
    pixels[0, 0] = 0
    cv2.imwrite(str(tmp_path / "depth.png"), pixels)

    depth = read_depth(tmp_path / "depth.png", encoding)

    assert depth[0, 0] == 0
    assert depth[1, 1] == pytest.approx(metres)


def test_a_map_of_another_type_or_without_depth_is_refused(tmp_path: Path) -> None:
    """Units are declared, never guessed."""
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((4, 5), 900, np.uint16))
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros((4, 5), np.uint8))

    with pytest.raises(MsfnetError, match="declares uint8"):
        read_depth(tmp_path / "wide.png", ENCODINGS["uint8_10m"])
    with pytest.raises(MsfnetError, match="no depth at all"):
        read_depth(tmp_path / "empty.png", ENCODINGS["uint8_10m"])


def test_what_is_no_scan_is_refused(tmp_path: Path) -> None:
    """Missing, cut off, and not finite."""
    (tmp_path / "cut.bin").write_bytes(b"123456789")
    np.full((2, 4), np.inf, "<f4").tofile(tmp_path / "infinite.bin")

    for name, message in (
        ("none.bin", "none.bin"),
        ("cut.bin", "multiple of 16"),
        ("infinite.bin", "not finite"),
    ):
        with pytest.raises(MsfnetError, match=message):
            read_velodyne(tmp_path / name)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("calib_velo_to_cam.txt", "T: 0 0", "lacks T of 3"),
        ("calib_velo_to_cam.txt", "R: 1 0 0 0 nan 0 0 0 1", "lacks R of 9"),
        ("calib_cam_to_cam.txt", "P_rect_02: 9 0 5 0 0 9 nan 0 0 0 1 0", "lacks P_rect_02 of 12"),
        ("calib_cam_to_cam.txt", "R_rect_00: 1 2 3", "lacks R_rect_00 of 9"),
        ("calib_cam_to_cam.txt", "S_rect_02: 10", "lacks S_rect_02 of 2"),
        ("calib_cam_to_cam.txt", "S_rect_02: 0 -5", "S_rect_02 is not the size"),
    ],
)
def test_a_calibration_without_an_entry_is_refused(
    tmp_path: Path, file: str, line: str, message: str
) -> None:
    """The line names the file, the entry and how many numbers it has."""
    unit = "1 0 0 0 1 0 0 0 1"
    whole = {
        "calib_cam_to_cam.txt": {
            "P_rect_02": "9 0 5 0 0 9 5 0 0 0 1 0",
            "R_rect_00": unit,
            "S_rect_02": "10 8",
        },
        "calib_velo_to_cam.txt": {"R": unit, "T": "0 0 0"},
    }
    for name, entries in whole.items():
        text = "".join(f"{key}: {numbers}\n" for key, numbers in entries.items())
        (tmp_path / name).write_text(text)
    assert load_kitti_calibration(tmp_path).size == (8, 10)

    key = line.partition(":")[0]
    text = (tmp_path / file).read_text().replace(f"{key}: {whole[file][key]}", line)
    (tmp_path / file).write_text(text)
    with pytest.raises(MsfnetError, match=rf"{file}:? {message}"):
        load_kitti_calibration(tmp_path)


def test_the_real_calibration_is_read(real_data: Path) -> None:
    """Focal length and baseline as printed in the file."""
    calibration = load_kitti_calibration(real_data / "kitti_raw/2011_09_26")

    assert calibration.p_rect[0, 0] == pytest.approx(721.5377)
    assert calibration.tr_velo_to_cam[2, 3] == pytest.approx(-0.2717806)
    np.testing.assert_allclose(
        calibration.r_rect_00 @ calibration.r_rect_00.T, np.eye(3), atol=1e-4
    )


@pytest.mark.parametrize("content", ["zip", "size"])
def test_an_array_file_that_lies_about_itself_is_one_line(tmp_path: Path, content: str) -> None:
    """Half an archive, or a header of more numbers than any memory holds."""
    file = tmp_path / "depth.npy"
    np.save(file, np.ones((3, 3), np.float32))
    whole = file.read_bytes()
    huge = whole.replace(b"(3, 3)", b"(9999999999, 99999)")
    file.write_bytes(b"PK\x03\x04 and no more" if content == "zip" else huge)

    with pytest.raises(MsfnetError, match=r"depth\.npy is not a readable array"):
        read_depth(file, ENCODINGS["float32_m"])


def test_a_missing_exr_is_not_called_unreadable_by_opencv(tmp_path: Path) -> None:
    """Converting a file that is absent would not help."""
    with pytest.raises(MsfnetError, match=r"none\.exr") as caught:
        read_depth(tmp_path / "none.exr", ENCODINGS["float32_m"])
    assert "convert" not in str(caught.value)


def test_an_array_beyond_the_limit_of_pictures_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header gives the shape; nothing is read."""
    np.save(tmp_path / "depth.npy", np.full((600, 900), 2, np.float32))
    monkeypatch.setenv("MSFNET_MAX_MEGAPIXELS", "0.5")
    with pytest.raises(MsfnetError, match=r"depth\.npy is 900x600.*MSFNET_MAX_MEGAPIXELS"):
        read_stored(tmp_path / "depth.npy")


def test_an_archive_of_arrays_is_no_depth(tmp_path: Path) -> None:
    with (tmp_path / "depth.npy").open("wb") as file:
        np.savez(file, depth=np.full((6, 9), 2, np.float32))
    with pytest.raises(MsfnetError, match=r"depth\.npy is not a readable array"):
        read_stored(tmp_path / "depth.npy")
