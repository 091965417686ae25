"""The layout ``folder``: anybody's own pairs of images and depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_datasets import open_dataset
from msfnet_datasets.check import check_data
from msfnet_datasets.layouts import LAYOUTS, Layout, open_frames, open_training_frames, recognise
from msfnet_runtime import CameraIntrinsics, MsfnetError
from msfnet_runtime.depth_storage import DepthStorage
from msfnet_runtime.sources import open_source

METRES = np.linspace(0.5, 6, 48, dtype=np.float32).reshape(6, 8)
MILLIMETRES = np.rint(METRES * 1000).astype(np.uint16)


def write(path: Path, pixels: NDArray[Any]) -> Path:
    """Write an image or an array, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        assert cv2.imwrite(str(path), pixels)
    return path


def write_pair(root: Path, image: str, depth: str, stored: NDArray[Any] = MILLIMETRES) -> None:
    """Write an image whose three channels differ, and its depth."""
    write(root / image, np.full((6, 8, 3), (30, 60, 90), np.uint8))
    write(root / depth, stored)


def declare(root: Path, **values: object) -> None:
    """Write ``camera.json``."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "camera.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("image", "depth", "name"),
    [
        ("rgb/a.jpg", "depth/a.png", "a"),
        ("image/a.png", "depth/a.npy", "a"),
        ("images/a.png", "depths/a.tiff", "a"),
        ("color/frame-1.color.jpg", "depth/frame-1.depth.png", "frame-1.color"),
        ("colour/a.bmp", "depth/a_depth.png", "a"),
        ("a_rgb.png", "a_depth.png", "a_rgb"),
        ("a-color.png", "a-depth.png", "a-color"),
        ("frame-000000.color.png", "frame-000000.depth.png", "frame-000000.color"),
        ("00012_colors.png", "00012_depth.png", "00012_colors"),
        ("rgb_0001.jpg", "depth_0001.png", "rgb_0001"),
        ("a.jpg", "a.png", "a"),
        ("a.png", "a.npy", "a"),
        ("kitchen/rgb/a.jpg", "kitchen/depth/a.png", "kitchen/a"),
        ("kitchen/a_rgb.png", "kitchen/a_depth.png", "kitchen/a_rgb"),
    ],
)
def test_pairs_are_found_by_their_names(tmp_path: Path, image: str, depth: str, name: str) -> None:
    """Folders, words in the name, or one stem; a source yields the image and never the depth."""
    write_pair(tmp_path, image, depth)
    declare(tmp_path, depth="uint16_mm")

    layout = recognise(tmp_path)
    (sample,) = open_dataset(tmp_path, split="all")
    with open_source(tmp_path) as source:
        frames = list(source)

    assert layout is LAYOUTS["folder"]
    assert (sample.name, sample.image_path, sample.depth_path) == (
        name,
        tmp_path / image,
        tmp_path / depth,
    )
    np.testing.assert_allclose(sample.ground_truth((6, 8)), METRES, atol=6e-4)
    assert [frame.name for frame in frames] == [name]
    np.testing.assert_array_equal(frames[0].image, sample.frame().image)


def test_patterns_may_be_declared(tmp_path: Path) -> None:
    """The ``*`` is the frame's name; what matches on one side alone has no depth."""
    for name in ("2", "10"):
        write_pair(tmp_path, f"cam0/{name}_left.png", f"gt/{name}.png")
    write(tmp_path / "cam0/3_left.png", np.full((6, 8, 3), 9, np.uint8))
    declare(tmp_path, depth="uint16_mm", images="cam0/*_left.png", depths="gt/*.png")

    assert [s.name for s in open_dataset(tmp_path, "folder", "all")] == ["2", "10"]
    (part,) = check_data(tmp_path).lists
    assert (part.frames, part.listed, part.unmeasured) == (2, 3, (f"{tmp_path}/cam0/3_left.png",))
    with open_source(tmp_path) as source:
        assert [frame.name for frame in source] == ["2", "3", "10"]


