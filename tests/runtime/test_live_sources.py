"""Tests that live sources come back after a loss, and stop at once."""

from __future__ import annotations

import http.server
import logging
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_runtime import CameraIntrinsics, Frame, MsfnetError
from msfnet_runtime.engines.fake import FakeEngine
from msfnet_runtime.estimator import DepthEstimator
from msfnet_runtime.images import write_image
from msfnet_runtime.pipeline import run_pipeline
from msfnet_runtime.source import Source
from msfnet_runtime.sources import IterableSource, SourceOptions, live, open_source
from msfnet_runtime.sources.adapters import RotatedSource
from msfnet_runtime.sources.live import LiveSource
from tests.runtime.streams import frame, psnr, scratch_video, write_video
from tests.runtime.virtual_clock import VirtualClock
from tests.specs import deploy_spec

Send = Callable[[bytes], object]

GARBAGE = bytes(range(256)) * 20


def part(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture as one part of a motion JPEG stream."""
    _, jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return wrapped(jpeg.tobytes())


def wrapped(content: bytes) -> bytes:
    """Return bytes as a part declared as JPEG."""
    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content + b"\r\n"


@contextmanager
def served(stream_parts: Callable[[int, Send], None]) -> Iterator[str]:
    """Serve a motion JPEG camera: ``stream_parts`` sends the parts of a connection."""
    connections = iter(range(1000))

    class Camera(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                stream_parts(next(connections), self.wfile.write)
            except OSError:
                return  # the reader has disconnected

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/video.mjpg"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the wait for lost sources."""
    monkeypatch.setattr(live, "FIRST_WAIT_S", 0.05)


@pytest.mark.usefixtures("soon")
def test_a_camera_that_breaks_off_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    """After three connections of eight pictures losses are counted; times and indices continue."""

    def stream_parts(connection: int, send: Send) -> None:
        for _ in range(8):
            send(part(frame(10 * connection).image))
            time.sleep(0.01)

    with served(stream_parts) as url, caplog.at_level(logging.WARNING), open_source(url) as source:
        frames = list(islice(source, 20))
        losses = source.health.losses

    assert losses >= 2
    assert all(a.index < b.index for a, b in pairwise(frames))
    times = [f.timestamp_s for f in frames]
    assert times == sorted(times)
    assert psnr(frames[0].image, frame(0).image) > 30
    assert frames[-1].image.mean() > frames[0].image.mean() + 10
    assert any("is lost" in message for message in caplog.messages)
    assert any("is back" in message for message in caplog.messages)


def scratched(content: bytes) -> bytes:
    """Return a JPEG with some wrong bytes in the middle."""
    damaged = bytearray(content)
    for place in range(len(content) // 2, len(content) // 2 + 60, 5):
        damaged[place] ^= 0x55
    return bytes(damaged)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    "damage", [lambda _: GARBAGE, lambda jpeg: jpeg[: len(jpeg) // 2], scratched]
)
def test_damaged_parts_are_skipped(damage: Callable[[bytes], bytes]) -> None:
    """Garbage, half a picture or wrong bytes lose that part only, and are counted."""
    noise = np.random.default_rng(1).integers(0, 256, (96, 160, 1)).astype(np.uint8)
    picture = np.repeat(noise, 3, axis=2)
    good = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()

    def stream_parts(connection: int, send: Send) -> None:
        for index in range(40):
            send(wrapped(damage(good) if index % 4 == 2 else good))
            time.sleep(0.005)

    with served(stream_parts) as url, open_source(url, SourceOptions(reconnect=False)) as source:
        frames = list(source)
        health = source.health

    assert health.skipped == 10
    assert len(frames) + health.dropped == 30
    assert all(psnr(f.image, picture) > 30 for f in frames)


def test_a_source_without_reconnection_ends() -> None:
    """The frames until then are kept."""

    def stream_parts(connection: int, send: Send) -> None:
        for _ in range(6):
            send(part(frame(0).image))

    with served(stream_parts) as url, open_source(url, SourceOptions(reconnect=False)) as source:
        assert 1 <= len(list(source)) <= 6
        assert source.health.losses == 0


def test_a_stream_that_stalls_is_stopped_at_once() -> None:
    """It does not wait for the network's time-out."""
    silent = threading.Event()

    def stream_parts(connection: int, send: Send) -> None:
        for _ in range(6):
            send(part(frame(0).image))
        silent.wait(30)

    with served(stream_parts) as url, open_source(url) as source:
        frames = iter(source)
        next(frames)
        threading.Timer(0.3, source.stop).start()
        start = time.monotonic()
        for _ in frames:
            pass
        source.__exit__(None, None, None)
        waited = time.monotonic() - start
        silent.set()

    assert waited < 3


def test_damaged_pictures_of_a_coded_stream_are_skipped(tmp_path: Path) -> None:
    """They are those of the recording whose packets are damaged."""
    noise = np.random.default_rng(4).integers(0, 256, (40, 12, 20, 3)).astype(np.uint8)
    video = tmp_path / "clip.mkv"
    write_video(video, [np.asarray(cv2.resize(n, (160, 96)), np.uint8) for n in noise])
    scratch_video(video, [11, 12, 30])

    def stream_parts(connection: int, send: Send) -> None:
        send(video.read_bytes())

    with served(stream_parts) as url, open_source(url) as source:
        frames = list(source)
        health = source.health

    assert health.skipped == 3
    assert len(frames) + health.dropped == 37


@pytest.mark.usefixtures("soon")
def test_a_stream_that_falls_silent_is_lost_and_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server sends nothing on an open connection; after the time-out there is a new one."""
    ended = threading.Event()

    def stream_parts(connection: int, send: Send) -> None:
        for _ in range(6):
            send(part(frame(30 * connection).image))
        if connection == 0:
            ended.wait(30)
        while not ended.wait(0.02):
            send(part(frame(30).image))

    with (
        served(stream_parts) as url,
        caplog.at_level(logging.WARNING),
        open_source(url, SourceOptions(timeout_s=0.8)) as source,
    ):
        frames, arrivals = [], []
        for each in islice(source, 12):
            frames.append(each)
            arrivals.append(time.monotonic())
            if psnr(each.image, frame(30).image) > 30:
                break
        losses = source.health.losses
        ended.set()

    assert losses == 1
    assert psnr(frames[0].image, frame(0).image) > 30
    assert psnr(frames[-1].image, frame(30).image) > 30
    assert 0.8 < arrivals[-1] - arrivals[0] < 5
    assert any("is lost" in message for message in caplog.messages)


class Capture:
    """A camera with OpenCV's interface that has five pictures, then none."""

    opened = 0

    def __init__(self, device: int | str) -> None:
        type(self).opened += 1
        self.settings: dict[int, float] = {}
        self.left = 5

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        """Fail on the second and third try."""
        return self.opened not in (2, 3)

    def get(self, _: int) -> float:
        """Return 0, as cameras do."""
        return 0.0

    def set(self, key: int, value: float) -> bool:
        """Accept any setting."""
        self.settings[key] = value
        return True

    def grab(self) -> bool:
        """Return True five times."""
        self.left -= 1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, NDArray[np.uint8] | None]:
        """Return BGR; the second picture of each five cannot be decoded."""
        return (False, None) if self.left == 3 else (True, frame(0).image[..., ::-1])

    def release(self) -> None:
        """Do nothing."""


class Simulated:
    """A capture that has a picture every 10 simulated ms, 200 in all."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock, self._left = clock, 200

    def get(self, _: int) -> float:
        """Return 0, as cameras do."""
        return 0.0

    def grab(self) -> bool:
        """Wait for the next picture."""
        self._clock.sleep(0.01)
        self._left -= 1
        return self._left >= 0

    def retrieve(self) -> tuple[bool, NDArray[np.uint8]]:
        """Return a picture."""
        return True, np.zeros((4, 6, 3), np.uint8)

    def release(self) -> None:
        """Do nothing."""


def test_a_slow_consumer_gets_the_newest_frame() -> None:
    """A loop ten times slower than the camera gets no old frame; the others are counted."""
    clock = VirtualClock()
    frames, ages = [], []
    source = LiveSource(lambda: Simulated(clock), "camera", reconnect=False, clock=clock)
    with source:
        for each in source:
            frames.append(each)
            ages.append(clock.now() - 100.01 - each.timestamp_s)
            clock.sleep(0.1003)

    assert 19 <= len(frames) <= 21
    assert max(ages[:-1]) < 0.0101, "no frame but the last is older than one frame time"
    assert source.health.dropped == 200 - len(frames)
    assert frames[-1].index == 199


@pytest.mark.usefixtures("soon")
def test_an_unplugged_camera_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve frames come from a camera with five at a time, one of which is bad."""
    made: list[Capture] = []
    Capture.opened = 0

    def open_capture(device: int) -> Capture:
        made.append(Capture(device))
        return made[-1]

    monkeypatch.setattr(cv2, "VideoCapture", open_capture)
    options = SourceOptions(camera_size=(480, 640), camera_fps=15)
    engine = FakeEngine(deploy_spec(), lambda batch: np.full((1, 1, 32, 64), 2.5, np.float32))

    with open_source("/dev/video7", options) as source:
        stats = run_pipeline(source, DepthEstimator(engine), [], max_frames=3)
        assert stats.frames == 3
    assert made[0].settings[cv2.CAP_PROP_FRAME_WIDTH] == 640
    assert made[0].settings[cv2.CAP_PROP_FPS] == 15

    Capture.opened = 0
    with open_source("7") as source:
        frames = list(islice(source, 12))
        health = source.health
        assert health.losses >= 2
        assert health.skipped >= 3
    assert all(a.index < b.index for a, b in pairwise(frames))


def test_a_pipeline_without_gstreamer_is_refused() -> None:
    """The wheels from pip have no GStreamer."""
    if live.has_gstreamer():
        pytest.skip("this OpenCV has GStreamer")
    with pytest.raises(MsfnetError, match="no GStreamer"):
        open_source("videotestsrc ! videoconvert ! appsink")


def test_any_iterable_is_a_source() -> None:
    """Items are images in either order of colours, or frames, which are unchanged."""
    pictures = [frame(index).image for index in range(3)]

    images = open_source(pictures)
    bgr = IterableSource((p[..., ::-1] for p in pictures), fps=10, bgr=True)
    own = frame(9)

    assert isinstance(images, Source)
    assert (images.live, images.length, bgr.length) == (False, 3, None)
    for got, picture in zip(images, pictures, strict=True):
        np.testing.assert_array_equal(got.image, picture)
    converted = list(bgr)
    np.testing.assert_array_equal(converted[2].image, pictures[2])
    assert [f.timestamp_s for f in converted] == pytest.approx([0, 0.1, 0.2])
    assert next(iter(open_source([own]))) is own
    with pytest.raises(MsfnetError, match="item 0 is 48x80x3 float64"):
        list(IterableSource([pictures[0] / 2]))  # type: ignore[list-item]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotated_camera_sees_the_same_points(degrees: int) -> None:
    """A point of the scene is projected onto its rotated pixel."""
    intrinsics = CameraIntrinsics(70.0, 60.0, 37.5, 20.25, 80, 48)
    picture = np.zeros((48, 80, 3), np.uint8)
    picture[11, 62] = 200
    x, y = (62 - 37.5) / 70, (11 - 20.25) / 60

    with RotatedSource(IterableSource([Frame(picture, intrinsics=intrinsics)]), degrees) as source:
        (turned,) = source

    np.testing.assert_array_equal(turned.image, np.rot90(picture, -degrees // 90))
    row, column = np.argwhere(turned.image[..., 0])[0]
    for _ in range(degrees // 90):
        x, y = -y, x  # clockwise, with y down
    seen = intrinsics.rotated(degrees)
    assert turned.intrinsics == seen
    assert (seen.fx * x + seen.cx, seen.fy * y + seen.cy) == pytest.approx((column, row))
    assert (seen.height, seen.width) == turned.image.shape[:2]


def test_options_out_of_range_are_refused() -> None:
    """The message names the option and its value."""
    with pytest.raises(MsfnetError, match=r"45 .*0, 90, 180 or 270"):
        SourceOptions(rotate=45)
    with pytest.raises(MsfnetError, match="camera rate 0"):
        SourceOptions(camera_fps=0)
    with pytest.raises(MsfnetError, match="time-out 0"):
        SourceOptions(timeout_s=0)


def test_bad_images_are_skipped_and_counted_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Positions are kept, there is at most one warning a second; only bad images are an error."""
    for index in range(6):
        write_image(tmp_path / f"{index}.png", frame(index).image)
    whole = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "4.png").write_bytes(b"not an image")

    with pytest.raises(MsfnetError, match=r"2\.png is cut short"):
        list(open_source(str(tmp_path)))
    with (
        caplog.at_level(logging.WARNING),
        open_source(str(tmp_path / "[0-4].png"), SourceOptions(skip_bad=True)) as source,
    ):
        assert [(f.index, f.name) for f in source] == [(0, "0"), (1, "1"), (3, "3")]
        assert source.health.skipped == 2
        assert source.length == 5
    assert len([m for m in caplog.messages if "skipped" in m]) == 1

    with pytest.raises(MsfnetError, match=r"^\S*4\.png"):
        list(open_source(str(tmp_path / "4*"), SourceOptions(skip_bad=True)))
    for text in (str(tmp_path / "**.png"), "a" * 5000):
        with pytest.raises(MsfnetError, match=r"(pattern|path)|names no images"):
            open_source(text)
    assert open_source(tmp_path).length == 6
    with pytest.raises(MsfnetError, match="names no images"):
        open_source(str(tmp_path / "9*.png"))


def test_a_recording_cut_short_is_played_on_request(tmp_path: Path) -> None:
    """Here an mp4 with its index first has lost a third of its data."""
    write_video(tmp_path / "plain.mp4", [frame(3 * index).image for index in range(30)])
    with (
        av.open(str(tmp_path / "plain.mp4")) as plain,
        av.open(str(tmp_path / "front.mp4"), "w", options={"movflags": "faststart"}) as made,
    ):
        stream = made.add_stream_from_template(plain.streams.video[0])
        for packet in plain.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    content = (tmp_path / "front.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 2 // 3])

    with pytest.raises(MsfnetError, match="is cut short"):
        open_source(str(tmp_path / "cut.mp4"))
    with open_source(str(tmp_path / "cut.mp4"), SourceOptions(skip_bad=True)) as source:
        frames = list(source)
        assert 5 < len(frames) < 30
        assert source.health.skipped == 30 - len(frames)


def test_network_streams_without_pyav_name_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes before any connection."""
    monkeypatch.setitem(sys.modules, "av", None)

    with pytest.raises(MsfnetError, match=r"pip install 'msfnet\[video\]'"):
        open_source("rtsp://127.0.0.1/x")


class _FailingCapture:
    """A driver that raises at its fifth picture, and then at its first after each opening."""

    openings = 0

    def __init__(self, error: Exception, where: str) -> None:
        type(self).openings += 1
        if self.openings == 2 and where == "connect":
            raise error
        self._error, self._where, self._read = error, where, 0

    def get(self, what: int, /) -> float:
        """Know nothing."""
        return 0.0

    def grab(self) -> bool:
        """Take 5 ms for a picture; the first connection breaks at the fifth."""
        time.sleep(0.005)
        self._read += 1
        first = self.openings == 1 and self._read == 5
        if first and self._where == "grab":
            raise self._error
        return not (first and self._where in ("connect", "release"))

    def retrieve(self) -> tuple[bool, NDArray[np.uint8]]:
        """Return the picture."""
        if self.openings == 1 and self._read == 5:
            raise self._error
        return True, frame(0).image

    def release(self) -> None:
        """Release nothing."""
        if self._where == "release":
            raise self._error


ERRORS = [MemoryError("one giant picture"), RuntimeError("driver\nbroke"), cv2.error("bad")]


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("where", ["grab", "retrieve", "connect", "release"])
def test_an_error_of_a_driver_is_a_lost_source(
    where: str,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged in one line, and the camera is opened again."""
    monkeypatch.setattr(_FailingCapture, "openings", 0)

    with LiveSource(lambda: _FailingCapture(error, where), "camera 7") as source:
        frames = list(islice(source, 12))

    assert len(frames) == 12
    assert source.health.losses == 1
    lines = [message for message in caplog.messages if type(error).__name__ in message]
    assert lines
    assert all(line.startswith("camera 7 failed: ") and "\n" not in line for line in lines)


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_of_a_driver_ends_a_stream_that_is_not_reopened(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline raises it as one line, and no thread waits for ever."""
    monkeypatch.setattr(_FailingCapture, "openings", 0)
    source = LiveSource(lambda: _FailingCapture(error, "retrieve"), "camera 7", reconnect=False)
    spec = deploy_spec(48, 80)
    engine = FakeEngine(spec, lambda batch: batch[..., 0][None].astype(np.float32))
    model = DepthEstimator(engine)

    with source, pytest.raises(MsfnetError, match=f"camera 7 failed: {type(error).__name__}"):
        run_pipeline(source, model, [])


@pytest.mark.usefixtures("soon")
def test_giant_pictures_of_a_camera_are_skipped_before_they_are_decoded() -> None:
    """A small JPEG can declare many pixels; 64 megapixels are the limit."""
    good = cv2.imencode(".jpg", frame(0).image)[1].tobytes()
    giant = cv2.imencode(".jpg", np.zeros((8200, 8200, 3), np.uint8))[1].tobytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def stream_parts(connection: int, send: Send) -> None:
        for index in range(12):
            send(wrapped(giant if index in (5, 8) else good))
            time.sleep(0.01)

    with served(stream_parts) as url, open_source(url, SourceOptions(reconnect=False)) as source:
        frames = list(source)
        health = source.health

    assert health.skipped == 2
    assert len(frames) + health.dropped == 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"
