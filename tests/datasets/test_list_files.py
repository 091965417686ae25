"""Lists as people save them, and list files for every layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from msfnet_datasets import open_dataset
from msfnet_datasets.check import check_data
from msfnet_datasets.layouts import Layout
from msfnet_datasets.nyu_labelled import LABELLED
from msfnet_datasets.split_lists import read_split_list
from msfnet_runtime import CameraIntrinsics, MsfnetError
from msfnet_runtime.sources import open_source
from msfnet_runtime.sources.kitti import read_calibration_file, read_timestamps
from msfnet_runtime.sources.nyu import INTRINSICS, read_list
from msfnet_runtime.typed import read_text

Save = Callable[[str], bytes]

SAVED: dict[str, Save] = {
    "plain": lambda text: text.encode(),
    "mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "Windows-1252": lambda text: text.encode("cp1252"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "blank lines": lambda text: ("\n" + text.replace("\n", "\n  \n") + "\n\n").encode(),
    "comments": lambda text: ("# made by hand\n" + text).encode(),
    "no last line break": lambda text: text.rstrip("\n").encode(),
    "blanks": lambda text: text.replace("\n", " \t\n").encode(),
}
"""What Excel, editors of Windows and other people's programs do to a list."""


def write_pairs(root: Path, *names: str, levels: int = 60) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(f"{path}.jpg", np.full((24, 32, 3), 70, np.uint8))
        assert cv2.imwrite(f"{path}.png", np.full((24, 32), levels, np.uint8))


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("header", ["", "image,depth\n", "Farbbild,Tiefe\n"])
def test_a_csv_list_is_read_however_it_was_saved(tmp_path: Path, saved: str, header: str) -> None:
    """A source, a data set and a check see the same two frames."""
    write_pairs(tmp_path, "data/küche/1", "data/küche/2")
    rows = [f"data/küche/{n}.jpg,data/küche/{n}.png\n" for n in (1, 2)]
    file = tmp_path / "data/nyu2_val.csv"
    file.write_bytes(SAVED[saved](header + "".join(rows)))

    with open_source(str(file)) as source:
        assert [frame.name for frame in source] == ["küche/1", "küche/2"]
    samples = open_dataset(tmp_path)
    assert [sample.ground_truth((24, 32)).shape for sample in samples] == [(24, 32)] * 2
    (part,) = check_data(tmp_path, every=True).lists
    assert (part.frames, part.listed, part.bad) == (2, 2, ())


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("header", ["", "image depth focal\n"])
def test_a_text_list_is_read_however_it_was_saved(tmp_path: Path, saved: str, header: str) -> None:
    text = header + "salón/a.jpg salón/a.png 518.8\nsalón/b.jpg None 518.8\n"
    (tmp_path / "list.txt").write_bytes(SAVED[saved](text))

    first, second = read_split_list(tmp_path / "list.txt")

    assert (str(first.image), str(first.depth)) == ("salón/a.jpg", "salón/a.png")
    assert second.declared_none


@pytest.mark.parametrize("saved", SAVED)
def test_calibrations_and_times_are_read_however_they_were_saved(
    tmp_path: Path, saved: str
) -> None:
    """The first entry counts, which a byte order mark hides."""
    times = tmp_path / "image_02/timestamps.txt"
    times.parent.mkdir()
    text = "2011-09-26 13:02:25.964389445\n2011-09-26 13:02:26.074389445\n"
    times.write_bytes(SAVED[saved](text))
    (tmp_path / "calib.txt").write_bytes(SAVED[saved]("P2: 1 2 3\nT: 4\n"))

    assert read_timestamps(tmp_path) == [0, 0.11]
    values = read_calibration_file(tmp_path / "calib.txt")
    assert {key: list(numbers) for key, numbers in values.items()} == {"P2": [1, 2, 3], "T": [4]}


def test_text_files_have_no_byte_order_mark(tmp_path: Path) -> None:
    """Recipes, contracts and descriptions of cameras are read through the same function."""
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf[data]\n")
    assert read_text(tmp_path / "a.toml") == "[data]\n"


@pytest.mark.parametrize("read", [read_list, read_split_list])
@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"", b"\n\n", b"# none\n"])
def test_what_is_no_list_is_one_line(
    tmp_path: Path, read: Callable[[Path], object], content: bytes
) -> None:
    for file in (tmp_path / "list.csv", tmp_path / "device.csv"):
        file.symlink_to("/dev/zero") if file.stem == "device" else file.write_bytes(content)
        with pytest.raises(MsfnetError, match=rf"{file.stem}\.csv is (not|empty)"):
            read(file)


def test_a_line_that_is_no_header_is_never_left_out(tmp_path: Path) -> None:
    """Only names of columns are; a wrong first row is an error with its number."""
    for text in (
        "a.jpg\nb.jpg,b.png\n",
        "a\nb.jpg,b.png\n",
        "\n a/b,c,d\nb.jpg,b.png\n",
        "image,depth\n\nb.jpg\n",
    ):
        (tmp_path / "list.csv").write_text(text)
        with pytest.raises(MsfnetError, match=r"line [123]: not `image,depth`"):
            read_list(tmp_path / "list.csv")


