"""Frames of another size than their calibration: resized ones are scaled, crops are refused."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_datasets import open_dataset
from msfnet_datasets.bad_data import find_bad
from msfnet_runtime import CameraIntrinsics, Frame, MsfnetError
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.sources import open_source
from msfnet_runtime.sources.nyu import INTRINSICS
from msfnet_runtime.types import resize_scales

KITTI = (375, 1242)
"""Height and width."""
FOCAL, CENTRE = 721.5, (609.6, 172.9)
RESIZED = [(188, 621), (192, 640), (320, 1024), (128, 416), (750, 2484)]
CROPPED = [(352, 1216), (176, 608), (370, 1242), (375, 1224), (370, 1226), (376, 1242), (480, 640)]


@pytest.mark.parametrize("size", RESIZED)
@pytest.mark.parametrize("original", [KITTI, (376, 1241), (370, 1226), (370, 1224), (374, 1238)])
def test_the_usual_sizes_of_networks_are_resizes_of_every_kitti_size(
    size: tuple[int, int], original: tuple[int, int]
) -> None:
    assert resize_scales(size, original) == (size[0] / original[0], size[1] / original[1])


@pytest.mark.parametrize("size", [*CROPPED, (1242, 375), (353, 1218), (384, 1248), (256, 512)])
def test_a_size_that_can_be_a_crop_is_none(size: tuple[int, int]) -> None:
    """Known crops, cuts of a side, padding to multiples of 32, and other aspects."""
    assert resize_scales(size, KITTI) is None


@pytest.mark.parametrize("size", [(427, 561), (426, 560), (228, 304), (440, 592), (416, 544)])
def test_the_crops_of_nyu_have_no_camera(tmp_path: Path, size: tuple[int, int]) -> None:
    """Half of the whole image has one."""
    (tmp_path / "data").mkdir()
    for name, shape in (("crop", size), ("half", (240, 320))):
        cv2.imwrite(str(tmp_path / f"data/{name}.png"), np.full((*shape, 3), 80, np.uint8))
    rows = "".join(f"data/{name}.png,data/{name}.png\n" for name in ("crop", "half"))
    (tmp_path / "data/nyu2_val.csv").write_text(rows)

    crop, half = (sample.frame().intrinsics for sample in open_dataset(tmp_path, "nyu"))

    assert crop is None
    assert half == INTRINSICS.scaled(240, 320)


def write_drive(root: Path, *sizes: tuple[int, int]) -> NDArray[np.float32]:
    """Write a KITTI drive with a frame of each size, and return the points of its scans (N, 4)."""
    drive = root / "2011_09_26/2011_09_26_drive_0001_sync"
    rng = np.random.default_rng(5)
    points = rng.uniform((4, -9, -2, 0), (40, 9, 2, 1), (4000, 4)).astype(np.float32)
    for folder in ("image_02/data", "velodyne_points/data"):
        (drive / folder).mkdir(parents=True)
    for index, size in enumerate(sizes):
        name = f"{index:010d}"
        image = np.full((*size, 3), 80, np.uint8)
        assert cv2.imwrite(str(drive / f"image_02/data/{name}.png"), image)
        points.tofile(drive / f"velodyne_points/data/{name}.bin")
    (drive.parent / "calib_cam_to_cam.txt").write_text(
        f"S_rect_02: {KITTI[1]} {KITTI[0]}\nR_rect_00: 1 0 0 0 1 0 0 0 1\n"
        f"P_rect_02: {FOCAL} 0 {CENTRE[0]} 0 0 {FOCAL} {CENTRE[1]} 0 0 0 1 0\n"
    )
    (drive.parent / "calib_velo_to_cam.txt").write_text(
        "R: 0 -1 0 0 0 -1 1 0 0\nT: 0 -0.08 -0.27\n"
    )
    return points


def project(points: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float64]:
    """Project a scan point by point, as the pixel of a resized image covers the whole image's."""
    scale_y, scale_x = size[0] / KITTI[0], size[1] / KITTI[1]
    depth = np.zeros(size)
    for x, y, z, _ in points.astype(float):
        ahead, right, down = x - 0.27, -y, -z - 0.08
        whole = FOCAL * right / ahead + CENTRE[0], FOCAL * down / ahead + CENTRE[1]
        column, row = (whole[0] + 0.5) * scale_x - 0.5, (whole[1] + 0.5) * scale_y - 0.5
        place = round(row) - 1, round(column) - 1
        if 0 <= place[0] < size[0] and 0 <= place[1] < size[1]:
            depth[place] = min(depth[place] or np.inf, ahead)
    return depth