@pytest.mark.parametrize(
    ("suffix", "stored", "camera"),
    [
        (".png", MILLIMETRES, {"depth": "uint16_mm"}),
        (".tiff", MILLIMETRES, {"depth": "uint16_mm"}),
        (".npy", MILLIMETRES, {"depth": "uint16_mm"}),
        (".png", np.rint(METRES * 256).astype(np.uint16), {"depth": "uint16_256"}),
        (".png", np.rint(METRES * 25.5).astype(np.uint8), {"depth": "uint8_10m"}),
        (".png", np.rint(METRES * 5000).astype(np.uint16), {"counts_per_metre": 5000}),
        (".npy", np.rint(METRES * 1000).astype(np.int32), {"counts_per_metre": 1000}),
        (".npy", METRES * 1000, {"counts_per_metre": 1000}),
        (".npy", METRES, {}),
        (".npy", METRES.astype(np.float64), {}),
        (".npy", METRES.astype(np.float16), {"depth": "float32_m"}),
        (".tiff", METRES, {}),
    ],
)
def test_every_storage_is_read_as_declared(
    tmp_path: Path, suffix: str, stored: NDArray[Any], camera: dict[str, object]
) -> None:
    """To half a count; 0 is none. Floats are metres without being declared."""
    stored = stored.copy()
    stored[0, 0] = 0
    write_pair(tmp_path, "rgb/a.png", f"depth/a{suffix}", stored)
    if camera:
        declare(tmp_path, **camera)

    (sample,) = open_dataset(tmp_path, split="all")
    depth = sample.ground_truth((6, 8))

    assert depth.dtype == np.float32
    assert depth[0, 0] == 0
    np.testing.assert_allclose(depth.ravel()[1:], METRES.ravel()[1:], atol=0.5 / 25.5)


def test_storage_can_be_named_by_the_caller(tmp_path: Path) -> None:
    """Before what ``camera.json`` says."""
    write_pair(tmp_path, "rgb/a.png", "depth/a.png", np.full((6, 8), 512, np.uint16))
    declare(tmp_path, depth="uint16_mm")
    storages: tuple[DepthStorage | None, ...] = (None, "uint16_256")

    depths = [
        open_dataset(tmp_path, split="all", depth=storage)[0].ground_truth((6, 8)).max()
        for storage in storages
    ]

    assert depths == pytest.approx([0.512, 2])


def test_what_was_not_measured_is_none(tmp_path: Path) -> None:
    """NaN, infinity, negative depth, and what lies outside the declared range."""
    stored = np.full((6, 8), 3, np.float32)
    stored[0, :5] = np.nan, np.inf, -np.inf, -2, 0
    stored[1, :2] = 0.1, 9
    write_pair(tmp_path, "rgb/a.png", "depth/a.npy", stored)
    declare(tmp_path, range_m=[0.3, 8])

    depth = open_dataset(tmp_path, split="all")[0].ground_truth((6, 8))

    assert np.count_nonzero(depth) == 48 - 7
    assert set(np.unique(depth)) == {0, 3}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_whole_numbers_without_a_unit_are_refused(tmp_path: Path, dtype: type[np.generic]) -> None:
    """The line names the file and what to write where."""
    write_pair(tmp_path, "rgb/a.png", "depth/a.png", np.full((6, 8), 90, dtype))

    with pytest.raises(MsfnetError) as caught:
        open_dataset(tmp_path)

    for noun in (
        "depth/a.png",
        np.dtype(dtype).name,
        "camera.json",
        '"uint16_mm"',
        "counts_per_metre",
    ):
        assert noun in str(caught.value)


def test_a_camera_file_without_a_unit_means_millimetres_and_the_check_says_so(
    tmp_path: Path,
) -> None:
    """The convention of RGB-D cameras, for 16 bits alone."""
    write_pair(tmp_path, "rgb/a.png", "depth/a.png")
    declare(tmp_path, fx=9.5, fy=9, cx=3.5, cy=2.5, width=8, height=6)

    (sample,) = open_dataset(tmp_path, split="all")
    (part,) = check_data(tmp_path).lists

    np.testing.assert_allclose(sample.ground_truth((6, 8)), METRES, atol=6e-4)
    assert sample.frame().intrinsics == CameraIntrinsics(9.5, 9, 3.5, 2.5, 8, 6)
    assert part.depth is not None
    assert part.depth.unit == "uint16, millimetres, because camera.json names no unit"
    write(tmp_path / "depth/a.png", np.full((6, 8), 90, np.uint8))
    with pytest.raises(MsfnetError, match="nothing says its unit"):
        open_dataset(tmp_path)


def test_sizes_may_differ_only_where_declared(tmp_path: Path) -> None:
    """Else both files and both sizes are named; nearest, so that no depth is invented."""
    write_pair(tmp_path, "rgb/a.png", "depth/a.npy", METRES[::2, ::2].copy())

    with pytest.raises(MsfnetError, match=r"a\.npy is \(3, 4\), its image .*a\.png \(6, 8\)"):
        open_dataset(tmp_path, split="all")[0].ground_truth((6, 8))
    declare(tmp_path, depth_width=4, depth_height=3)
    depth = open_dataset(tmp_path, split="all")[0].ground_truth((6, 8))

    np.testing.assert_array_equal(depth, METRES[::2, ::2].repeat(2, 0).repeat(2, 1))


