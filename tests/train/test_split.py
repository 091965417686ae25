"""The data of a run is checked first and recorded; other data is recognised."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from msfnet_datasets.synthesize import synthesize_kitti
from msfnet_runtime import MsfnetError
from msfnet_train.recipe import load_recipe
from msfnet_train.run import train
from msfnet_train.split import check_split, open_split
from tests.train.datasets import nyu_recipe, write_nyu


def pictures(data: Path) -> Path:
    """Return the folder of the training pictures."""
    return data / "data/nyu2_train/room"


def cut_short(data: Path) -> None:
    """Cut an image in the middle."""
    file = pictures(data) / "5.png"
    file.write_bytes(file.read_bytes()[:-900])


def shrink_depth(data: Path) -> None:
    """Give an image depth of another size."""
    cv2.imwrite(str(pictures(data) / "5_depth.png"), np.full((9, 9), 77, np.uint8))


def empty_depth(data: Path) -> None:
    """Give an image depth that is nowhere."""
    cv2.imwrite(str(pictures(data) / "5_depth.png"), np.zeros((240, 320), np.uint8))


def widen_depth(data: Path) -> None:
    """Store depth in another type than the recipe declares."""
    cv2.imwrite(str(pictures(data) / "5_depth.png"), np.full((240, 320), 3000, np.uint16))


def remove(data: Path) -> None:
    """Leave a file out that the list names."""
    (pictures(data) / "5.png").unlink()


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (cut_short, r"5\.png is not a readable image|5\.png is cut short"),
    "size": (shrink_depth, r"5_depth\.png is \(9, 9\), its image .*\(240, 320\)"),
    "empty": (empty_depth, r"5_depth\.png holds no depth at all"),
    "type": (widen_depth, r"5_depth\.png is uint16 .* declares uint8"),
    "absent": (remove, r"cannot read .*5\.png: No such file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_samples_stop_a_run_before_its_first_step(tmp_path: Path, kind: str) -> None:
    """The error counts and names them and says what to do; no checkpoint is written."""
    harm, words = BAD[kind]
    data = write_nyu(tmp_path / "data set")
    harm(data)

    with pytest.raises(MsfnetError, match=words) as caught:
        train(nyu_recipe(), data, tmp_path / "out")

    assert str(caught.value).startswith("1 of 10 samples are bad, for example ")
    assert caught.value.parameter == "skip_bad"
    assert "\n" not in str(caught.value)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"recipe.json", "data.json"}
    (bad,) = json.loads((tmp_path / "out/data.json").read_text())["bad"]
    assert bad["name"] == "room/5"


def test_bad_samples_are_left_out_when_asked(tmp_path: Path) -> None:
    """The report counts them, and the rest is trained on."""
    data = write_nyu(tmp_path / "data set")
    cut_short(data)

    report = train(nyu_recipe(trainer_epochs=1), data, tmp_path / "out", skip_bad=True)

    assert report.skipped == 1
    assert "1 bad sample left out" in report.text()
    assert report.epochs == 1


def test_a_scan_with_values_that_are_none_is_bad(tmp_path: Path) -> None:
    """NaN in a velodyne scan: named, and only that frame is left out."""
    synthesize_kitti(tmp_path / "data set", drives=1, frames=4, size=(96, 320))
    scan = next((tmp_path / "data set").rglob("0000000001.bin"))
    points = np.fromfile(scan, "<f4")
    points[37] = np.nan
    points.tofile(scan)
    split = open_split(load_recipe("quick").data, tmp_path / "data set")

    with pytest.raises(MsfnetError, match=r"1 of 4 samples are bad.*0000000001\.bin holds values"):
        check_split(split, tmp_path / "run")
    kept = check_split(split, tmp_path / "run", skip_bad=True)

    assert [s.image_path.stem[-1] for s in (*kept.train, *kept.validation)] == ["0", "2", "3"]
    assert kept.skipped == 1


def test_the_record_is_taken_while_the_files_are_the_same(tmp_path: Path) -> None:
    """A second look at the same files opens none; a changed file is looked at again."""
    split = open_split(nyu_recipe().data, write_nyu(tmp_path / "data set"))
    opened: list[int] = []

    for _ in range(2):
        check_split(split, tmp_path, progress=lambda done, total, what: opened.append(total))
    assert opened == [10] * 10
    cut_short(tmp_path / "data set")
    with pytest.raises(MsfnetError, match="are bad"):
        check_split(split, tmp_path)


def test_another_declaration_of_the_depth_is_looked_at_again(tmp_path: Path) -> None:
    """The files are the same; what they were read as was wrong, or becomes wrong."""
    data = write_nyu(tmp_path / "data set")
    right, wrong = (
        open_split(nyu_recipe(**declared).data, data)
        for declared in ({}, {"data_train_depth": "uint16_mm"})
    )
    with pytest.raises(MsfnetError, match="8 of 10 samples are bad"):
        check_split(wrong, tmp_path)

    assert check_split(right, tmp_path).skipped == 0
    with pytest.raises(MsfnetError, match="8 of 10 samples are bad"):
        check_split(wrong, tmp_path)


def test_a_repaired_file_of_the_same_size_is_looked_at_again(tmp_path: Path) -> None:
    """Only another process of the same run takes a record of bad samples as it is."""
    data = write_nyu(tmp_path / "data set")
    split = open_split(nyu_recipe().data, data)
    picture = pictures(data) / "5.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:-900] + bytes(900))
    with pytest.raises(MsfnetError, match="1 of 10 samples are bad"):
        check_split(split, tmp_path)
    opened: list[int] = []
    kept = check_split(
        split,
        tmp_path,
        skip_bad=True,
        just_checked=True,
        progress=lambda done, total, what: opened.append(done),
    )
    assert (kept.skipped, opened) == (1, [])

    picture.write_bytes(whole)

    assert check_split(split, tmp_path).skipped == 0


def test_the_fingerprint_is_of_names_and_sizes(tmp_path: Path) -> None:
    """Other files, fewer files, files of another size: another fingerprint; a copy has the same."""
    config = nyu_recipe().data
    whole = open_split(config, write_nyu(tmp_path / "a" / "data set")).fingerprint()
    copy = open_split(config, write_nyu(tmp_path / "b" / "data set")).fingerprint()
    fewer = open_split(config, write_nyu(tmp_path / "c" / "data set", scenes=7)).fingerprint()
    cut_short(tmp_path / "b" / "data set")
    changed = open_split(config, tmp_path / "b" / "data set").fingerprint()

    assert (whole["train"], whole["validation"]) == (8, 2)
    assert copy == whole
    assert len({whole["sha256"], fewer["sha256"], changed["sha256"]}) == 3


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    """The line says how the two differ."""
    data = write_nyu(tmp_path / "data set")
    train(nyu_recipe(trainer_epochs=1), data, tmp_path / "out")
    other = write_nyu(tmp_path / "other data", scenes=12)

    with pytest.raises(MsfnetError, match=r"other data \(8 training and 2 validation pairs; here"):
        train(nyu_recipe(trainer_epochs=1), other, tmp_path / "out", resume=True)


def test_a_list_decides_what_is_trained_and_validated_on(tmp_path: Path) -> None:
    """KITTI by split lists, improved maps where the recipe says so, ``None`` entries counted."""
    root = tmp_path / "kitti"
    synthesize_kitti(root, drives=1, frames=4, size=(96, 320))
    (drive,) = root.glob("*/*_sync")
    maps = root / drive.name / "proj_depth/groundtruth/image_02"
    maps.mkdir(parents=True)
    for index in range(2):
        cv2.imwrite(str(maps / f"{index:010d}.png"), np.full((96, 320), 2560, np.uint16))
    frame = f"{drive.parent.name}/{drive.name}/image_02/data"
    (root / "train.txt").write_text(
        "".join(f"{frame}/{i:010d}.png {drive.name}/none.png 721.5\n" for i in range(2))
    )
    (root / "test.txt").write_text(f"{frame}/0000000001.png x.png 7\n{frame}/0000000002.png None 7")
    settings = [
        "data.train_list=train.txt",
        "data.validation_list=test.txt",
        "data.train_depth=uint16_256",
        "data.validation_depth=uint16_256",
        "data.protocol=kitti_bts",
    ]

    split = open_split(load_recipe("kitti", settings).data, root)

    assert [s.depth_path.name for s in split.train] == ["0000000000.png", "0000000001.png"]
    assert len(split.validation) == 1
    assert split.without_ground_truth == 1
    assert split.train[0].ground_truth((96, 320)).max() == 10


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["data.train_list=a.txt"], "go together"),
        (["data.layout=nyu_sync"], r"(train_list.* nyu_sync|scores other ground truth)"),
        (["data.train_depth=uint8"], "must be one of"),
        (
            ["data.validation_depth=uint16_256"],
            "choose one of kitti_bts, kitti_adabins, indoor, outdoor",
        ),
    ],
)
def test_lists_and_units_that_contradict_are_refused(settings: list[str], words: str) -> None:
    """The error comes when the recipe is read, not hours later."""
    with pytest.raises(MsfnetError, match=words):
        load_recipe("kitti", settings)