@pytest.mark.parametrize("size", [KITTI, *RESIZED[:3]])
def test_scans_are_projected_into_resized_frames(tmp_path: Path, size: tuple[int, int]) -> None:
    points = write_drive(tmp_path, size)
    (sample,) = open_dataset(tmp_path, "kitti")

    depth, expected = sample.ground_truth(size), project(points, size)

    assert np.count_nonzero(expected) > 1000
    np.testing.assert_allclose(depth, expected, rtol=1e-6)
    assert not find_bad([sample])


@pytest.mark.parametrize("size", CROPPED)
def test_a_scan_is_never_projected_into_a_crop(tmp_path: Path, size: tuple[int, int]) -> None:
    """Readers of ground truth and checks refuse it; the line has the file and both sizes."""
    write_drive(tmp_path, size)
    samples = open_dataset(tmp_path, "kitti")
    line = rf"0000000000\.bin: .*{size[1]}x{size[0]}.*1242x375"

    with pytest.raises(MsfnetError, match=line):
        samples[0].ground_truth(size)
    (bad,) = find_bad(samples)
    assert f"{size[1]}x{size[0]}" in bad.reason


def test_a_drive_of_several_sizes_has_a_camera_for_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cropped frame is streamed without a camera, which is said once."""
    write_drive(tmp_path, KITTI, (188, 621), (352, 1216))
    with open_source(tmp_path) as source:
        cameras = [frame.intrinsics for frame in source]

    assert cameras[0] == CameraIntrinsics(FOCAL, FOCAL, *CENTRE, 1242, 375)
    assert cameras[1] == cameras[0].scaled(188, 621)
    assert cameras[2] is None
    assert "1216x352 and may be cropped" in caplog.text
    assert [s.frame().intrinsics for s in open_dataset(tmp_path, "kitti")] == cameras


def write_pairs(root: Path, size: tuple[int, int], **camera: object) -> None:
    for folder in ("rgb", "depth"):
        (root / folder).mkdir(parents=True)
    cv2.imwrite(str(root / "rgb/0.png"), np.full((*size, 3), 80, np.uint8))
    cv2.imwrite(str(root / "depth/0.png"), np.full(size, 2500, np.uint16))
    (root / "camera.json").write_text(json.dumps(camera))


CAMERA = {"fx": 50.0, "fy": 51.0, "cx": 39.0, "cy": 30.0, "width": 80, "height": 60}


def test_a_declared_camera_is_scaled_to_resized_frames(tmp_path: Path) -> None:
    """Half a pixel of the whole image is a quarter of the half image's."""
    write_pairs(tmp_path, (30, 40), depth="uint16_mm", **CAMERA)
    expected = CameraIntrinsics(25, 25.5, 19.25, 14.75, 40, 30)

    with open_source(tmp_path) as source:
        assert [frame.intrinsics for frame in source] == [expected]
    (sample,) = open_dataset(tmp_path, split="all")
    assert sample.frame().intrinsics == expected
    assert sample.ground_truth((30, 40)).max() == 2.5


@pytest.mark.parametrize("size", [(56, 80), (40, 80), (80, 60), (54, 72)])
def test_a_declared_camera_is_never_that_of_a_crop(tmp_path: Path, size: tuple[int, int]) -> None:
    """The declaration is wrong, so that neither a source nor a data set goes on."""
    write_pairs(tmp_path, size, depth="uint16_mm", **CAMERA)

    line = rf"rgb/0\.png is {size[1]}x{size[0]} .*80x60"
    with pytest.raises(MsfnetError, match=line), open_source(tmp_path) as source:
        list(source)
    with pytest.raises(MsfnetError, match=line):
        open_dataset(tmp_path, split="all")[0].ground_truth(size)


def test_an_odometry_calibration_is_of_the_benchmarks_sizes(tmp_path: Path) -> None:
    """It names no size, so that nothing proves a resize of its images."""
    for name, size in (("whole", (370, 1226)), ("half", (185, 613))):
        write_pairs(tmp_path / name, size)
        (tmp_path / name / "camera.json").unlink()
        (tmp_path / name / "calib.txt").write_text("P2: 707 0 601 46 0 707 183 0 0 0 1 0\n")

    (sample,) = open_dataset(tmp_path / "whole", split="all")
    assert sample.frame().intrinsics == CameraIntrinsics(707, 707, 601, 183, 1226, 370)
    with pytest.raises(MsfnetError, match=r"613x185, and .*calib\.txt .*camera\.json"):
        open_dataset(tmp_path / "half", split="all")


def test_a_camera_of_another_picture_gives_no_point_cloud() -> None:
    """Frames of one's own program are held to the same rule."""
    camera = CameraIntrinsics(50, 51, 39, 30, 80, 60)
    whole, crop = (Frame(np.zeros((*s, 3), np.uint8), 7, 0, camera) for s in ((30, 40), (60, 64)))

    assert SinkOptions().camera(whole) == camera.scaled(30, 40)
    with pytest.raises(MsfnetError, match=r"frame 7 is 64x60 .*80x60"):
        SinkOptions().camera(crop)
