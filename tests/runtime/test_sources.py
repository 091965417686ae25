"""Tests that sources read files, folders, videos and cameras, and refuse everything else."""

from __future__ import annotations

import functools
import http.server
import itertools
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_runtime import MsfnetError
from msfnet_runtime.source import Source
from msfnet_runtime.sources import SourceOptions, open_source
from msfnet_runtime.sources.addresses import without_secrets
from msfnet_runtime.sources.images import ImageFolder, natural_key
from msfnet_runtime.sources.kitti import KittiDrive
from msfnet_runtime.sources.live import CameraSource, StreamSource, frame_rate
from msfnet_runtime.sources.nyu import NyuList
from msfnet_runtime.sources.video import VideoSource
from tests.runtime.streams import frame, psnr, read_video, scratch_video, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an mp4 of 12 frames of 48 x 80 at 10 frames per second."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    write_video(path, [frame(index * 10).image for index in range(12)])
    return path


@pytest.fixture(autouse=True)
def _nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Check that OpenCV and FFmpeg print nothing."""
    yield
    assert capfd.readouterr() == ("", "")


def save(path: Path, image: NDArray[np.generic]) -> Path:
    """Write an RGB image with OpenCV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1]))
    return path


def test_a_video_has_the_frames_of_another_decoder(video: Path) -> None:
    """Pixels, times, length and rate agree with those of PyAV."""
    pictures, times = read_video(video)

    with open_source(str(video)) as source:
        frames = list(source)

    assert isinstance(source, VideoSource)
    assert (source.live, source.length) == (False, 12)
    assert source.fps == pytest.approx(10)
    assert [f.index for f in frames] == list(range(12))
    assert [f.timestamp_s for f in frames] == pytest.approx(times)
    for got, expected in zip(frames, pictures, strict=True):
        assert got.image.flags.c_contiguous
        assert psnr(got.image, expected) > 35
    assert all(f.intrinsics is None for f in frames)


def test_a_real_video_has_its_length_and_rate(real_data: Path) -> None:
    """It has 221 frames of 960 x 540 at 25 frames per second, like ffprobe's output."""
    with open_source(str(real_data / "video/driving_solidWhiteRight.mp4")) as source:
        count = sum(f.image.shape == (540, 960, 3) for f in source)

    assert (count, source.length) == (221, 221)
    assert source.fps == pytest.approx(25)


