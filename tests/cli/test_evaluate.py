"""``msfnet evaluate`` with all it writes, on a generated room."""

from __future__ import annotations

import csv
import json
import shlex
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from msfnet.__main__ import run
from msfnet_datasets.synthesize import synthesize_nyu
from msfnet_runtime.files import sha256
from tests.onnx_models import conv_model
from tests.specs import network_spec

FRAMES = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model, a room, and the model's depth of the room as ``msfnet stream`` writes it."""
    made = tmp_path_factory.mktemp("evaluate")
    onnx.save(conv_model(network_spec()), made / "model.onnx")
    synthesize_nyu(made / "rooms", scenes=3, frames=FRAMES)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        assert run(shlex.split("stream model.onnx rooms/data/nyu2_test --out depth")) == 0
    return made


def test_everything_that_is_written_tells_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text, JSON, CSV and sheet; a model held against itself differs by nothing."""
    monkeypatch.chdir(folder)
    command = (
        "evaluate model.onnx --data rooms --protocol nyu_bts --against model.onnx --align median "
        "--static synthetic:room?frames=3&size=64x96 --json out.json --csv out.csv --sheet out.png"
    )

    assert run(shlex.split(command)) == 0

    printed = capsys.readouterr().out
    stored = json.loads((folder / "out.json").read_text())
    with (folder / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert "protocol nyu_bts: 5 images" in printed
    assert f"model model.onnx (fp32, sha256 {sha256(folder / 'model.onnx')[:12]})" in printed
    assert "data rooms (layout nyu), list test: 5 frames" in printed
    assert stored["model"] == stored["against"]["model"]
    assert stored["model"]["path"] == "model.onnx"
    assert stored["data"] == {
        **{"path": "rooms", "layout": "nyu", "split": "test", "listed": FRAMES, "training": 0}
    }
    assert f"constant {stored['constant']['depth_m']:.3g} m" in printed
    assert f"{stored['summary']['rel']:.4f}" in printed
    assert len(rows) == len(stored["scores"]) == stored["summary"]["images"] == FRAMES
    mean = np.mean([float(row["rel"]) for row in rows])
    assert stored["summary"]["rel"] == pytest.approx(mean)
    assert stored["aligned"]["rel"] == pytest.approx(
        np.mean([float(row["median_rel"]) for row in rows])
    )
    assert stored["against"]["parity"]["maximum"] == 0
    assert set(stored["against"]["change"].values()) == {0}
    assert stored["flicker"]["frames"] == 3
    assert stored["deployment"]["over"] + stored["deployment"]["under"] <= 1
    assert cv2.imread(str(folder / "out.png")) is not None


def test_stored_depth_scores_as_the_model_that_made_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the rounding to 16 bits; ``--frames`` asks for the files of those frames alone."""
    monkeypatch.chdir(folder)
    data = "--data rooms --protocol nyu_bts"

    assert run(shlex.split(f"evaluate model.onnx {data} --json model.json")) == 0
    assert run(shlex.split(f"evaluate --predictions depth {data} --json depth.json")) == 0
    first, second = (
        json.loads((folder / name).read_text())["summary"] for name in ("model.json", "depth.json")
    )

    assert second["rel"] == pytest.approx(first["rel"], rel=1e-2)
    assert second["images"] == FRAMES
    last = folder / f"depth/{FRAMES - 1:05d}_colors.png"
    last.rename(folder / "elsewhere.png")
    try:
        assert run(shlex.split(f"evaluate --predictions depth {data}")) == 1
        assert run(shlex.split(f"evaluate --predictions depth {data} --frames 1")) == 0
    finally:
        (folder / "elsewhere.png").rename(last)


