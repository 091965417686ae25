"""Sinks write what others can read, whole or not at all."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_runtime import CameraIntrinsics, DepthMap, Frame, ModelSpec, MsfnetError
from msfnet_runtime.colour import colour_depth
from msfnet_runtime.sink import Sink
from msfnet_runtime.sinks import open_sink
from msfnet_runtime.sinks.images import PngSink
from msfnet_runtime.sinks.video import VideoSink
from tests.runtime.streams import frame, psnr, ramp, read_video
from tests.specs import network_spec

SPEC = network_spec()


def write_all(sink: Sink, frames: list[Frame], depth: DepthMap | None = None) -> None:
    """Write frames, each with the same depth or a ramp of its size."""
    with sink:
        for each in frames:
            sink.write(each, depth or ramp(each.image.shape[:2]))


# Choosing


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((f"a.{suffix}", VideoSink) for suffix in ("mp4", "MKV", "mov", "avi")),
        ("depth", PngSink),
        ("there.mp4", PngSink),
    ],
)
def test_the_path_chooses_the_sink(tmp_path: Path, name: str, kind: type) -> None:
    """A video by its suffix, PNG for a name without one and for an existing folder."""
    (tmp_path / "there.mp4").mkdir()

    sink = open_sink(tmp_path / name, SPEC)

    assert isinstance(sink, kind)
    assert isinstance(sink, Sink)


def test_another_suffix_lists_what_works(tmp_path: Path) -> None:
    """An image or a misspelt video is not written as something else."""
    with pytest.raises(MsfnetError, match=r"\.webm is no kind of output; name a video \(\.mp4"):
        open_sink(tmp_path / "a.webm", SPEC)


@pytest.mark.parametrize("name", ["depth", "depth.mp4"])
def test_an_unwritable_place_is_known_before_the_first_frame(tmp_path: Path, name: str) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("mine")

    with (
        pytest.raises(MsfnetError, match="cannot write"),
        open_sink(tmp_path / "file" / name, SPEC),
    ):
        pytest.fail("must not open")


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    """Yesterday's depth maps are not mixed with today's."""
    (tmp_path / "0000000000.png").write_text("mine")

    with pytest.raises(MsfnetError, match="exists already"), open_sink(tmp_path, SPEC):
        pytest.fail("must not open")


@pytest.mark.parametrize("name", ["depth", "depth.mp4", "depth.avi"])
@pytest.mark.parametrize("written", [0, 3])
def test_an_error_leaves_nothing(tmp_path: Path, name: str, written: int) -> None:
    """Whether or not frames were written; an older video stays as it was."""
    if name.endswith(".mp4"):
        (tmp_path / name).write_text("old")
    before = list(tmp_path.iterdir())

    with pytest.raises(KeyboardInterrupt), open_sink(tmp_path / name, SPEC) as sink:
        for index in range(written):
            sink.write(frame(index), ramp((48, 80)))
        raise KeyboardInterrupt

    assert list(tmp_path.iterdir()) == before
    assert all(path.read_text() == "old" for path in before)


# PNG


def test_png_depth_is_within_half_a_count(tmp_path: Path, rng: np.random.Generator) -> None:
    """Millimetres for indoor models; read back by OpenCV, invalid as 0."""
    spec = replace(SPEC, depth_range_m=(0.1, 10.0))
    values = rng.uniform(0.1, 10, (37, 53)).astype(np.float32)
    valid = rng.random((37, 53)) < 0.8
    values[~valid] = np.nan

    write_all(
        open_sink(tmp_path / "d", spec), [frame(4, (37, 53))], DepthMap(values, valid, 4, 0.4)
    )

    counts = cv2.imread(str(tmp_path / "d/0000000004.png"), cv2.IMREAD_UNCHANGED)
    assert counts is not None
    assert counts.dtype == np.uint16
    assert counts.shape == (37, 53)
    np.testing.assert_array_equal(counts == 0, ~valid)
    assert np.abs(counts[valid] / 1000 - values[valid]).max() <= 0.5001 / 1000


def test_png_depth_saturates_and_never_wraps(tmp_path: Path) -> None:
    """KITTI's 1/256 m above 65.5 m of range; the nearest valid depth does not read as invalid."""
    values = np.array([[80.0, 255.99, 256.0, 257.0, 1e9, 0.0001, 5.0]], np.float32)
    valid = np.array([[True] * 6 + [False]])

    write_all(open_sink(tmp_path / "d", SPEC), [frame(0, (1, 7))], DepthMap(values, valid))

    counts = cv2.imread(str(tmp_path / "d/0000000000.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(counts, [[20480, 65533, 65535, 65535, 65535, 1, 0]])


@pytest.mark.parametrize(("high", "counts"), [(10.0, 1000), (65.5, 1000), (65.6, 256), (80.0, 256)])
def test_the_manifest_says_how_to_read_the_files(tmp_path: Path, high: float, counts: int) -> None:
    """Unit, spec, and per frame its file, index, time, size and camera."""
    spec = replace(SPEC, depth_range_m=(0.5, high))
    camera = CameraIntrinsics(50.0, 51.0, 40.0, 24.0, 80, 48)
    frames = [replace(frame(i), name=n, intrinsics=camera) for i, n in enumerate(("a", "", "a"))]
    depth = replace(ramp((48, 80)), index=7, timestamp_s=0.7)

    write_all(open_sink(tmp_path / "d", spec), frames, depth)

    manifest = json.loads((tmp_path / "d/manifest.json").read_text())
    files = [entry.pop("file") for entry in manifest["frames"]]
    assert manifest["counts_per_metre"] == counts
    assert manifest["saturates_at_m"] == pytest.approx(65535 / counts)
    assert ModelSpec.from_json(json.dumps(manifest["spec"])) == spec
    assert files == ["a.png", "0000000001.png", "a_0000000002.png"]
    assert sorted([*files, "manifest.json"]) == sorted(p.name for p in (tmp_path / "d").iterdir())
    for entry in manifest["frames"]:
        assert CameraIntrinsics(**entry.pop("intrinsics")) == camera
        assert entry == {"index": 7, "timestamp_s": 0.7, "width": 80, "height": 48}


def test_a_frame_name_never_leaves_the_folder(tmp_path: Path) -> None:
    """A source of somebody else's may name frames by paths."""
    write_all(open_sink(tmp_path / "d", SPEC), [replace(frame(0), name="../../x/y")])

    assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["y.png"]
    assert (tmp_path / "d/x/y.png").exists()


# Video


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi"])
def test_a_video_holds_frame_and_depth_side_by_side(tmp_path: Path, suffix: str) -> None:
    """Size, count, rate and pictures as OpenCV's own FFmpeg decodes them."""
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


@pytest.mark.parametrize(("name", "reorders"), [("a.mp4", True), ("a.avi", False)])
def test_the_codec_is_h264_with_common_chroma(tmp_path: Path, name: str, reorders: bool) -> None:
    """What every player takes; avi has no presentation times, so its frames are never reordered."""
    write_all(open_sink(tmp_path / name, SPEC), [frame(i * 5) for i in range(12)], ramp((48, 80)))

    with av.open(str(tmp_path / name)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert context.has_b_frames is reorders


def test_odd_sizes_are_padded_to_even(tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    """97 x 131 loses no row and no column: one repeated row, one repeated column in each half."""
    write_all(open_sink(tmp_path / "a.mp4", SPEC), [Frame(photo, i, i / 30) for i in range(3)])

    picture = read_video(tmp_path / "a.mp4")[0][1]

    assert picture.shape == (98, 264, 3)
    assert psnr(picture[:97, :131], photo) > 24
    luma = picture.mean(axis=2)
    assert np.abs(luma[97, :128] - luma[96, :128]).mean() < 4


def test_later_frames_take_the_first_ones_size(tmp_path: Path) -> None:
    """A folder of images of many sizes still makes one video."""
    sizes = [(48, 80), (96, 160), (31, 57)]

    write_all(open_sink(tmp_path / "a.mp4", SPEC), [frame(i, s) for i, s in enumerate(sizes)])

    pictures, _ = read_video(tmp_path / "a.mp4")
    assert [p.shape for p in pictures] == [(48, 160, 3)] * 3
    expected = cv2.resize(frame(1, (96, 160)).image, (80, 48), interpolation=cv2.INTER_AREA)
    assert psnr(pictures[1][:, :80], expected) > 28


def test_a_video_keeps_the_sources_times(tmp_path: Path) -> None:
    """Gaps stay gaps; a clock that jumps back or stands still goes on at the frame rate."""
    clock = [5.0, 5.1, 5.9, 6.0, 0.0, 0.1, 0.1]
    frames = [replace(frame(i), timestamp_s=seconds) for i, seconds in enumerate(clock)]

    write_all(open_sink(tmp_path / "a.mp4", SPEC, fps=20), frames)

    _, times = read_video(tmp_path / "a.mp4")
    assert times == pytest.approx([0.0, 0.1, 0.9, 1.0, 1.05, 1.15, 1.2], abs=1e-3)


def test_a_video_without_frames_is_an_error_and_no_file(tmp_path: Path) -> None:
    """An empty container is no result."""
    with pytest.raises(MsfnetError, match="no frame was written"):
        write_all(open_sink(tmp_path / "a.mp4", SPEC), [])

    assert list(tmp_path.iterdir()) == []


def test_writing_a_video_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The encoder's own chatter stays out of the user's terminal."""
    write_all(open_sink(tmp_path / "a.mp4", SPEC), [frame(i) for i in range(5)])

    assert capfd.readouterr() == ("", "")


def test_without_pyav_the_command_to_install_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any frame, and with the way that works without it."""
    monkeypatch.setitem(sys.modules, "av", None)

    with pytest.raises(MsfnetError, match=r"pip install 'msfnet\[video\]', or name a folder"):
        open_sink(tmp_path / "a.mp4", SPEC)


@pytest.mark.parametrize("name", ["depth", "depth.mp4"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, name: str, rng: np.random.Generator
) -> None:
    """The system refuses files beyond 20 kB; noise does not compress into them."""
    frames = [Frame(rng.integers(0, 256, (96, 160, 3)).astype(np.uint8), i) for i in range(30)]
    depth = DepthMap(rng.uniform(1, 80, (96, 160)).astype(np.float32), np.ones((96, 160), bool))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(MsfnetError, match="cannot write"):
            write_all(open_sink(tmp_path / name, SPEC), frames, depth)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert list(tmp_path.iterdir()) == []
