from __future__ import annotations

import multiprocessing
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from msfnet_datasets.ground_truth import GroundTruth
from msfnet_datasets.layouts import Layout, open_dataset
from msfnet_datasets.nyu_labelled import LABELLED, SPLITS
from msfnet_datasets.sample import Sample
from msfnet_datasets.split_lists import read_split_list
from msfnet_datasets.synthesize import synthesize_kitti
from msfnet_runtime import MsfnetError
from msfnet_runtime.depth_storage import DepthStorage

PAIRS = 5


def labelled_pair(index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return an image whose channels, rows and columns all differ, and its depth."""
    rows, columns = np.mgrid[0:6, 0:8]
    image = np.stack([rows * 10 + index, columns * 10 + index, rows + columns], axis=-1)
    return image.astype(np.uint8), (1 + index + rows / 10 + columns / 100).astype(np.float32)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Write the labelled set's format small: HDF5 as MATLAB 7.3 stores it, and MATLAB 5 splits."""
    pairs = [labelled_pair(index) for index in range(PAIRS)]
    with h5py.File(tmp_path / LABELLED, "w", userblock_size=512) as file:
        # MATLAB's (H, W, 3, N), counted columns first.
        file["images"] = np.stack([image for image, _ in pairs], axis=-1).T
        file["depths"] = np.stack([depth for _, depth in pairs], axis=-1).T
    savemat(
        tmp_path / SPLITS,
        {"trainNdxs": np.array([[1], [3], [5]]), "testNdxs": np.array([[2], [4]])},
    )
    return tmp_path


@pytest.mark.parametrize(("split", "numbers"), [("train", [1, 3, 5]), ("test", [2, 4])])
def test_the_labelled_set_is_read_as_matlab_wrote_it(
    labelled: Path, split: str, numbers: list[int]
) -> None:
    """Rows, columns and channels in place, metres as stored, pairs counted from 1."""
    samples = open_dataset(labelled, "nyu_labelled", split)

    assert [sample.name for sample in samples] == [f"labelled/{n:04d}" for n in numbers]
    for sample, number in zip(samples, numbers, strict=True):
        image, depth = labelled_pair(number - 1)
        copy = pickle.loads(pickle.dumps(sample))  # as a reading process gets it
        np.testing.assert_array_equal(copy.frame().image, image)
        np.testing.assert_array_equal(copy.ground_truth((6, 8)), depth)


def test_the_labelled_set_opens_by_its_file_and_for_evaluation(labelled: Path) -> None:
    """The file or its folder; all pairs without a split; the test split to score on."""
    assert len(open_dataset(labelled / LABELLED, "nyu_labelled", "all")) == PAIRS
    assert [s.name for s in open_dataset(labelled, ground_truth="nyu_depth")] == [
        "labelled/0002",
        "labelled/0004",
    ]


def test_the_labelled_set_is_read_by_forked_processes(labelled: Path) -> None:
    """Each opens the file for itself, though its parent has it open already."""
    samples = open_dataset(labelled, "nyu_labelled", "all")
    samples[0].ground_truth((6, 8))

    with multiprocessing.get_context("fork").Pool(2) as pool:
        depths = pool.starmap(Sample.ground_truth, [(s, (6, 8)) for s in samples] * 8)

    for number, depth in enumerate(depths):
        np.testing.assert_array_equal(depth, labelled_pair(number % PAIRS)[1])


def test_what_is_no_labelled_set_is_one_line(labelled: Path, tmp_path: Path) -> None:
    """No HDF5, other arrays, an unknown split, a cut or no split file, a split of other data."""
    other = tmp_path / "other"
    other.mkdir()
    (other / LABELLED).write_bytes(b"no hdf5 at all" * 50)
    with pytest.raises(MsfnetError, match="not NYU's labelled set"):
        open_dataset(other, "nyu_labelled", "all")
    with h5py.File(other / "flat.mat", "w") as file:
        file["images"], file["depths"] = np.ones((2, 3, 8, 6), np.uint8), np.ones((2, 6, 8))
    with pytest.raises(MsfnetError, match=r"images \(2, 3, 8, 6\) and depth \(2, 6, 8\)"):
        open_dataset(other / "flat.mat", "nyu_labelled", "all")
    with pytest.raises(MsfnetError, match="no list 'val'; choose train, test, all"):
        open_dataset(labelled, "nyu_labelled", "val")
    savemat(labelled / SPLITS, {"trainNdxs": np.array([[1], [PAIRS + 1]])})
    with pytest.raises(MsfnetError, match="names 1 pairs beyond the 5"):
        open_dataset(labelled, "nyu_labelled", "train")
    whole = (labelled / SPLITS).read_bytes()
    for length in (0, 1, 62, 123):
        (labelled / SPLITS).write_bytes(whole[:length])
        with pytest.raises(MsfnetError, match=r"put splits\.mat beside"):
            open_dataset(labelled, "nyu_labelled", "train")
    (labelled / SPLITS).unlink()
    with pytest.raises(MsfnetError, match=r"put splits\.mat beside"):
        open_dataset(labelled, "nyu_labelled", "train")


@pytest.mark.parametrize(("library", "name"), [("h5py", "h5py"), ("scipy", "SciPy")])
def test_a_missing_library_is_one_line(
    labelled: Path, monkeypatch: pytest.MonkeyPatch, library: str, name: str
) -> None:
    """The line says what to install."""
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(MsfnetError, match=rf"{name}.*pip install 'msfnet\[nyu\]'"):
        open_dataset(labelled, "nyu_labelled", "train")


def test_the_official_split_has_795_and_654_pairs(real_data: Path, tmp_path: Path) -> None:
    """The real splits.mat, counted from 0, shares no pair and covers all 1,449."""
    with h5py.File(tmp_path / LABELLED, "w") as file:
        file["images"] = np.ones((1449, 3, 2, 1), np.uint8)
        file["depths"] = np.ones((1449, 2, 1), np.float32)
    (tmp_path / SPLITS).write_bytes((real_data / "splits/nyu_official/splits.mat").read_bytes())

    names = [
        {sample.name for sample in open_dataset(tmp_path, "nyu_labelled", split)}
        for split in ("train", "test")
    ]

    assert (len(names[0]), len(names[1])) == (795, 654)
    assert names[0] | names[1] == {f"labelled/{number:04d}" for number in range(1, 1450)}


def test_sync_folders_are_read_by_their_lists(tmp_path: Path) -> None:
    """Leading slashes or none, millimetres, holes stay 0, None is counted."""
    depth = np.arange(48, dtype=np.uint16).reshape(6, 8) * 100
    image = np.full((6, 8, 3), 90, np.uint8)
    for room in ("kitchen_0028b", "bathroom"):
        (tmp_path / room).mkdir()
        cv2.imwrite(str(tmp_path / room / "rgb_00045.jpg"), image)
        cv2.imwrite(str(tmp_path / room / "sync_depth_00045.png"), depth)
    lines = [
        "/kitchen_0028b/rgb_00045.jpg /kitchen_0028b/sync_depth_00045.png 518.8579",
        "bathroom/rgb_00045.jpg bathroom/sync_depth_00045.png 518.8579",
        "bathroom/rgb_00046.jpg None 518.8579",
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")

    samples = open_dataset(tmp_path, "nyu_sync", "list.txt")

    assert [s.name for s in samples] == ["kitchen_0028b/rgb_00045", "bathroom/rgb_00045"]
    assert samples.without_ground_truth == ("bathroom/rgb_00046.jpg",)
    np.testing.assert_allclose(samples[0].ground_truth((6, 8)), depth / 1000.0, rtol=1e-6)
    assert (
        open_dataset(tmp_path, split="list.txt", ground_truth="nyu_depth").samples[0].name
        == samples[0].name
    )


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a generated drive, with a right camera whose images are PNG as well."""
    root = tmp_path_factory.mktemp("layouts")
    synthesize_kitti(root, drives=1, frames=2, size=(96, 320))
    (folder,) = root.glob("*/*_sync")
    right = folder / "image_03/data"
    right.mkdir(parents=True)
    for image in (folder / "image_02/data").iterdir():
        cv2.imwrite(str(right / f"{image.stem}.jpg"), np.full((96, 320, 3), 77, np.uint8))
    file = folder.parent / "calib_cam_to_cam.txt"
    lines = file.read_text()
    left = next(line for line in lines.splitlines() if line.startswith("P_rect_02"))
    numbers = [float(word) for word in left.split()[1:]]
    numbers[3] -= 0.5 * numbers[0]  # half a metre to the right
    words = " ".join(f"{number:e}" for number in numbers)
    size = next(line for line in lines.splitlines() if line.startswith("S_rect_02"))
    file.write_text(f"{lines}P_rect_03: {words}\n{size.replace('S_rect_02', 'S_rect_03')}\n")
    return folder


LISTS: dict[str, Callable[[str, str], str]] = {
    "bts": lambda date, drive: f"{date}/{drive}/image_02/data/0000000001.png None 721.5",
    "monodepth2": lambda date, drive: f"{date}/{drive} 1 l",
    "monodepth2, padded": lambda date, drive: f"{date}/{drive} 0000000001 l",
    "paths": lambda date, drive: f"/{date}/{drive}/image_02/data/0000000001.jpg",
    "monodepth": lambda date, drive: (
        f"{date}/{drive}/image_02/data/0000000001.png {date}/{drive}/image_03/data/0000000001.png"
    ),
}


@pytest.mark.parametrize("kind", LISTS)
def test_every_usual_list_names_the_same_frame(drive: Path, tmp_path: Path, kind: str) -> None:
    """With scans ``None`` is accepted; the suffix, png or jpg, is that of the file on the disk."""
    (tmp_path / "list.txt").write_text(LISTS[kind](drive.parent.name, drive.name))

    samples = open_dataset(drive.parents[1], "kitti", str(tmp_path / "list.txt"))

    (plain,) = [s for s in open_dataset(drive.parents[1], "kitti") if s.name.endswith("1")]
    assert (samples[0].name, samples[0].image_path) == (plain.name, plain.image_path)
    np.testing.assert_array_equal(samples[0].ground_truth((96, 320)), plain.ground_truth((96, 320)))


def test_the_right_camera_sees_the_scan_from_its_own_place(drive: Path, tmp_path: Path) -> None:
    """Points lie where P_rect_03 projects them, and the frame has its intrinsics."""
    (tmp_path / "list.txt").write_text(f"{drive.parent.name}/{drive.name} 0 r")

    (sample,) = open_dataset(drive.parents[1], "kitti", str(tmp_path / "list.txt"))

    assert sample.name == f"{drive.name}/image_03/0000000000"
    assert sample.image_path.suffix == ".jpg"
    entries = {
        key: np.array([float(word) for word in rest.split()])
        for file in ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt")
        for key, _, rest in (
            line.partition(":") for line in (drive.parent / file).read_text().splitlines()
        )
        if key in ("P_rect_03", "R_rect_00", "R", "T")
    }
    points = np.fromfile(drive / "velodyne_points/data/0000000000.bin", "<f4").reshape(-1, 4)
    camera = entries["R"].reshape(3, 3) @ points[:, :3].T + entries["T"][:, None]
    rectified = entries["R_rect_00"].reshape(3, 3) @ camera
    u, v, w = entries["P_rect_03"].reshape(3, 4) @ np.vstack([rectified, np.ones(len(points))])
    expected = np.zeros((96, 320))
    for x, y, z in sorted(zip(u / w, v / w, w, strict=True), key=lambda point: -point[2]):
        column, row = round(x) - 1, round(y) - 1
        if z > 0 and 0 <= row < 96 and 0 <= column < 320:
            expected[row, column] = z
    found = sample.ground_truth((96, 320))
    assert np.count_nonzero(found) > 500
    assert np.mean(np.isclose(found, expected, rtol=1e-4)) > 0.999
    left = open_dataset(drive.parents[1], "kitti")[0].ground_truth((96, 320))
    assert np.mean(np.isclose(found, left, rtol=1e-4)) < 0.95


def test_improved_maps_follow_the_list(drive: Path, tmp_path: Path) -> None:
    """A map where the list says, or in the benchmark's own layout; ``None`` is left out."""
    root, names = drive.parents[1], (f"{drive.name}/proj_depth/groundtruth/image_02", "0.png")
    folder = root / "train" / names[0]
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "0000000000.png"), np.full((96, 320), 2560, np.uint16))
    image = f"{drive.parent.name}/{drive.name}/image_02/data"
    (tmp_path / "list.txt").write_text(
        f"{image}/0000000000.png {names[0]}/0000000000.png 721.5\n"
        f"{image}/0000000001.png None 721.5\n"
    )

    samples = open_dataset(root, "kitti", str(tmp_path / "list.txt"), depth="uint16_256")

    assert [s.depth_path for s in samples] == [folder / "0000000000.png"]
    assert samples.without_ground_truth == (f"{drive.name}/0000000001",)
    np.testing.assert_array_equal(samples[0].ground_truth((96, 320)), 10)


