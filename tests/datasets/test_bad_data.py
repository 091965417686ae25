from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from msfnet_datasets import open_dataset
from msfnet_datasets.bad_data import find_bad, open_all
from msfnet_datasets.check import check_data
from msfnet_datasets.nyu_labelled import LABELLED
from msfnet_datasets.synthesize import synthesize_kitti, synthesize_nyu
from msfnet_runtime import MsfnetError


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    """Write a small room with a list of eight bits."""
    synthesize_nyu(tmp_path / "nyu", scenes=1, frames=5, size=(64, 96))
    return tmp_path / "nyu"


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def write(depth: np.ndarray) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(cv2.imencode(".png", depth)[1].tobytes())


ROOM = np.full((64, 96), 60, np.uint8)
DEPTH_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (Path.unlink, "cannot read .*No such file"),
    "truncated": (cut_short, "is cut short"),
    "no image": (lambda file: file.write_bytes(b"moved, see other page"), "not a readable image"),
    "empty": (lambda file: file.write_bytes(b""), "is empty"),
    "another size": (write(ROOM[:, 1:]), r"is \(64, 95\), its image .*\(64, 96\)"),
    "all zero": (write(ROOM * 0), "holds no depth at all"),
    "millimetres": (write(ROOM.astype(np.uint16) * 40), "is uint16 .* declares uint8"),
    "colours": (write(cv2.merge([ROOM] * 3)), r"\(64, 96, 3\), .* one channel"),
    "another unit": (write(ROOM // 60 * 3), "median depth is 0.118 m, which is not between 0.2"),
}


@pytest.mark.parametrize("fault", DEPTH_FAULTS)
def test_bad_depth_is_found_and_named(rooms: Path, fault: str) -> None:
    """Only the sample at fault, its file named, the reason in one line."""
    samples = open_dataset(rooms, "nyu", "train")
    spoil, words = DEPTH_FAULTS[fault]
    spoil(samples[2].depth_path)

    (bad,) = find_bad(samples, workers=2)

    assert (bad.name, bad.path) == (samples[2].name, samples[2].depth_path)
    assert re.search(words, bad.reason)
    assert str(samples[2].depth_path) in bad.reason
    assert "\n" not in bad.reason


@pytest.mark.parametrize("spoil", [Path.unlink, cut_short], ids=["absent", "truncated"])
def test_bad_images_are_found_and_named(rooms: Path, spoil: Callable[[Path], object]) -> None:
    """They are in the order of the list, whichever thread finds them first."""
    samples = open_dataset(rooms, "nyu", "train")
    for index in (3, 0):
        spoil(samples[index].image_path)
    reported: list[tuple[int, int, str]] = []

    bad = find_bad(samples, workers=4, progress=lambda *step: reported.append(step))

    assert [b.name for b in bad] == [samples[0].name, samples[3].name]
    assert all(str(samples[i].image_path) in b.reason for i, b in zip((0, 3), bad, strict=True))
    assert reported[-1] == (len(samples), len(samples), "2 bad")


def test_bad_scans_are_found_and_named(tmp_path: Path) -> None:
    """NaN, half a point, and a scan of which no point lies in the image."""
    synthesize_kitti(tmp_path, drives=1, frames=4, size=(96, 320))
    samples = open_dataset(tmp_path, "kitti")
    points = np.fromfile(samples[0].depth_path, "<f4").reshape(-1, 4)
    behind = points.copy()
    behind[:, 0] = -np.abs(behind[:, 0]) - 1
    points[7, 2] = np.nan
    points.tofile(samples[0].depth_path)
    samples[1].depth_path.write_bytes(samples[1].depth_path.read_bytes()[:-5])
    behind.tofile(samples[3].depth_path)

    bad = find_bad(samples)

    assert [b.name for b in bad] == [samples[i].name for i in (0, 1, 3)]
    for found, words in zip(bad, ("not finite", "multiple of 16", "no depth"), strict=True):
        assert words in found.reason
        assert str(found.path) in found.reason


def test_a_pair_of_the_labelled_set_that_is_not_finite_is_found(tmp_path: Path) -> None:
    """The others can be used, read by several threads from one file."""
    depths = np.full((6, 8, 6), 2, np.float32)
    depths[4, 1, 1] = np.nan
    with h5py.File(tmp_path / LABELLED, "w") as file:
        file["images"], file["depths"] = np.full((6, 3, 8, 6), 90, np.uint8), depths

    (bad,) = find_bad(open_dataset(tmp_path, "nyu_labelled", "all"), workers=4)

    assert bad.name == "labelled/0005"
    assert "pair 5 is not finite" in bad.reason


def test_good_samples_are_handed_on(rooms: Path) -> None:
    """They are in order, in metres and of the image's size; bad ones keep their places."""
    samples = open_dataset(rooms, "nyu", "train")
    samples[1].depth_path.unlink()

    opened = open_all(samples, lambda depth: depth, workers=2)

    assert [isinstance(found, np.ndarray) for found in opened] == [True, False, True, True]
    for sample, found in zip(samples, opened, strict=True):
        if isinstance(found, np.ndarray):
            stored = cv2.imread(str(sample.depth_path), cv2.IMREAD_UNCHANGED)
            assert stored is not None
            np.testing.assert_allclose(found, stored * (10 / 255), rtol=1e-6)


def test_real_sets_have_nothing_bad(real_data: Path) -> None:
    """Every tenth pair of the real rooms, and all real scans."""
    rooms = open_dataset(real_data / "nyu_mini", "nyu", "train")[::10]
    scans = open_dataset(real_data / "kitti_raw", "kitti")

    assert (len(rooms), len(scans)) == (112, 15)
    assert find_bad([*rooms, *scans]) == []


def as_test_list(root: Path, pairs: list[tuple[Path, Path]]) -> Path:
    """Write pairs as DenseDepth's test list, which is in millimetres."""
    folder = root / "data/nyu2_test"
    folder.mkdir(parents=True)
    rows = []
    for image, depth in pairs:
        for file in (image, depth):
            shutil.copy(file, folder)
        rows.append(f"data/nyu2_test/{image.name},data/nyu2_test/{depth.name}\n")
    (root / "data/nyu2_test.csv").write_text("".join(rows))
    return root


def test_real_depth_of_another_scale_is_refused(real_data: Path, tmp_path: Path) -> None:
    """Counts of a fifth of a millimetre make an 18 m room; real millimetres pass."""
    folder = real_data / "nyu_pairs"
    fifths = [
        (folder / f"misc/drsleep_rgb_{n}.png", folder / f"misc/drsleep_depth5000_{n}.png")
        for n in ("000433", "000464")
    ]
    right = [
        (folder / f"nyu2_test/{n}_colors.png", folder / f"nyu2_test/{n}_depth.png")
        for n in ("00000", "00014")
    ]

    (checked,) = check_data(as_test_list(tmp_path / "mm", right)).lists
    assert checked.depth is not None
    assert 2.5 < checked.depth.range_m[1] < 3
    with pytest.raises(MsfnetError, match=r"median depth is 18\.\d m, which is not between"):
        check_data(as_test_list(tmp_path / "fifths", fifths))


def test_the_real_sync_pairs_are_whole(real_data: Path, tmp_path: Path) -> None:
    """Raw depth of BTS's folders: millimetres with holes."""
    folder = real_data / "nyu_pairs/official_raw"
    lines = [
        f"/metric3d_rgb_{n}.jpg /metric3d_sync_depth_{n}.png 518.8579\n"
        for n in ("00000", "00050", "00100")
    ]
    (tmp_path / "list.txt").write_text("".join(lines))

    (checked,) = check_data(folder, name=str(tmp_path / "list.txt"), every=True).lists

    assert (checked.frames, checked.listed, checked.bad) == (3, 3, ())
    assert checked.depth is not None
    assert checked.sizes == ((480, 640),)
    assert 0.5 < checked.depth.coverage < 0.95
    assert 2.4 < checked.depth.range_m[1] < 3.4
