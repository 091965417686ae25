"""Tests videos with independent decoders."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_runtime import Frame, MsfnetError
from msfnet_runtime.colour import Layout, colour_depth
from msfnet_runtime.sinks import open_sink
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.sinks.video import yuv420
from tests.runtime.streams import frame, psnr, ramp, read_video, write_all
from tests.specs import network_spec

SPEC = network_spec()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi"])
def test_a_video_holds_frame_and_depth_side_by_side(tmp_path: Path, suffix: str) -> None:
    """OpenCV's FFmpeg decodes the right size, count, rate and pictures."""
    size = (120, 200)
    frames, depth = [frame(i * 5, size) for i in range(12)], ramp(size)
    frames = [replace(f, timestamp_s=i / 10) for i, f in enumerate(frames)]
    path = tmp_path / f"depth{suffix}"

    write_all(open_sink(path, SPEC, fps=10), frames, depth)

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10, rel=0.01)
    pictures: list[NDArray[np.uint8]] = []
    while (read := capture.read())[0]:
        pictures.append(np.asarray(read[1], np.uint8)[..., ::-1])
    assert len(pictures) == 12
    assert all(picture.shape == (120, 400, 3) for picture in pictures)
    for picture, source in zip(pictures, frames, strict=True):
        assert psnr(picture[:, :200], source.image) > 33
    coloured = colour_depth(depth.values, depth.valid, SPEC.depth_range_m)
    assert psnr(pictures[5][35:80, 200:], coloured[35:80]) > 24, "chroma is halved in 4:2:0"
    assert pictures[5][4:26, 204:245].mean() < 12, "invalid is black"


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_the_codec_is_h264_with_common_chroma(tmp_path: Path, name: str) -> None:
    """Every player accepts it; frames are never reordered, which would delay some."""
    write_all(open_sink(tmp_path / name, SPEC), [frame(i * 5) for i in range(12)], ramp((48, 80)))

    with av.open(str(tmp_path / name)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert not context.has_b_frames


def test_colours_are_means_of_four_pixels(rng: np.random.Generator) -> None:
    """They match BT.601's matrix in limited range to one level; luma is that of each pixel."""
    picture = rng.integers(0, 256, (22, 36, 3)).astype(np.uint8)
    matrix = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112], [112, -93.786, -18.214]])
    levels = picture / 255 @ matrix.T + (16, 128, 128)
    means = levels.reshape(11, 2, 18, 2, 3).mean(axis=(1, 3))

    planes = yuv420(picture).astype(int)

    assert np.abs(planes[:22] - levels[..., 0]).max() <= 1
    for plane, expected in zip(
        planes[22:].reshape(2, 11, 18), np.moveaxis(means, 2, 0)[1:], strict=True
    ):
        assert np.abs(plane - expected).max() <= 1.5


def test_the_file_declares_its_colour_space(tmp_path: Path) -> None:
    """FFmpeg reads BT.601 in limited range in all four properties of a large picture."""
    write_all(open_sink(tmp_path / "a.mp4", SPEC), [frame(0, (360, 1000))])

    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        declared = (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range)
    assert declared == (6, 6, 6, 1)