def test_improved_maps_of_the_right_camera_are_found_through_links(
    drive: Path, tmp_path: Path
) -> None:
    """They lie where the list says or in the benchmark's layout; the left camera's are not used."""
    maps = tmp_path / "maps" / drive.name / "proj_depth/groundtruth"
    for camera, metres in (("image_02", 3), ("image_03", 7)):
        (maps / camera).mkdir(parents=True)
        cv2.imwrite(
            str(maps / camera / "0000000001.png"), np.full((96, 320), 256 * metres, np.uint16)
        )
    root = tmp_path / "root"
    root.mkdir()
    (root / drive.parent.name).symlink_to(drive.parent)
    (root / "train").symlink_to(tmp_path / "maps")
    image = f"{drive.parent.name}/{drive.name}/image_03/data/0000000001.png"
    named = f"{drive.name}/proj_depth/groundtruth/image_03/0000000001.png"
    (root / "list.txt").write_text(
        f"{image} {named} 721.5\n{image} /train/{named} 721.5\n"
        f"{drive.parent.name}/{drive.name} 1 r\n"
    )

    samples = open_dataset(root, "kitti", "list.txt", depth="uint16_256")

    assert {s.name for s in samples} == {f"{drive.name}/image_03/0000000001"}
    assert [float(s.ground_truth((96, 320)).max()) for s in samples] == [7, 7, 7]
    left = open_dataset(root, "kitti", depth="uint16_256")
    assert [float(s.ground_truth((96, 320)).max()) for s in left] == [3]