def test_without_lists_the_last_frames_of_every_scene_are_held_out(tmp_path: Path) -> None:
    """A tenth, at least one; calibration reads the others."""
    for scene, count in (("hall", 12), ("kitchen", 3)):
        for index in range(count):
            write_pair(tmp_path, f"{scene}/rgb/{index}.jpg", f"{scene}/depth/{index}.png")
    declare(tmp_path, depth="uint16_mm")

    names = {
        split: [s.name for s in open_dataset(tmp_path, split=split)]
        for split in ("train", "val", "all", None)
    }
    with open_training_frames(str(tmp_path)) as source:
        calibrated = [frame.name for frame in source]

    assert names["val"] == names[None] == ["hall/11", "kitchen/2"]
    assert len(names["all"]) == 15
    assert sorted(names["train"] + names["val"]) == sorted(names["all"])
    assert calibrated == names["train"]
    assert source.length == 13


def test_lists_decide_where_there_are_some(tmp_path: Path) -> None:
    """Rows start at the list's folder; the test list is scored on, the training list calibrated."""
    for name in "abc":
        write_pair(tmp_path, f"pictures/{name}.jpg", f"maps/{name}.png")
    declare(tmp_path, depth="uint16_mm")
    for split, name in (("train", "a"), ("val", "b"), ("test", "c")):
        (tmp_path / f"{split}.csv").write_text(f"pictures/{name}.jpg,maps/{name}.png\n")

    def names(split: str | None) -> list[str]:
        return [sample.name for sample in open_dataset(tmp_path, split=split)]

    assert names(None) == names("test") == ["pictures/c"]
    assert names("all") == ["pictures/a", "pictures/b", "pictures/c"]
    assert [part.name for part in check_data(tmp_path).lists] == [
        f"list {name}" for name in ("train", "val", "test")
    ]
    with open_source(tmp_path / "val.csv") as source:
        assert [frame.name for frame in source] == ["pictures/b"]
    for open_list, wanted in (
        (open_training_frames(str(tmp_path)), "pictures/a"),
        (open_training_frames(str(tmp_path), "test"), "pictures/c"),
        (open_frames(str(tmp_path), "val"), "pictures/b"),
    ):
        with open_list as source:
            assert [frame.name for frame in source] == [wanted]
    with pytest.raises(MsfnetError, match="no list middle; choose one of train, val, test"):
        names("middle")


@pytest.mark.parametrize(
    ("camera", "words"),
    [
        ({"fx": 1}, "fx, fy, cx, cy, width, height go together"),
        ({"depth_width": 3}, "depth_width, depth_height go together"),
        ({"images": "a/*.png"}, "images, depths go together"),
        ({"images": "a/b.png", "depths": "c/*"}, "one * each"),
        ({"images": "/a/*.png", "depths": "c/*"}, "start at the folder"),
        ({"depth": "uint16_mm", "counts_per_metre": 5}, "exclude each other"),
        ({"counts_per_metre": -5}, "must be positive"),
        ({"range_m": [5, 1]}, "range_m"),
        ({"depth": "feet"}, "depth in"),
        ({"dept": "uint16_mm"}, "did you mean depth"),
    ],
)
def test_a_camera_file_that_does_not_fit_is_one_line(
    tmp_path: Path, camera: dict[str, object], words: str
) -> None:
    """It names the file and the key."""
    write_pair(tmp_path, "rgb/a.png", "depth/a.png")
    declare(tmp_path, **camera)

    with pytest.raises(MsfnetError) as caught:
        open_dataset(tmp_path)

    assert words in str(caught.value)
    assert "camera.json" in str(caught.value)