def test_odd_sizes_are_padded_to_even(tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    """97 x 131 gets one repeated row, and one repeated column in each half."""
    write_all(open_sink(tmp_path / "a.mp4", SPEC), [Frame(photo, i, i / 30) for i in range(3)])

    picture = read_video(tmp_path / "a.mp4")[0][1]

    assert picture.shape == (98, 264, 3)
    assert psnr(picture[:97, :131], photo) > 24
    luma = picture.mean(axis=2)
    assert np.abs(luma[97, :128] - luma[96, :128]).mean() < 4


def test_later_frames_are_resized_to_the_first_ones_size(tmp_path: Path) -> None:
    """A folder of images of many sizes makes one video."""
    sizes = [(48, 80), (96, 160), (31, 57)]

    write_all(open_sink(tmp_path / "a.mp4", SPEC), [frame(i, s) for i, s in enumerate(sizes)])

    pictures, _ = read_video(tmp_path / "a.mp4")
    assert [p.shape for p in pictures] == [(48, 160, 3)] * 3
    expected = cv2.resize(frame(1, (96, 160)).image, (80, 48), interpolation=cv2.INTER_AREA)
    assert psnr(pictures[1][:, :80], expected) > 28


def test_a_video_keeps_the_sources_timestamps(tmp_path: Path) -> None:
    """Gaps are kept; where the clock jumps back or stands still, the frame rate continues."""
    clock = [5.0, 5.1, 5.9, 6.0, 0.0, 0.1, 0.1]
    frames = [replace(frame(i), timestamp_s=seconds) for i, seconds in enumerate(clock)]

    write_all(open_sink(tmp_path / "a.mp4", SPEC, fps=20), frames)

    _, times = read_video(tmp_path / "a.mp4")
    assert times == pytest.approx([0.0, 0.1, 0.9, 1.0, 1.05, 1.15, 1.2], abs=1e-3)


def test_a_video_without_frames_is_an_error_and_no_file(tmp_path: Path) -> None:
    """An empty container is not kept."""
    with pytest.raises(MsfnetError, match="no frame was written"):
        write_all(open_sink(tmp_path / "a.mp4", SPEC), [])

    assert list(tmp_path.iterdir()) == []


def test_a_first_frame_that_fails_leaves_no_file(tmp_path: Path) -> None:
    """FFmpeg does not finish a video without frames, which would end the process."""
    with pytest.raises(MsfnetError, match="8x8"), open_sink(tmp_path / "a.mp4", SPEC) as sink:
        sink.write(Frame(np.zeros((48, 80, 3), np.uint8)), ramp((8, 8)))
    assert list(tmp_path.iterdir()) == []


def test_writing_a_video_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The encoder writes nothing to the terminal."""
    write_all(open_sink(tmp_path / "a.mp4", SPEC), [frame(i) for i in range(5)])

    assert capfd.readouterr() == ("", "")


def test_without_pyav_the_message_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error comes before any frame."""
    monkeypatch.setitem(sys.modules, "av", None)

    with pytest.raises(MsfnetError, match=r"pip install 'msfnet\[video\]'"):
        open_sink(tmp_path / "a.mp4", SPEC)


@pytest.mark.parametrize(("layout", "width"), [("overlay", 132), ("depth", 132)])
def test_other_layouts_are_one_panel(
    tmp_path: Path, layout: Layout, width: int, photo: NDArray[np.uint8]
) -> None:
    """They are as wide as the frame; where depth is invalid they show the frame, or black."""
    options = SinkOptions(layout=layout, colours="grey", range_m=(0.5, 10.0))

    write_all(open_sink(tmp_path / "a.mp4", SPEC, options=options), [Frame(photo)])

    picture = read_video(tmp_path / "a.mp4")[0][0]
    assert picture.shape == (98, width, 3)
    corner = photo[:24, :32] if layout == "overlay" else np.zeros((24, 32, 3), np.uint8)
    assert psnr(picture[:24, :32], corner) > 20
    assert picture[30:60, 100:131].max() < 20 or layout == "overlay", "beyond 10 m is far"


def test_the_last_row_and_column_are_the_frames_own(tmp_path: Path) -> None:
    """Bright ones on black are kept at odd sizes; OpenCV's writer would drop them."""
    image = np.zeros((61, 83, 3), np.uint8)
    image[-1], image[:, -1] = 255, 255

    write_all(open_sink(tmp_path / "a.mp4", SPEC), [Frame(image, i, i / 30) for i in range(5)])

    picture = read_video(tmp_path / "a.mp4")[0][-1]
    assert picture[60, :83].min() > 200
    assert picture[:61, 82].min() > 200
    assert picture[:58, :80].max() < 60
