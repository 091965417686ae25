"""The whole pipeline as a user types it, on a small generated data set: every arrow once."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from msfnet import DepthEstimator
from msfnet.__main__ import run
from msfnet_runtime.sources import open_source

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

SMALL = (
    "--set data.image_size=[64,208] --set data.crop=[64,192] --set data.inference_size=[64,192] "
    "--set network.decoder_width=0.125 --set network.usf_width=8 --set trainer.epochs=2 "
    "--set trainer.workers=0 --set trainer.batch_size=2"
)

COMMANDS = (
    "data synthesize train --layout kitti --scenes 2 --frames 5 --size 128x416 --seed 1",
    "data synthesize test --layout kitti --scenes 1 --frames 4 --size 128x416 --seed 2",
    "data check train",
    f"train quick --data train --out run {SMALL}",
    "export run/best.ckpt fp32.onnx --frame-size 128x416",
    "export run/best.ckpt fp16.onnx --frame-size 128x416 --precision fp16",
    "export run/best.ckpt network.onnx --graph network",
    "calibrate fp32.onnx int8.onnx --data train --frames 8 --method minmax",
    "build fp16.onnx fp16.engine --arch sm86,sm89",
    "stream fp16.onnx test --out depth.mp4",
    "stream int8.onnx test --out depth",
    "evaluate run/best.ckpt --data test --protocol kitti_raw --json torch.json",
    "evaluate fp32.onnx --data test --protocol kitti_raw --json fp32.json",
    "evaluate network.onnx --data test --protocol kitti_raw --json network.json",
    "bench fp32.onnx int8.onnx --against pytorch --data test --protocol kitti_raw --frames 3 "
    "--rounds 1 --report report.html",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Type all commands, each of which must succeed."""
    made = tmp_path_factory.mktemp("commands")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        for command in COMMANDS:
            assert run(shlex.split(command)) == 0, command
    return made


def rel(file: Path) -> float:
    """Return the REL of a stored evaluation."""
    return float(json.loads(file.read_text())["summary"]["rel"])


def test_an_export_scores_as_its_checkpoint_under_the_same_protocol(folder: Path) -> None:
    """This holds for deploy graphs and for network graphs."""
    expected = rel(folder / "torch.json")

    assert 0.01 < expected < 2
    assert rel(folder / "fp32.json") == pytest.approx(expected, rel=1e-3)
    assert rel(folder / "network.json") == pytest.approx(expected, rel=1e-3)


def test_the_video_shows_the_frames_beside_their_depth(folder: Path) -> None:
    """Twice as wide as the frames, as many as there are."""
    video = cv2.VideoCapture(str(folder / "depth.mp4"))
    frames = []
    while (answer := video.read())[0]:
        frames.append(answer[1])
    with open_source(str(folder / "test")) as source:
        first = next(iter(source)).image

    assert len(frames) == 4
    assert frames[0].shape == (128, 832, 3)
    assert np.abs(frames[0][:, :416, ::-1].astype(int) - first).mean() < 12


def test_png_depth_is_what_the_model_answers(folder: Path) -> None:
    """Read back in the manifest's unit, within a count."""
    manifest = json.loads((folder / "depth/manifest.jsonl").read_text().splitlines()[0])
    stored = cv2.imread(str(folder / "depth/0000000000.png"), cv2.IMREAD_UNCHANGED)
    with (
        DepthEstimator.open(folder / "int8.onnx") as estimator,
        open_source(str(folder / "test")) as source,
    ):
        depth = estimator(next(iter(source)))

    assert stored is not None
    step = 1 / manifest["counts_per_metre"]
    np.testing.assert_allclose(stored * step, depth.values, atol=step)


def test_the_report_holds_all_models_against_the_checkpoint(folder: Path) -> None:
    """``--against pytorch`` found it by its hash; FP32 agrees with it, INT8 less so."""
    report = json.loads((folder / "report.json").read_text())

    names = [row["name"] for row in report["rows"]]
    assert names == ["PyTorch best.ckpt", "fp32.onnx", "int8.onnx"]
    assert report["rows"][1]["parity"]["maximum"] < 1e-3
    assert report["rows"][2]["parity"]["maximum"] > report["rows"][1]["parity"]["maximum"]
    assert (folder / "report.html").stat().st_size > 1_000_000


@pytest.mark.parametrize("model", ["run/best.ckpt", "fp16.onnx", "int8.onnx", "fp16.engine"])
def test_every_artefact_says_what_it_is(
    folder: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Depth range, sizes, and the checkpoint it comes from."""
    assert run(["inspect", str(folder / model)]) == 0

    shown = capsys.readouterr().out
    assert "metric, 1 to 80 m" in shown
    assert "64x192" in shown
    assert "mobilenetv3_small_100" in shown