def test_what_is_no_data_set_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    """Images alone are no RGB-D data, and RGB-D data is not scored as NYU."""
    write(tmp_path / "plain/a.jpg", np.full((6, 8, 3), 9, np.uint8))
    write(tmp_path / "plain/a.png", np.full((6, 8, 3), 9, np.uint8))
    write_pair(tmp_path, "own/rgb/a.png", "own/depth/a.npy", METRES)
    (tmp_path / "own/depth/a.npy").unlink()
    (tmp_path / "cut").mkdir()
    write_pair(tmp_path, "cut/rgb/a.png", "cut/depth/a.npy", METRES)
    (tmp_path / "cut/depth/a.npy").write_bytes(b"no array")

    with open_source(tmp_path / "plain") as source:
        assert source.length == 2
    for name, words in (("plain", "rgb/NAME.jpg"), ("own", "rgb/NAME.jpg"), ("cut", "a.npy")):
        with pytest.raises(MsfnetError, match=words):
            open_dataset(tmp_path / name)
    write_pair(tmp_path, "own/rgb/a.png", "own/depth/a.npy", METRES)
    with pytest.raises(MsfnetError, match="is RGB-D pairs, which has no nyu_depth depth"):
        open_dataset(tmp_path / "own", ground_truth="nyu_depth")
    with pytest.raises(MsfnetError, match="choose uint8_10m or"):
        check_data(tmp_path / "own", depth="velodyne", layout="folder")


def test_exr_is_read_where_opencv_can(tmp_path: Path) -> None:
    """Elsewhere the line says what to convert it to."""
    write(tmp_path / "rgb/a.png", np.full((6, 8, 3), 9, np.uint8))
    (tmp_path / "depth").mkdir()
    file = tmp_path / "depth/a.exr"
    if cv2.haveImageWriter(str(file)):
        write(file, METRES)
        np.testing.assert_array_equal(open_dataset(tmp_path)[0].ground_truth((6, 8)), METRES)
    else:
        file.write_bytes(b"v/1\x01")
        with pytest.raises(MsfnetError, match=r"a\.exr here; convert it to \.npy"):
            open_dataset(tmp_path)


def test_every_layout_is_in_the_table_under_its_name() -> None:
    """The type that recipes and options take lists the same names, in the same order."""
    assert tuple(LAYOUTS) == Layout.__args__  # type: ignore[attr-defined]  # a Literal has them
    for layout in LAYOUTS.values():
        assert layout.ground_truths
        assert layout.title
        assert layout.expects


