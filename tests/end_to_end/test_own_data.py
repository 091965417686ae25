"""A folder of one's own RGB-D pairs from check to calibration, without imitating a data set."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from msfnet.__main__ import run
from msfnet_runtime import OnnxArtifact
from msfnet_runtime.sources.synthetic import SyntheticSource
from tests.networks import Exports

PAIRS, SIZE = 12, (720, 1280)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, exports: Exports) -> Path:
    """Write 12 pairs of 1280x720: real ones resized where there are some, or a generated room."""
    made = tmp_path_factory.mktemp("own")
    for name in ("rgb", "depth"):
        (made / "data" / name).mkdir(parents=True)
    real = Path(os.environ.get("MSFNET_REAL_DATA", Path(__file__).parents[3] / "shared/data"))
    kitchen = real / "rgbd/7scenes_redkitchen"
    room = SyntheticSource("room", seed=3, frames=PAIRS, size=(180, 320))
    files = sorted(kitchen.glob("rgb/*.jpg"))[:PAIRS]
    for index in range(PAIRS):
        if files:
            image = cv2.imread(str(files[index]))
            depth = cv2.imread(str(kitchen / f"depth/{files[index].stem}.png"), -1)
        else:
            rendering = room.rendering(index)
            image = np.ascontiguousarray(rendering.image[..., ::-1])
            depth = np.rint(rendering.depth * 1000).astype(np.uint16)
        assert image is not None
        assert depth is not None
        wide = SIZE[::-1]
        cv2.imwrite(str(made / f"data/rgb/{index}.jpg"), cv2.resize(image, wide))
        nearest = cv2.resize(depth, wide, interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(made / f"data/depth/{index}.png"), nearest)
    (made / "data/camera.json").write_text(json.dumps({"depth": "uint16_mm"}))
    (made / "model.onnx").write_bytes(exports.deploy.artifact.path.read_bytes())
    return made


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every command in the folder."""
    monkeypatch.chdir(folder)


def call(command: str) -> None:
    """Run a command line that must succeed."""
    assert run(shlex.split(command)) == 0


def test_it_is_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file, with a contact sheet."""
    call("data check data --all --sheet sheet.png --json check.json")

    (part,) = json.loads((folder / "check.json").read_text())["lists"]
    assert (part["frames"], part["sizes"]) == (PAIRS, [list(SIZE)])
    assert "millimetres" in capsys.readouterr().out
    assert cv2.imread(str(folder / "sheet.png")) is not None


def test_it_is_trained_on_and_scored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One epoch of the shipped recipe at a tiny size; the held-out frame is scored as it lies."""
    small = " ".join(
        f"--set data.{key}=[64,96]" for key in ("image_size", "crop", "inference_size")
    )
    call(
        f"train folder --data data --out run {small} --set trainer.epochs=1 --set trainer.workers=0"
    )
    (checkpoint,) = folder.glob("run/**/best*.ckpt")
    capsys.readouterr()

    call(f"evaluate {checkpoint.relative_to(folder)} --data data --protocol indoor --json s.json")

    score = json.loads((folder / "s.json").read_text())
    assert "protocol indoor: 1 image\n" in capsys.readouterr().out
    assert [s["name"] for s in score["scores"]] == [str(PAIRS - 1)]
    assert score["summary"]["pixels"] > 0.5 * SIZE[0] * SIZE[1]


def test_it_is_calibrated_on_streamed_and_timed(folder: Path) -> None:
    """Calibration sees the training frames alone; a stream sees the images and no depth."""
    call("calibrate model.onnx int8.onnx --data data --frames 4")
    call("stream model.onnx data --out maps --frames 0")
    call("evaluate --predictions maps --data data --protocol indoor --list all --json maps.json")
    call("bench model.onnx --data data --protocol indoor --frames 2 --rounds 1 --json bench.json")

    assert OnnxArtifact.read(folder / "int8.onnx").spec.precision == "int8"
    assert len(list((folder / "maps").glob("*.png"))) == PAIRS
    assert json.loads((folder / "maps.json").read_text())["summary"]["images"] == PAIRS
    assert json.loads((folder / "bench.json").read_text())["protocol"] == "indoor"