def test_the_images_of_a_list_have_their_camera(tmp_path: Path) -> None:
    """NYU's for its lists, the declared one beside others, none where nothing is known."""
    write_pairs(tmp_path, "data/room/1", "room/1", "own/room/1", "bare/room/1")
    for name in ("data/nyu2_test.csv", "own/list.csv", "bare/list.csv"):
        row = "data/room/1" if name.startswith("data") else "room/1"
        (tmp_path / name).write_text(f"{row}.jpg,{row}.png\n")
    camera = {"fx": 30.0, "fy": 31.0, "cx": 15.0, "cy": 11.0, "width": 32, "height": 24}
    (tmp_path / "own/camera.json").write_text(json.dumps(camera))

    cameras = []
    for name in ("data/nyu2_test.csv", "own/list.csv", "bare/list.csv"):
        with open_source(str(tmp_path / name)) as source:
            cameras += [frame.intrinsics for frame in source]

    assert cameras == [INTRINSICS.scaled(24, 32), CameraIntrinsics(30, 31, 15, 11, 32, 24), None]


def test_paths_of_a_list_are_named_without_detours(tmp_path: Path) -> None:
    """A name becomes a file's; in layouts that start at a root, a path never leaves it."""
    write_pairs(tmp_path, "data/room/1")
    rows = "data/room/../room/1.jpg,data/room/1.png\n"
    (tmp_path / "data/nyu2_val.csv").write_text(rows)
    assert [sample.name for sample in open_dataset(tmp_path, "nyu")] == ["room/1"]

    (tmp_path / "train.csv").write_text(rows)
    (tmp_path / "camera.json").write_text('{"depth": "uint8_10m"}')
    assert [s.name for s in open_dataset(tmp_path, "folder", "train")] == ["data/room/1"]
    (tmp_path / "train.csv").write_text("data/../../1.jpg,data/room/1.png\n")
    with pytest.raises(MsfnetError, match="is outside"):
        open_dataset(tmp_path, "folder", "train")
    (tmp_path / "list.txt").write_text("../1.jpg ../1.png 500\n")
    with pytest.raises(MsfnetError, match="line 1: a path leaves"):
        open_dataset(tmp_path, "nyu_sync", "list.txt")


@pytest.mark.parametrize("layout", ["nyu", "folder"])
def test_pairs_of_a_list_file_are_opened(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies anywhere; its paths start at the data's root, also where that is given relatively."""
    write_pairs(tmp_path / "set", "data/room/1", "data/room/2")
    if layout == "nyu":
        (tmp_path / "set/data/nyu2_val.csv").write_text("data/room/1.jpg,data/room/1.png\n")
    else:
        (tmp_path / "set/camera.json").write_text('{"depth": "uint8_10m"}')
    file = tmp_path / "mine.csv"
    file.write_text("data/room/2.jpg,data/room/2.png\n")
    monkeypatch.chdir(tmp_path)

    for root, name in ((tmp_path / "set", str(file)), (Path("set"), "mine.csv")):
        (sample,) = open_dataset(root, split=name)
        assert sample.name.endswith("room/2")
        assert sample.ground_truth((24, 32)).max() == pytest.approx(60 / 25.5)
    (part,) = check_data(tmp_path / "set", name=str(file)).lists
    assert (part.name, part.frames) == ("list mine.csv", 1)


def test_pairs_of_the_labelled_set_are_listed_by_number(tmp_path: Path) -> None:
    with h5py.File(tmp_path / LABELLED, "w") as file:
        file["images"] = np.zeros((4, 3, 8, 6), np.uint8)
        file["depths"] = np.ones((4, 8, 6), np.float32)
    (tmp_path / "mine.txt").write_text("3\nlabelled/0001\n")

    assert [s.name for s in open_dataset(tmp_path, split="mine.txt")] == [
        "labelled/0003",
        "labelled/0001",
    ]
    for text in ("0\n", "1\n5\n", "room/1.jpg\n"):
        (tmp_path / "mine.txt").write_text(text)
        with pytest.raises(
            MsfnetError, match=r"mine\.txt, line \d: not the number of a pair, 1 to 4"
        ):
            open_dataset(tmp_path, split="mine.txt")


@pytest.mark.parametrize("layout", ["nyu", "folder", "nyu_labelled", "kitti", "nyu_sync"])
def test_a_list_file_that_is_absent_is_one_line(tmp_path: Path, layout: Layout) -> None:
    with h5py.File(tmp_path / LABELLED, "w") as file:
        file["images"] = np.zeros((1, 3, 8, 6), np.uint8)
        file["depths"] = np.ones((1, 8, 6), np.float32)
    with pytest.raises(MsfnetError, match=r"no list file mine\.txt here or in") as raised:
        open_dataset(tmp_path, layout, "mine.txt")
    assert raised.value.parameter == "split"
