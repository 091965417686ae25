"""Tests that frames, cameras and depth maps hold plain numbers, and that others are one line."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msfnet_runtime import CameraIntrinsics, DepthMap, Frame, MsfnetError
from msfnet_runtime.sinks import open_sink
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.sources import IterableSource
from tests.runtime.streams import estimator, frame, ramp, read_video
from tests.specs import network_spec

IMAGE = frame(0).image
MATRIX: Any = np.array([[50, 0, 40], [0, 51, 24], [0, 0, 1]], np.float32)
SIZE: list[Any] = [np.int64(80), 48]
CAMERA = CameraIntrinsics(MATRIX[0, 0], MATRIX[1, 1], MATRIX[0, 2], MATRIX[1, 2], *SIZE)
NUMBERS: list[Any] = [
    (0, 0.5),
    (np.int64(0), 0.5),
    (np.uint8(0), np.float32(0.5)),
    (np.array(0), np.array(0.5)),
    (0, np.float64(0.5)),
]


@pytest.mark.parametrize("text", ["depth", "npz:depth", "ply:depth", "depth.mp4", "depth.rrd"])
@pytest.mark.parametrize(("index", "seconds"), NUMBERS)
def test_every_sink_takes_numpys_numbers(
    index: Any, seconds: Any, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come from camera matrices, data frames and ``arange``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RERUN_ANALYTICS", "0")
    numbered = Frame(IMAGE, index, seconds, CAMERA)
    depth = ramp((48, 80))

    with open_sink(text, network_spec()) as sink:
        sink.write(numbered, DepthMap(depth.values, depth.valid, index, seconds))

    assert (type(numbered.index), type(numbered.timestamp_s)) == (int, float)
    if Path("depth/manifest.jsonl").exists():
        line = json.loads(Path("depth/manifest.jsonl").read_text().splitlines()[1])
        assert (line["index"], line["timestamp_s"]) == (0, 0.5)
        assert line["intrinsics"] == {
            **{"fx": 50.0, "fy": 51.0, "cx": 40.0, "cy": 24.0},
            **{"width": 80, "height": 48},
        }


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Frame(IMAGE, 0, math.nan), "time stamp of frame 0 is nan"),
        (lambda: Frame(IMAGE, 3, math.inf), "time stamp of frame 3 is inf"),
        (lambda: Frame(IMAGE, 0, "1.5 s"), "time stamp of frame 0 is 1.5 s"),  # type: ignore[arg-type]
        (lambda: Frame(IMAGE, 1.5), "index of a frame is 1.5"),  # type: ignore[arg-type]
        (lambda: Frame(IMAGE[..., :2], 4), "image of frame 4 is 48x80x2 uint8"),
        (lambda: DepthMap([[1.0]], [[True]]), "not list"),  # type: ignore[arg-type]
        (lambda: CameraIntrinsics(math.nan, 1, 1, 1, 8, 8), "camera's fx is nan"),
        (lambda: CameraIntrinsics(0, 1, 1, 1, 8, 8), "is not possible"),
        (lambda: CameraIntrinsics(1, 1, 1, 1, 8, 0), "is not possible"),
        (lambda: DepthMap(np.zeros((0, 0), np.float32), np.zeros((0, 0), bool)), "0x0"),
        (lambda: DepthMap(np.zeros((4, 4), np.float32), np.zeros((2, 2), bool)), "4x4 and 2x2"),
        (lambda: DepthMap(np.zeros((1, 4, 4), np.float32), np.zeros((4, 4), bool)), "1x4x4"),
    ],
)
def test_numbers_that_cannot_be_are_one_line(make: Any, words: str) -> None:
    """They would end a sink later, or write files that nobody can read."""
    with pytest.raises(MsfnetError, match=words) as caught:
        make()

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "times",
    [[-5, -4, -3, -2, -1], [5, 4, 3, 2, 1], [1, 1, 1, 1, 1], [0, 0.1, 0.2, -1e9, -1e9 + 0.1]],
)
def test_times_that_do_not_increase_are_written(times: list[float], tmp_path: Path) -> None:
    """A video continues at its frame rate."""
    with open_sink(tmp_path / "a.mp4", network_spec(), fps=10) as sink:
        for index, seconds in enumerate(times):
            sink.write(Frame(IMAGE, index, seconds), ramp((48, 80)))

    pictures, written = read_video(tmp_path / "a.mp4")
    assert len(pictures) == 5
    assert all(0 < b - a < 1.01 for a, b in pairwise(written))


@pytest.mark.parametrize("text", ["a.mp4", "ply:depth"])
def test_depth_of_another_size_than_its_frame_is_one_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sizes are named."""
    monkeypatch.chdir(tmp_path)
    options = SinkOptions(lens=60.0)

    with (
        pytest.raises(MsfnetError, match=r"frame 0 has 8x8 pixels, its image 48x80"),
        open_sink(text, network_spec(), options=options) as sink,
    ):
        sink.write(Frame(IMAGE), ramp((8, 8)))


def test_an_image_is_a_frame_for_the_estimator() -> None:
    """Its depth is that of a frame with this image, also in batches and event loops."""
    model = estimator()
    expected = model(Frame(IMAGE))

    (batched,) = model.batch([IMAGE])

    for got in (model(IMAGE), batched):
        assert (got.index, got.timestamp_s) == (0, 0.0)
        np.testing.assert_array_equal(got.values, expected.values)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (IMAGE.transpose(2, 0, 1), r"3x48x80 uint8, .*transpose\(1, 2, 0\)"),
        (IMAGE[None], "1x48x80x3 uint8, .*one by one"),
        (IMAGE / 255, "48x80x3 float64, .*levels from 0 to 255"),
        (IMAGE[..., 0], "48x80 uint8, .*one channel"),
        (np.zeros((48, 80, 4), np.uint8), "48x80x4 uint8, .*fourth channel"),
        (np.zeros((0, 80, 3), np.uint8), "0x80x3 uint8"),
        ("frame.png", "is str, not an"),
        ([[1, 2, 3]], "is list, not an"),
    ],
)
def test_what_is_no_image_is_one_line(image: Any, words: str) -> None:
    """It names type, shape and order; a source says which item it was."""
    with pytest.raises(MsfnetError, match=words):
        estimator()(image)
    with pytest.raises(MsfnetError, match=rf"item 1 {words if words[0] == 'i' else 'is ' + words}"):
        list(IterableSource([IMAGE, image]))