@pytest.mark.parametrize(
    ("file", "entries", "none"),
    [
        ("bts/eigen_test_files_with_gt.txt", 697, 45),
        ("bts/eigen_train_files_with_gt.txt", 23158, 0),
        ("bts/nyudepthv2_test_files_with_gt.txt", 654, 0),
        ("bts/nyudepthv2_train_files_with_gt.txt", 24231, 0),
        ("monodepth2/eigen_test_files.txt", 697, 0),
        ("monodepth2/eigen_benchmark_test_files.txt", 652, 0),
    ],
)
def test_the_fields_lists_have_their_known_lengths(
    real_data: Path, file: str, entries: int, none: int
) -> None:
    """Every line is read, and no path starts with a slash."""
    found = read_split_list(real_data / "splits" / file)

    assert len(found) == entries
    assert sum(entry.declared_none for entry in found) == none
    assert not any(entry.image.is_absolute() for entry in found)


def test_eigens_frames_among_the_real_drives(real_data: Path) -> None:
    """Twelve of the 697 lie in drive 0013; BTS's and monodepth2's lists name the same ones."""
    names = []
    for file in ("bts/eigen_test_files_with_gt.txt", "monodepth2/eigen_test_files.txt"):
        found = open_dataset(real_data / "kitti_raw", "kitti", str(real_data / "splits" / file))
        names.append({s.name for s in found if s.image_path.is_file()})
    assert names[0] == names[1]
    assert len(names[0]) == 12