@pytest.mark.parametrize(
    ("name", "count", "counts_per_metre", "size"),
    [
        ("tum_fr1_rpy", 91, 1000, (240, 320)),
        ("7scenes_redkitchen", 100, 1000, (240, 320)),
        ("hololens_dvmvs", 94, 1000, (213, 320)),
        ("kitti_odometry04", 51, 256, (370, 1226)),
    ],
)
def test_real_rgbd_folders_are_read_as_they_are(
    real_data: Path, name: str, count: int, counts_per_metre: int, size: tuple[int, int]
) -> None:
    """Four cameras: the same pairs, pixels, metres and intrinsics as read by OpenCV alone."""
    root = real_data / "rgbd" / name

    samples = open_dataset(root, split="all")

    assert len(samples) == count
    for sample in samples[:: count // 5]:
        stored = cv2.imread(str(root / f"depth/{sample.name}.png"), cv2.IMREAD_UNCHANGED)
        (image,) = root.glob(f"*/{sample.name}.jpg")
        colours = cv2.imread(str(image))
        assert stored is not None
        assert colours is not None
        frame = sample.frame()
        np.testing.assert_array_equal(frame.image, colours[..., ::-1])
        np.testing.assert_allclose(sample.ground_truth(size), stored / counts_per_metre, rtol=1e-6)
        camera = frame.intrinsics
        assert camera is not None
        assert (camera.height, camera.width) == size
    camera = samples[0].intrinsics
    assert camera is not None
    if (root / "camera.json").is_file():
        assert camera.fx == json.loads((root / "camera.json").read_text())["fx"]
    else:
        assert camera.fx == pytest.approx(707.0912)
        assert camera.cy == pytest.approx(183.1104)
    with open_source(root) as source:
        assert source.length == count
    outdoors = name.startswith("kitti")
    assert check_data(root).protocol == ("outdoor" if outdoors else "indoor")


def test_a_camera_file_that_does_not_fit_is_an_error_of_the_stream_too(tmp_path: Path) -> None:
    """Otherwise the folder would be read as images, and its depth with them."""
    for name in ("1_rgb.png", "1_depth.png"):
        cv2.imwrite(str(tmp_path / name), np.full((8, 8), 7, np.uint16))
    (tmp_path / "camera.json").write_text('{"dept": "uint16_mm"}')

    with pytest.raises(MsfnetError, match=r"unknown key dept in .*camera\.json"):
        open_source(tmp_path)


def test_a_bracket_in_a_pattern_stands_for_itself(tmp_path: Path) -> None:
    """Only the * is a wildcard, so names are what it stands for."""
    for name in ("a", "b"):
        write_pair(tmp_path, f"camera[1]/{name}.png", f"depth/{name}.png")
    declare(tmp_path, images="camera[1]/*.png", depths="depth/*.png", depth="uint16_mm")

    assert [sample.name for sample in open_dataset(tmp_path, split="all")] == ["a", "b"]


def test_a_list_that_names_an_image_elsewhere_is_one_line(tmp_path: Path) -> None:
    """The line names the list and the image."""
    write_pair(tmp_path, "elsewhere/a.png", "elsewhere/a_depth.png")
    declare(tmp_path / "own", depth="uint16_mm")
    row = f"{tmp_path}/elsewhere/a.png,{tmp_path}/elsewhere/a_depth.png\n"
    (tmp_path / "own/train.csv").write_text(row)

    with pytest.raises(MsfnetError, match=r"train\.csv: .*elsewhere/a\.png is outside"):
        open_dataset(tmp_path / "own", split="train")


@pytest.mark.parametrize(
    "numbers", ["700 0 5 0 0 700 5", "0 0 5 0 0 0 5 0 0 0 1 0", "700 0 nan 0 0 700 5 0 0 0 1 0"]
)
def test_an_odometry_calibration_without_a_camera_is_one_line(tmp_path: Path, numbers: str) -> None:
    """Too few numbers, no focal length, or a centre that is not finite; the line names the file."""
    write_pair(tmp_path, "image/a.png", "depth/a.png")
    (tmp_path / "calib.txt").write_text(f"P2: {numbers}\n")

    with pytest.raises(MsfnetError, match=r"calib\.txt .*; replace it"):
        open_dataset(tmp_path, "folder")


def test_a_set_with_nothing_to_hold_out_has_no_list_to_score(tmp_path: Path) -> None:
    """The same frames are never trained on and scored; every frame can be asked for."""
    for scene in ("hall", "kitchen"):
        write_pair(tmp_path, f"{scene}/rgb/0.jpg", f"{scene}/depth/0.png")
    declare(tmp_path, depth="uint16_mm")

    for split in (None, "val", "test"):
        with pytest.raises(MsfnetError, match=r"no scene .* has two frames.*all") as raised:
            open_dataset(tmp_path, split=split)
        assert raised.value.parameter == "split"
    for split in ("train", "all"):
        assert [s.name for s in open_dataset(tmp_path, split=split)] == ["hall/0", "kitchen/0"]


@pytest.mark.parametrize("content", ['{"fx": "wide"}', '{"dept": "uint16_mm"}', "no JSON"])
def test_a_camera_file_of_a_scene_that_does_not_fit_is_never_passed_over(
    tmp_path: Path, content: str
) -> None:
    """Otherwise the scene's depth would be read as images; the line names the file."""
    for scene in ("hall", "kitchen"):
        write_pair(tmp_path, f"{scene}/0.jpg", f"{scene}/0.png")
    write(tmp_path / "cover.png", np.full((6, 8, 3), 9, np.uint8))
    (tmp_path / "kitchen/camera.json").write_text(content)

    for root in (tmp_path, tmp_path / "kitchen"):
        with pytest.raises(MsfnetError, match=r"kitchen/camera\.json"):
            open_source(root)
        with pytest.raises(MsfnetError, match=r"kitchen/camera\.json"):
            open_dataset(root, split="all")


@pytest.mark.parametrize(
    "values",
    [
        {"fx": float("inf")},
        {"fy": float("nan")},
        {"cx": float("nan")},
        {"cy": float("-inf")},
        {"counts_per_metre": float("inf")},
        {"range_m": [0.1, float("inf")]},
    ],
)
def test_a_camera_file_with_values_that_are_not_finite_is_refused(
    tmp_path: Path, values: dict[str, object]
) -> None:
    camera = {"fx": 5.0, "fy": 5.0, "cx": 3.5, "cy": 2.5, "width": 8, "height": 6}
    write_pair(tmp_path, "rgb/a.png", "depth/a.png")
    declare(tmp_path, **camera | values)

    with pytest.raises(MsfnetError, match=r"camera\.json: .*(positive|must be)"):
        open_source(tmp_path)


def test_a_folder_that_cannot_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner of all files can read every folder, so that the system's answer is imitated."""
    write_pair(tmp_path, "kitchen/rgb/0.jpg", "kitchen/depth/0.png")

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    for opening in (open_source, open_dataset):
        with pytest.raises(MsfnetError, match=r"cannot read .*: Permission denied"):
            opening(tmp_path)
