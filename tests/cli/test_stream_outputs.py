"""``msfnet stream`` and its outputs: several at once, and how they look."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from tests.onnx_models import conv_model
from tests.runtime.streams import frame, read_video, write_video
from tests.specs import network_spec

SIZE = (64, 96)


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path]:
    """Return a small model and a video of six frames."""
    onnx.save(conv_model(network_spec(*SIZE)), tmp_path / "model.onnx")
    write_video(tmp_path / "in.mp4", [frame(n, SIZE).image for n in range(6)])
    return tmp_path / "model.onnx", tmp_path / "in.mp4"


def stream(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder."""
    command = [sys.executable, "-m", "msfnet", "stream", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_one_run_writes_several_outputs(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    """An overlay as wide as the frame, PNG in KITTI's unit, points, arrays of the same depth."""
    outs = ("a.mp4", "png", "npz:npz", "ply:ply")
    look = ("--layout", "overlay", "--colours", "grey", "--range", "1,20", "--unit", "uint16_256")

    done = stream(
        tmp_path, *inputs, *(x for out in outs for x in ("--out", out)), *look, "--intrinsics=60deg"
    )

    assert done.returncode == 0, done.stderr
    pictures, _ = read_video(tmp_path / "a.mp4")
    assert [picture.shape for picture in pictures] == [(*SIZE, 3)] * 6
    head = json.loads((tmp_path / "png/manifest.jsonl").read_text().splitlines()[0])
    assert head["counts_per_metre"] == 256
    for kind in ("png", "npz", "ply"):
        assert len(list((tmp_path / kind).glob(f"*.{kind}"))) == 6
    arrays = np.load(tmp_path / "npz/0000000005.npz")
    points = (tmp_path / "ply/0000000005.ply").read_bytes().split(b"\n")
    assert b"element vertex %d" % arrays["valid"].sum() in points


def test_one_photo_has_its_depth(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    """A folder and a video of one frame have it; the folder is not written into twice."""
    cv2.imwrite(str(tmp_path / "photo.jpg"), frame(5, SIZE).image)

    done = stream(tmp_path, inputs[0], "photo.jpg", "--out", "depth", "--out", "depth.mp4")
    again = stream(tmp_path, inputs[0], "photo.jpg", "--out", "depth")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 frame in ")
    depth = cv2.imread(str(tmp_path / "depth/photo.png"), cv2.IMREAD_UNCHANGED)
    assert depth is not None
    assert depth.shape == SIZE
    assert depth.dtype == np.uint16
    assert len(read_video(tmp_path / "depth.mp4")[0]) == 1
    assert again.returncode == 1
    assert "depth contains frames of an earlier run" in again.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "line", "status"),
    [
        (("--out", "ply:d"), "point clouds need a camera", 1),
        (("--out", "a.mp4", "--colours", "jet"), "'jet' is not a colour map", 2),
        (("--out", "a.mp4", "--range", "9,1"), "9 to 1 m is not a range", 2),
        (("--out", "ply:d", "--intrinsics", "1,2"), "'1,2' is not a camera", 2),
    ],
)
def test_a_wrong_option_is_one_line(
    arguments: tuple[str, ...], line: str, status: int, inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    """It tells what to give, and leaves nothing behind."""
    done = stream(tmp_path, *inputs, *arguments, "--log", "json")

    assert done.returncode == status
    messages = [json.loads(text) for text in done.stderr.splitlines()]
    errors = [message["error"] for message in messages if "error" in message]
    assert len(errors) == 1
    assert line in errors[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "model.onnx"]