@pytest.mark.parametrize(
    ("layout", "name", "depth", "words"),
    [
        ("nyu_sync", "absent.txt", None, "no list file absent.txt here or in"),
        ("kitti", "scenes.txt", None, "line 1: neither"),
        ("kitti", "empty.txt", None, "is empty"),
        ("kitti", "flat.txt", None, "not a frame of a KITTI drive"),
        ("nyu_sync", "flat.txt", None, "names no depth for"),
        ("kitti", "", "uint16_mm", "choose velodyne or uint16_256"),
        ("nyu", "train", "velodyne", "choose uint8_10m or uint16_mm"),
    ],
)
def test_lists_and_units_that_do_not_fit_are_one_line(
    tmp_path: Path, layout: Layout, name: str, depth: DepthStorage | None, words: str
) -> None:
    """The line names the list, the line in it, or what the layout has."""
    (tmp_path / "scenes.txt").write_text("basement_0001a\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "flat.txt").write_text("a.png\n")

    with pytest.raises(MsfnetError, match=words) as caught:
        open_dataset(tmp_path, layout, name or None, depth=depth)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layout", "ground_truth", "depth", "words"),
    [
        ("nyu", "velodyne", None, "nyu has no velodyne depth; choose nyu_depth"),
        ("kitti", "velodyne", "uint16_256", "does not store velodyne depth as uint16_256"),
        ("kitti", "improved", "velodyne", "does not store improved depth as velodyne"),
    ],
)
def test_ground_truth_that_a_layout_lacks_is_refused(
    tmp_path: Path,
    layout: Layout,
    ground_truth: GroundTruth,
    depth: DepthStorage | None,
    words: str,
) -> None:
    """A named layout does not replace the ground truth or the storage that is asked for."""
    with pytest.raises(MsfnetError, match=words):
        open_dataset(tmp_path, layout, depth=depth, ground_truth=ground_truth)