@pytest.mark.parametrize("rotation", [90, 180])
def test_a_video_filmed_on_its_side_stands_upright(tmp_path: Path, rotation: int) -> None:
    """Frames are rotated as the file specifies: counter-clockwise, like NumPy."""
    picture = frame(0).image.copy()
    picture[:16, :16] = 250
    write_video(tmp_path / "phone.mp4", [picture] * 3, rotation=rotation)

    with open_source(str(tmp_path / "phone.mp4")) as source:
        first = next(iter(source))

    assert psnr(first.image, np.rot90(picture, rotation // 90)) > 30


def noisy(count: int) -> list[NDArray[np.uint8]]:
    """Return pictures that make large packets in a video."""
    noise = np.random.default_rng(4).integers(0, 256, (count, 12, 20, 3)).astype(np.uint8)
    return [np.asarray(cv2.resize(each, (160, 96)), np.uint8) for each in noise]


@pytest.mark.parametrize("name", ["damaged.mp4", "damaged.mkv"])
def test_damaged_frames_of_a_video_are_skipped_and_counted(name: str, tmp_path: Path) -> None:
    """They are those whose packets are damaged, although FFmpeg decodes a picture for each."""
    path = tmp_path / name
    write_video(path, noisy(30))
    clean, times = read_video(path)
    damaged = scratch_video(path, [7, 8, 21])

    for _ in range(10):  # with frame threads, some runs would miss a damaged frame
        with open_source(str(path), SourceOptions(skip_bad=True)) as source:
            frames = list(source)
        assert [f.index for f in frames] == [n for n in range(30) if n not in damaged]
        assert source.health.skipped == 3

    assert all(psnr(f.image, clean[f.index]) > 35 for f in frames[: damaged[0]])
    assert [f.timestamp_s for f in frames] == pytest.approx([times[f.index] for f in frames])
    with pytest.raises(MsfnetError, match=rf"frame {damaged[0]} of .*{name} is damaged"):
        list(open_source(str(path)))


def test_damage_in_a_real_video_is_found(real_data: Path, tmp_path: Path) -> None:
    """One key frame and two others of a dashboard video are damaged."""
    path = tmp_path / "drive.mp4"
    shutil.copy(real_data / "video/driving_solidWhiteRight.mp4", path)
    damaged = scratch_video(path, [30, 101, 150])

    with open_source(str(path), SourceOptions(skip_bad=True)) as source:
        decoded = {f.index for f in source}

    assert set(range(221)) - decoded == set(damaged)
    assert source.health.skipped == 3


def test_without_pyav_a_video_names_the_extra_to_install(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV would ignore mirroring, pixel aspect ratio and damage."""
    monkeypatch.setitem(sys.modules, "av", None)

    with pytest.raises(MsfnetError, match=r"pip install 'msfnet\[video\]'"):
        open_source(str(video))


def test_a_recording_in_fragments_has_its_length(tmp_path: Path) -> None:
    """A killed process leaves one; its first fragment lists only a part of the frames."""
    path = tmp_path / "cut.mp4"
    options = {"movflags": "frag_keyframe+empty_moov"}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "5"})
        stream.height, stream.width, stream.pix_fmt = 96, 160, "yuv420p"
        for picture in noisy(47):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))

    with open_source(str(path), SourceOptions(skip_bad=True)) as source:
        assert source.length == 47
        assert [f.index for f in source] == list(range(47))
        assert source.health.skipped == 0


def test_a_name_that_looks_like_a_protocol_is_a_file(video: Path, tmp_path: Path) -> None:
    """FFmpeg would read `rtsp:clip.mp4` as an address."""
    shutil.copy(video, tmp_path / "rtsp:clip.mp4")

    with open_source(str(tmp_path / "rtsp:clip.mp4")) as source:
        assert len(list(source)) == 12


def test_a_file_address_is_the_file(video: Path) -> None:
    """Percent encoding is decoded, and the source is not live."""
    with open_source(video.as_uri().replace("clip", "%63lip")) as source:
        assert (len(list(source)), source.live) == (12, False)


def test_files_that_are_not_videos_are_refused(video: Path, tmp_path: Path) -> None:
    """The files are text, empty, half a video with either box order, and an avi cut short."""
    whole = video.read_bytes()
    front = tmp_path / "front.mp4"
    front.write_bytes(_moov_first(whole))
    with open_source(str(front)) as source:
        assert len(list(source)) == 12, "the reordered file is itself a good one"
    bad = {
        "text.mp4": b"no video at all\n" * 50,
        "empty.mp4": b"",
        "half.mp4": whole[: len(whole) // 2],
        "front_half.mp4": front.read_bytes()[: len(whole) * 2 // 3],
        "half.avi": b"RIFF" + (10_000).to_bytes(4, "little") + b"AVI LIST" + bytes(range(200)),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MsfnetError) as caught:
            list(open_source(str(tmp_path / name)))
        message = str(caught.value)
        assert name in message
        assert "\n" not in message
        assert ("cut short" in message) == ("half" in name)
        assert ("is empty" in message) == (name == "empty.mp4")


def _moov_first(content: bytes) -> bytes:
    """Put the index before the data, as in web videos, with its offsets adjusted."""
    boxes, position = {}, 0
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        boxes[content[position + 4 : position + 8]] = content[position : position + length]
        position += length
    moov = bytearray(boxes[b"moov"])
    at = moov.index(b"stco") + 8
    for entry in range(int.from_bytes(moov[at : at + 4], "big")):
        field = slice(at + 4 + 4 * entry, at + 8 + 4 * entry)
        moved = int.from_bytes(moov[field], "big") + len(moov)
        moov[field] = moved.to_bytes(4, "big")
    rest = b"".join(box for kind, box in boxes.items() if kind not in (b"ftyp", b"moov"))
    return boxes[b"ftyp"] + bytes(moov) + rest


def test_images_come_in_natural_order_whatever_their_size(
    tmp_path: Path, photo: NDArray[np.uint8]
) -> None:
    """2 comes before 10; other files, folders and hidden files are ignored."""
    for name, height in (("f10.png", 40), ("f2.PNG", 97), ("f1.bmp", 60)):
        save(tmp_path / name, photo[:height])
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".f3.png").write_bytes(b"half")
    (tmp_path / "f4.png").mkdir()

    with open_source(str(tmp_path)) as source:
        frames = list(source)

    assert isinstance(source, ImageFolder)
    assert source.length == 3
    assert [f.name for f in frames] == ["f1", "f2", "f10"]
    assert [f.index for f in frames] == [0, 1, 2]
    for got, height in zip(frames, (60, 97, 40), strict=True):
        np.testing.assert_array_equal(got.image, photo[:height])


def test_one_image_is_one_frame(tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    """It has the same pixels and the file's name; a bad one is always an error."""
    with open_source(str(save(tmp_path / "a photo.PNG", photo))) as source:
        (only,) = source
    (tmp_path / "bad.jpg").write_bytes(b"no image")

    assert (source.length, source.live, only.name) == (1, False, "a photo")
    np.testing.assert_array_equal(only.image, photo)
    for skip in (False, True):
        with pytest.raises(MsfnetError, match=r"bad\.jpg is not a readable image"):
            list(open_source(str(tmp_path / "bad.jpg"), SourceOptions(skip_bad=skip)))


def test_natural_order_compares_any_names() -> None:
    """Names mix digits and letters, leading zeros and no digits at all."""
    ordered = ["01", "1", "2", "10", "a", "a9", "a10b2", "a10b10", "b1"]

    shuffled = sorted(map(Path, reversed(ordered)), key=natural_key)

    assert [path.name for path in shuffled] == ordered


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    """The error contains its path."""
    (tmp_path / "0.png").write_bytes(b"not an image")

    with pytest.raises(MsfnetError, match=r"0\.png is not a readable image"):
        list(open_source(str(tmp_path)))


def test_a_kitti_drive_has_its_camera(real_data: Path) -> None:
    """Date and drive can be opened; the intrinsics are the calibration file's P_rect_02."""
    date = real_data / "kitti_raw/2011_09_26"
    with open_source(str(date / "2011_09_26_drive_0001_sync")) as source:
        frames = list(source)

    assert isinstance(source, KittiDrive)
    assert (source.length, source.fps, len(frames)) == (3, 10.0, 3)
    camera = frames[0].intrinsics
    assert camera is not None
    assert (camera.fx, camera.cx, camera.cy) == pytest.approx((721.5377, 609.5593, 172.854))
    assert frames[0].image.shape == (camera.height, camera.width, 3) == (375, 1242, 3)
    every = open_source(str(date))
    assert isinstance(every, KittiDrive)
    assert every.length == 3 + 12 + 24


def test_nyu_lists_open_by_folder_and_by_file(real_data: Path) -> None:
    """The folder opens its validation list here; a list has its images in its order."""
    folder = open_source(str(real_data / "nyu_mini"))
    listed = open_source(str(real_data / "nyu_mini/data/nyu2_train.csv"))

    assert isinstance(folder, NyuList)
    assert isinstance(listed, NyuList)
    assert (folder.length, listed.length) == (213, 1114)
    assert next(iter(folder)).image.shape == (240, 320, 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.mp4", "does not exist"),
        ("empty", "holds no images"),
        ("list.csv", "line 1"),
        ("camera", "does not exist; .* camera index"),
    ],
)
def test_what_is_not_a_source_is_refused(tmp_path: Path, name: str, words: str) -> None:
    """The error is one line that names the problem."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("only one column\n")

    with pytest.raises(MsfnetError, match=words) as caught:
        open_source(str(tmp_path / name))

    assert "\n" not in str(caught.value)


def test_a_camera_that_is_not_there_says_what_to_check() -> None:
    """Digits are the index of a camera."""
    with pytest.raises(MsfnetError, match="camera 73 cannot be opened"):
        open_source("73")


ADDRESSES = {
    "rtsp://me:s3cret@127.0.0.1:9/x": "rtsp://127.0.0.1:9/x",
    "rtsp://me:s3cret@127.0.0.1:9/x?channel=1": "rtsp://127.0.0.1:9/x?…",
    "rtsp://me:s3@cret@127.0.0.1:9/x": "rtsp://127.0.0.1:9/x",
    "rtsp://me:s3/cret@127.0.0.1:9/x": "rtsp://127.0.0.1:9/x",
    "rtsp://me:s3#cret@127.0.0.1:9/x": "rtsp://127.0.0.1:9/x",
    "rtsp://me:s3?cret@127.0.0.1:9/x": "rtsp://127.0.0.1:9/x",
    "rtsp://s3cret@127.0.0.1:9/x": "rtsp://127.0.0.1:9/x",
    "http://127.0.0.1:9/x?user=me&password=s3cret": "http://127.0.0.1:9/x?…",
    "http://127.0.0.1:9/x?loginpas=s3cret": "http://127.0.0.1:9/x?…",
    "http://127.0.0.1:9/x#s3cret": "http://127.0.0.1:9/x?…",
    "http://127.0.0.1:9/user=me_password=s3cret_channel=1": "http://127.0.0.1:9/user=me_password=…",
    "rtsp:/me:s3cret@127.0.0.1:9/x": "rtsp:/127.0.0.1:9/x",
    "me:s3cret@127.0.0.1:9/x": "127.0.0.1:9/x",
    "http://127.0.0.1:9/": "http://127.0.0.1:9/",
    "http://[::1]:9/x": "http://[::1]:9/x",
}
"""Addresses that cannot be opened, and how messages show them."""


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_error_hides_the_secrets_of_an_address(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Users put error messages into bug reports."""
    with pytest.raises(MsfnetError) as caught:
        open_source(address)

    assert str(caught.value).startswith(ADDRESSES[address] + " ")
    assert "cret" not in str(caught.value) + caplog.text


def test_secrets_of_a_pipeline_are_hidden() -> None:
    """They are in its addresses and in the properties of its elements."""
    text = "rtspsrc location=rtsp://a:s3cret@h/x?token=s3cret user-id=a user-pw=s3cret ! appsink"

    with pytest.raises(MsfnetError) as caught:
        open_source(text)

    shown = without_secrets(text)
    assert shown == "rtspsrc location=rtsp://h/x?… user-id=a user-pw=… ! appsink"
    assert "s3cret" not in str(caught.value)
    assert without_secrets("http://host/a@b") == "http://host/a@b"
    assert without_secrets("frames/key 1.mp4") == "frames/key 1.mp4"


def test_a_network_stream_is_live(tmp_path: Path) -> None:
    """Frames of a recording on a server are stamped on arrival, until it ends."""
    video = tmp_path / "clip.mkv"
    write_video(video, [frame(index * 10).image for index in range(12)])

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Print nothing."""

    handler = functools.partial(Quiet, directory=str(video.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with open_source(f"http://127.0.0.1:{server.server_port}/{video.name}") as source:
            frames = list(source)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

    assert isinstance(source, StreamSource)
    assert (source.live, source.length) == (True, None)
    assert source.fps == pytest.approx(10)
    assert frames[-1].index == 11, "a slow consumer gets the newest"
    assert all(a.index < b.index for a, b in itertools.pairwise(frames))
    times = [f.timestamp_s for f in frames]
    assert times[0] == 0
    assert all(a < b for a, b in itertools.pairwise(times))
    assert psnr(frames[-1].image, read_video(video)[0][11]) > 35


def test_a_camera_yields_rgb_and_is_released(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the device is a video: the source is live, BGR becomes RGB, and it is released."""
    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    monkeypatch.setattr(cv2, "VideoCapture", {2: capture}.get)

    with open_source("2") as source:
        frames = list(source)
        dropped = source.health.dropped

    assert isinstance(source, CameraSource)
    assert isinstance(source, Source)
    assert (source.live, source.length, len(frames) + dropped) == (True, None, 12)
    assert psnr(frames[-1].image, read_video(video)[0][11]) > 35
    assert not capture.isOpened()


def test_a_camera_without_a_rate_gets_thirty() -> None:
    """A capture that is not open returns what such drivers return."""
    assert frame_rate(cv2.VideoCapture(), 30.0) == 30.0


def test_a_drive_whose_timestamps_end_early_is_refused(tmp_path: Path) -> None:
    """Counting on at 10 Hz would let the time run backwards; without the file it is counted."""
    images = tmp_path / "image_02/data"
    images.mkdir(parents=True)
    for name in ("0000000000.png", "0000000001.png", "0000000002.png", "\u00b2.png"):
        cv2.imwrite(str(images / name), np.zeros((8, 8, 3), np.uint8))
    times = tmp_path / "image_02/timestamps.txt"
    times.write_text("2011-09-26 13:02:25.000000000\n2011-09-26 13:02:25.500000000\n")

    with pytest.raises(MsfnetError, match=r"frame 2, but its timestamps\.txt only 2 times"):
        list(KittiDrive(tmp_path))
    times.unlink()
    assert [frame.timestamp_s for frame in KittiDrive(tmp_path)] == [0, 0.1, 0.2]
