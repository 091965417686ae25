"""``msfnet calibrate`` on generated rooms, and what ``evaluate`` says of its models."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from msfnet.__main__ import run
from msfnet_calibration import calibrate, trials
from msfnet_calibration.graph import count_operators
from msfnet_calibration.onnx_files import load_model
from msfnet_datasets.frame_statistics import frame_hash
from msfnet_datasets.synthesize import synthesize_kitti, synthesize_nyu
from msfnet_runtime.onnx_metadata import read_onnx_spec
from msfnet_runtime.sources import open_source
from tests.networks import Exports

FRAMES = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, exports: Exports) -> Path:
    """Make rooms, a street, the light network and its INT8 form."""
    made = tmp_path_factory.mktemp("calibrate")
    synthesize_nyu(made / "rooms", scenes=2, frames=FRAMES, size=(120, 160))
    synthesize_kitti(made / "street", drives=1, frames=FRAMES, size=(96, 320))
    model = exports.deploy.artifact.path
    (made / "fp32.onnx").write_bytes(model.read_bytes())
    command = f"calibrate {made}/fp32.onnx {made}/int8.onnx --data {made}/rooms --frames {FRAMES}"
    assert run(shlex.split(command)) == 0
    return made


def test_the_frames_are_named_by_their_hashes(folder: Path) -> None:
    """Every hash is that of an image of the training list, and no image is named twice."""
    calibration = read_onnx_spec(folder / "int8.onnx").calibration
    assert calibration is not None
    summary = calibration.summary
    assert summary is not None

    with open_source(str(folder / "rooms/data/nyu2_train.csv")) as source:
        known = {frame_hash(frame) for frame in source}
    assert len(set(summary.hashes)) == summary.count == FRAMES
    assert set(summary.hashes) <= known


def test_what_each_block_costs_is_measured_and_kept(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Table, JSON and plot; the model is the blanket one; another method runs no frame again."""
    monkeypatch.setattr(trials, "_SECONDS", 0.01)
    command = (
        f"calibrate {folder}/fp32.onnx {tmp_path}/int8.onnx --data {folder}/rooms --frames 8 "
        "--target cpu --sensitivity --protocol nyu_bts"
    )

    synthesize_nyu(tmp_path / "scored", scenes=2, frames=4)
    command += f" --score {tmp_path}/scored"
    assert run(shlex.split(command)) == 0

    printed = capsys.readouterr()
    kept = tmp_path / "fp32.calibration"
    found = json.loads((kept / "search.json").read_text())
    assert [row["unit"] for row in found["rows"]][-1] == "decoder.stage2"
    for row in found["rows"]:
        assert row["unit"] in printed.out
    assert found["chosen"] is None
    picture = cv2.imread(str(kept / "sensitivity.png"))
    assert picture is not None
    assert picture.std() > 10
    operators = count_operators(load_model(tmp_path / "int8.onnx"))
    convolutions = sum(row["convolutions"] for row in found["rows"] if "narrow" not in row["unit"])
    assert f"{convolutions} convolutions, for cpu, uint8 activations; depth change: " in printed.out
    assert operators["DequantizeLinear"] > 2 * convolutions
    again = f"calibrate {folder}/fp32.onnx {tmp_path}/b.onnx --data {folder}/rooms --frames 8"
    assert run(shlex.split(f"{again} --target cpu --method entropy")) == 0
    assert "8/8 frames, kept" in capsys.readouterr().err
    assert len(list(kept.glob("activations-*.npz"))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--data rooms --budget 'rel +1%'", "(--protocol)"),
        ("--data rooms --protocol nyu_hu", "(--protocol)"),
        ("--data rooms --budget 'rel +1%' --protocol nyu_hu", "measured on a GPU"),
        ("--data street --sensitivity --protocol nyu_hu --target cpu", "expected NYU"),
        ("--data rooms --frames 2", "2 frames are too few to calibrate on; give at least 4"),
        ("--data empty", "empty"),
    ],
)
def test_what_cannot_be_calibrated_is_one_line(
    folder: Path,
    options: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit status 1, nothing written; options are checked before frames are run."""
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir(exist_ok=True)

    assert run(["calibrate", "fp32.onnx", "new.onnx", *shlex.split(options)]) == 1

    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert any(part in errors[0] for part in message.split("|")), errors
    assert not (folder / "new.onnx").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fp32.onnx fp32.onnx --data rooms --force", "fp32.onnx is read"),
        ("fp32.onnx new.txt --data rooms", "new.txt does not end in .onnx"),
        ("int8.onnx new.onnx --data rooms", "int8.onnx is int8"),
        ("fp32.onnx new.onnx --data pictures --budget 'rel +1%' --protocol nyu_hu", "ground truth"),
        ("fp32.onnx new.onnx --data rooms --budget 'rel +1%' --protocol nyu_hu", "on a GPU"),
    ],
)
def test_what_cannot_be_calibrated_is_noticed_before_frames_are_run(
    folder: Path,
    command: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The model itself as the output, another suffix, a wrong model, no ground truth, no GPU."""
    monkeypatch.chdir(folder)
    (folder / "pictures").mkdir(exist_ok=True)
    cv2.imwrite("pictures/one.png", np.zeros((48, 64, 3), np.uint8))
    monkeypatch.setattr(calibrate, "open_training_frames", None)
    before = (folder / "fp32.onnx").read_bytes()

    assert run(["calibrate", *shlex.split(command)]) == 1

    assert message in capsys.readouterr().err
    assert (folder / "fp32.onnx").read_bytes() == before


def test_a_quantised_model_is_not_calibrated_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line says which file to take; an existing file is kept."""
    monkeypatch.chdir(folder)

    assert run(shlex.split("calibrate int8.onnx new.onnx --data rooms --frames 8")) == 1
    assert "int8.onnx is int8; calibrate the fp32 model" in capsys.readouterr().err
    before = (folder / "int8.onnx").read_bytes()
    assert run(shlex.split("calibrate fp32.onnx int8.onnx --data rooms")) == 1
    assert "--force" in capsys.readouterr().err
    assert (folder / "int8.onnx").read_bytes() == before


def test_evaluation_warns_of_frames_unlike_those_calibrated_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of rooms on a street; the FP32 model was not calibrated, so nothing is said."""
    options = f"--data {folder}/street --protocol kitti_raw --json {tmp_path}/out.json --force"

    assert run(shlex.split(f"evaluate {folder}/int8.onnx {options}")) == 0
    assert "warning: calibrated on frames of width / height 1.33" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["warnings"]
    assert run(shlex.split(f"evaluate {folder}/fp32.onnx {options}")) == 0
    assert "warning: calibrated" not in capsys.readouterr().out
    assert np.isfinite(json.loads((tmp_path / "out.json").read_text())["summary"]["rel"])