@pytest.mark.parametrize("shape", [("batch", 3, 32, 64), ("batch", 3, "height", "width")])
def test_a_list_of_rooms_is_scored_as_streamed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int | str, ...]
) -> None:
    """Numbers repeat over rooms, dimensions are open: the same depth as of the fixed model."""
    monkeypatch.chdir(folder)
    fixed = network_spec()
    output = ("batch", 1, *(("height/2", "width/2") if "height" in shape else (16, 32)))
    spec = network_spec(
        inputs=(replace(fixed.inputs[0], shape=shape),),
        outputs=(replace(fixed.outputs[0], shape=output),),
    )
    onnx.save(conv_model(spec), tmp_path / "open.onnx")
    data, made = "--data rooms --protocol nyu_bts --list train", tmp_path

    for command in (
        f"stream {made}/open.onnx rooms/data/nyu2_train.csv --out {made}/maps",
        f"evaluate --predictions {made}/maps {data} --json {made}/maps.json",
        f"evaluate {made}/open.onnx {data} --json {made}/open.json",
        f"evaluate model.onnx {data} --json {made}/fixed.json",
    ):
        assert run(shlex.split(command)) == 0
    stored, opened, expected = (
        json.loads((made / f"{name}.json").read_text())["summary"]
        for name in ("maps", "open", "fixed")
    )

    assert stored["rel"] == pytest.approx(expected["rel"], rel=1e-3)
    assert opened["rel"] == pytest.approx(expected["rel"], rel=1e-6)
    assert stored["images"] == expected["images"] == len(list(made.glob("maps/room_*/*.png")))


def test_what_makes_a_score_mean_less_is_said(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A training list, by its name or as a file; a range of other scenes; one that is beaten."""
    monkeypatch.chdir(folder)
    far = network_spec(depth_range_m=(1.0, 80.0))
    onnx.save(conv_model(far), tmp_path / "far.onnx")

    def warnings(model: Path | str, options: str) -> list[str]:
        command = f"evaluate {model} --data rooms --protocol nyu_bts --json {tmp_path}/out.json"
        assert run(shlex.split(f"{command} {options}")) == 0
        stored = json.loads((tmp_path / "out.json").read_text())
        (tmp_path / "out.json").unlink()
        printed = capsys.readouterr().out
        assert all(f"warning: {warning}" in printed for warning in stored["warnings"])
        return list(stored["warnings"])

    tested, trained = (warnings("model.onnx", f"--list {name}") for name in ("test", "train"))

    assert not any("training list" in line for line in tested)
    assert any("are from a training list" in line for line in trained)
    assert any(
        "1 of 1 scored frame is from" in line
        for line in warnings("model.onnx", "--frames 1 --list train")
    )
    assert any("up to 80 m, and nyu_bts" in line for line in warnings(tmp_path / "far.onnx", ""))
    assert any(
        "no better than the same depth" in line for line in warnings(tmp_path / "far.onnx", "")
    )


def test_maps_without_their_rooms_are_refused(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Even of one frame only: another room's map would be scored."""
    monkeypatch.chdir(folder)
    maps = tmp_path / "maps"
    assert run(shlex.split(f"stream model.onnx rooms/data/nyu2_train.csv --out {maps}")) == 0
    for file in sorted(maps.glob("room_*/*.png")):
        file.replace(maps / file.name)
    capsys.readouterr()
    command = f"evaluate --predictions {maps} --data rooms --protocol nyu_bts --list train"

    assert run(shlex.split(f"{command} --frames 1")) == 1
    assert "frames of the list; name it room_" in capsys.readouterr().err


def test_flicker_needs_no_ground_truth(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames of a camera that does not move are enough."""
    monkeypatch.chdir(folder)
    (folder / "still").mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    for index in range(3):
        cv2.imwrite(str(folder / f"still/{index}.png"), picture)

    assert run(shlex.split("evaluate model.onnx --static still --json still.json")) == 0

    printed = capsys.readouterr().out
    stored = json.loads((folder / "still.json").read_text())
    assert printed.startswith("model model.onnx (fp32, sha256 ")
    assert "static source still\nstatic camera, 3 frames: flicker 0.0000" in printed
    assert stored["flicker"]["mean"] == 0
    assert stored["model"]["sha256"] == sha256(folder / "model.onnx")
    assert stored["static"] == "still"
