"""Tests that a video's frames are those that its file asks players to show."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import struct
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_runtime import MsfnetError
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.sources import SourceOptions, open_source
from tests.runtime.streams import frame, psnr, read_video, write_video

Picture = NDArray[np.uint8]


@pytest.fixture
def quarters() -> Picture:
    """Return a (48, 80, 3) picture of four colours, different under each turn and mirroring."""
    picture = np.zeros((48, 80, 3), np.uint8)
    picture[:24, :40], picture[:24, 40:] = (220, 30, 30), (30, 200, 40)
    picture[24:, :40], picture[24:, 40:] = (40, 40, 210), (240, 240, 230)
    return picture


MATRICES: dict[tuple[int, int, int, int], Callable[[Picture], Picture]] = {
    (1, 0, 0, 1): lambda im: im,
    (-1, 0, 0, -1): lambda im: np.rot90(im, 2),
    (0, 1, -1, 0): lambda im: np.rot90(im, -1),
    (0, -1, 1, 0): lambda im: np.rot90(im, 1),
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda im: np.transpose(im, (1, 0, 2)),
    (0, -1, -1, 0): lambda im: np.transpose(np.rot90(im, 2), (1, 0, 2)),
}
"""Picture shown for each display matrix a, b, c, d of ISO/IEC 14496-12: x' = a x + c y."""


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_every_display_matrix_is_obeyed(
    matrix: tuple[int, int, int, int], suffix: str, quarters: Picture, tmp_path: Path
) -> None:
    """The track's matrix turns and mirrors the frames; ``rotate`` turns them further."""
    path = tmp_path / f"video.{suffix}"
    write_video(path, [quarters] * 2)
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    expected = MATRICES[matrix](quarters)

    with open_source(path) as source:
        first = next(iter(source))
    with open_source(path, SourceOptions(rotate=90)) as source:
        rotated = next(iter(source))

    assert first.image.shape == expected.shape
    assert psnr(first.image, expected) > 25
    assert psnr(rotated.image, np.rot90(expected, -1)) > 25
    camera = SinkOptions(lens=90.0).camera(first)
    assert camera.fx == pytest.approx(expected.shape[1] / 2), "a field of view is that of the frame"


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_display_matrix_in_matroska_is_obeyed(
    mirrored: bool, quarters: Picture, tmp_path: Path
) -> None:
    """Matroska stores it as roll and yaw of a projection."""
    path = tmp_path / "video.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 80, "yuv420p"
        matrix = (-1, 0, 0, 1) if mirrored else (-1, 0, 0, -1)
        a, b, c, d = (value << 16 for value in matrix)
        stream.set_display_matrix((a, b, 0, c, d, 0, 0, 0, 1 << 30))
        container.mux(stream.encode(av.VideoFrame.from_ndarray(quarters, format="rgb24")))
        container.mux(stream.encode(None))

    with open_source(path) as source:
        first = next(iter(source))

    assert psnr(first.image, MATRICES[matrix](quarters)) > 25


@pytest.mark.parametrize("ratio", [Fraction(64, 45), Fraction(10, 11)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pixels_become_square(ratio: Fraction, suffix: str, tmp_path: Path) -> None:
    """A circle on the screen is a circle in the frames, whose width is that of players."""
    rows, columns = np.mgrid[:96, :120]
    radius = np.hypot((columns - 59.5) * float(ratio), rows - 47.5)
    picture = np.repeat(np.where(radius < 40, 230, 20)[..., None], 3, axis=2).astype(np.uint8)
    path = tmp_path / f"video.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 96, 120, "yuv420p"
        stream.codec_context.sample_aspect_ratio = ratio
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))

    with open_source(path) as source:
        first = next(iter(source))

    assert first.image.shape == (96, round(120 * ratio), 3)
    lit = np.nonzero(first.image[..., 1] > 125)
    assert np.ptp(lit[0]) + 1 == pytest.approx(80, abs=2)
    assert np.ptp(lit[1]) + 1 == pytest.approx(80, abs=2)


def trimmed(path: Path) -> None:
    """Cut 1.25 to 2.5 s of a video of 40 frames without encoding it again.

    The frames from the key frame before are stored, and hidden by an edit list.
    """
    whole = path.with_stem("whole")
    write_video(whole, [frame(3 * index).image for index in range(40)])
    with av.open(str(whole)) as source, av.open(str(path), "w") as cut:
        read = source.streams.video[0]
        written = cut.add_stream_from_template(read)
        assert read.time_base is not None
        start, end = (int(seconds / read.time_base) for seconds in (1.25, 2.5))
        for packet in source.demux(read):
            if packet.pts is None or packet.dts is None or packet.pts >= end:
                continue
            packet.pts, packet.dts = packet.pts - start, packet.dts - start
            packet.stream = written
            cut.mux(packet)


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize("name", ["trimmed.mp4", "trimmed.mov"])
def test_frames_that_an_edit_list_hides_are_no_frames(
    name: str, skip_bad: bool, tmp_path: Path
) -> None:
    """They count neither in the length nor as damaged; another decoder shows the same frames."""
    trimmed(tmp_path / name)
    expected, times = read_video(tmp_path / name)
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].frames > len(expected) + 10

    with open_source(tmp_path / name, SourceOptions(skip_bad=skip_bad)) as source:
        frames = list(source)

    assert (len(frames), source.length, source.health.skipped) == (len(expected),) * 2 + (0,)
    assert [f.timestamp_s for f in frames] == pytest.approx(times)
    assert psnr(frames[0].image, expected[0]) > 40


@pytest.mark.parametrize(
    "trailer",
    [b"\n", b"\r\n------boundary--\r\n", b"GPS track of a dash camera\0", bytes(64), b"\xff" * 300],
)
@pytest.mark.parametrize("name", ["whole.mp4", "whole.avi"])
def test_bytes_behind_a_video_are_no_damage(name: str, trailer: bytes, tmp_path: Path) -> None:
    """Uploads and cameras leave some; a video that is cut short is still refused."""
    path = tmp_path / name
    write_video(path, [frame(index).image for index in range(5)])
    whole = path.read_bytes()
    path.write_bytes(whole + trailer)

    with open_source(path) as source:
        assert (len(list(source)), source.length) == (5, 5)
    path.write_bytes(whole[:-200])
    with pytest.raises(MsfnetError, match="cut short"):
        open_source(path)


def test_an_avi_that_was_written_to_a_pipe_is_whole(tmp_path: Path) -> None:
    """Its writer could not fill in the length; the number of frames is unknown."""

    class Pipe:
        content = b""

        def write(self, data: bytes) -> int:
            self.content += bytes(data)
            return len(data)

    pipe = Pipe()
    with av.open(pipe, "w", format="avi") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 80, "yuvj420p"
        for index in range(5):
            picture = av.VideoFrame.from_ndarray(frame(index).image, format="rgb24")
            container.mux(stream.encode(picture))
    (tmp_path / "streamed.avi").write_bytes(pipe.content)

    with open_source(tmp_path / "streamed.avi") as source:
        assert (len(list(source)), source.length) == (5, None)


COLOURS = np.array(
    [
        *((255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (30, 90, 160), (128, 128, 128)),
        *((16, 16, 16), (255, 255, 255), (0, 0, 0), (60, 30, 10), (250, 220, 190), (90, 200, 90)),
    ],
    np.uint8,
)

WEIGHTS = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114)}
"""Weights of red and blue in luma by colour matrix: BT.709, untagged as BT.601, BT.601 twice."""


def coded(rgb: Picture, matrix: int, full: bool, bits: int) -> NDArray[np.uint16]:
    """Return Y, Cb and Cr, (3, H, W), by the closed form of ITU-T H.273, 8.3."""
    red, blue = WEIGHTS.get(matrix, (0.2627, 0.0593))
    r, g, b = np.moveaxis(rgb / 255, 2, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    unit, top = 2 ** (bits - 8), 2**bits - 1
    offset, span, chroma = (0, top, top) if full else (16 * unit, 219 * unit, 224 * unit)
    planes = [offset + span * y, 128 * unit + chroma * cb, 128 * unit + chroma * cr]
    return np.clip(np.rint(planes), 0, top).astype(np.uint16)


@pytest.mark.parametrize(
    ("matrix", "bits", "height"),
    [
        (1, 8, 48),
        (2, 8, 48),
        (2, 8, 720),
        (5, 8, 48),
        (6, 8, 48),
        (9, 8, 48),
        (1, 10, 48),
        (9, 10, 48),
    ],
)
@pytest.mark.parametrize("full", [False, True])
def test_colours_follow_the_declared_matrix_and_range(
    matrix: int, bits: int, height: int, full: bool, tmp_path: Path
) -> None:
    """Lossless planes of known colours are read within 3 levels, with and without a tag."""
    patches = COLOURS.reshape(3, 4, 3).repeat(height // 3, axis=0).repeat(height // 3, axis=1)
    planes = coded(patches, matrix, full, bits)
    kind = "yuv444p" if bits == 8 else "yuv444p10le"
    picture = av.VideoFrame(patches.shape[1], height, kind)
    for plane, values in zip(picture.planes, planes, strict=True):
        rows = np.zeros((height, plane.line_size), np.uint8)
        stored = values.astype(np.uint8) if bits == 8 else values.view(np.uint8)
        rows[:, : stored.shape[1]] = stored
        plane.update(rows.tobytes())
    with av.open(str(tmp_path / "colours.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = height, patches.shape[1], kind
        codec = stream.codec_context
        codec.colorspace, codec.color_range = matrix, 2 if full else 1
        codec.color_primaries = codec.color_trc = 1 if matrix == 1 else 2
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))

    with open_source(tmp_path / "colours.mp4") as source:
        first = next(iter(source)).image

    assert np.abs(first.astype(int) - patches).max() <= 3


@pytest.mark.parametrize(("transfer", "words"), [(16, "is HDR"), (18, "is HDR"), (1, "")])
def test_hdr_is_said_once(
    transfer: int, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Frames are not tone-mapped, which the network was not trained for."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 80, "yuv420p"
        stream.codec_context.color_trc = transfer
        for index in range(3):
            picture = av.VideoFrame.from_ndarray(frame(index).image, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))

    with caplog.at_level(logging.WARNING), open_source(tmp_path / "a.mkv") as source:
        assert len(list(source)) == 3

    assert [words in message for message in caplog.messages] == [True] * bool(words)


def test_colours_that_cannot_be_converted_are_one_line(tmp_path: Path) -> None:
    """Constant-luminance BT.2020 is matrix 10."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 80, "yuv420p"
        stream.codec_context.colorspace = 10
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(0).image, format="rgb24")))
        container.mux(stream.encode(None))

    with (
        open_source(tmp_path / "a.mkv") as source,
        pytest.raises(MsfnetError, match=r"a\.mkv has colours of matrix 10"),
    ):
        list(source)


def test_a_file_without_pictures_is_no_video(tmp_path: Path) -> None:
    """Sound alone, also with a cover, contains no video."""
    for name, cover in (("sound.mp4", False), ("sound.mkv", False), ("cover.mp3", True)):
        with av.open(str(tmp_path / name), "w") as container:
            sound = container.add_stream("mp3" if cover else "aac", rate=44100)
            drawn = container.add_stream("mjpeg", rate=1) if cover else None
            if drawn is not None:
                drawn.height, drawn.width, drawn.pix_fmt = 48, 80, "yuvj420p"
                drawn.disposition = av.stream.Disposition.attached_pic
                image = av.VideoFrame.from_ndarray(frame(0).image, format="rgb24")
                container.mux(drawn.encode(image))
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 4096), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate = 44100
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))

        with pytest.raises(MsfnetError, match="contains no video"):
            open_source(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.gif", "gif", "rgb8"),
        ("a.apng", "apng", "rgba"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.mkv", "ffv1", "gray"),
        ("a.mkv", "libx264rgb", "bgr24"),
        ("a.mkv", "ffv1", "yuv422p"),
    ],
)
def test_other_containers_and_pixels_are_read(
    name: str, codec: str, pixels: str, tmp_path: Path
) -> None:
    """Palettes, transparency, grey and planar RGB become RGB; odd sizes stay."""
    size = (47, 81)
    picture = np.full((*size, 3), 255, np.uint8)
    picture[:20, :30] = 0
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=10)
        assert isinstance(stream, av.VideoStream)
        (stream.height, stream.width), stream.pix_fmt = size, pixels
        for _ in range(4):
            image = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(image.reformat(format=pixels)))
        container.mux(stream.encode(None))

    with open_source(tmp_path / name) as source:
        frames = list(source)

    assert len(frames) == 4
    assert all(f.image.shape == (*size, 3) for f in frames)
    assert psnr(frames[-1].image, picture) > 28


def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    """Frames have the file's own times, with any gaps."""
    times = [0.0, 0.04, 0.5, 0.53, 1.7]
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 80, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for index, seconds in enumerate(times):
            picture = av.VideoFrame.from_ndarray(frame(index).image, format="rgb24")
            picture.pts, picture.time_base = round(seconds * 1000), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))

    with open_source(tmp_path / "a.mp4") as source:
        got = [f.timestamp_s for f in source]

    assert source.length == len(times)
    assert got == pytest.approx(times, abs=1e-3)
    assert all(a < b for a, b in itertools.pairwise(got))


@pytest.mark.parametrize("ratio", [1, 250])
def test_a_video_above_the_limit_is_refused_when_it_is_opened(ratio: int, tmp_path: Path) -> None:
    """The pixel aspect ratio counts: it can make small pictures giant."""
    height, width = (8200, 8200) if ratio == 1 else (600, 600)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuvj420p"
        stream.codec_context.sample_aspect_ratio = Fraction(ratio)
        container.mux(stream.encode(av.VideoFrame(width, height, "yuvj420p")))
        container.mux(stream.encode(None))

    with pytest.raises(MsfnetError, match=r"a frame of .*a\.mkv is .* the limit is 64"):
        open_source(tmp_path / "a.mkv")


def _threads() -> int:
    """Return the number of this process's threads, those of libraries too."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def test_pictures_are_freed_at_once(tmp_path: Path) -> None:
    """A stream of days must not wait for the garbage collector: each picture holds threads too."""
    write_video(tmp_path / "a.mp4", [frame(index).image for index in range(30)], rotation=90)
    gc.collect()
    gc.disable()
    try:
        before = _threads()
        with open_source(tmp_path / "a.mp4") as source:
            assert len(list(source)) == 30
            pictures = [each for each in gc.get_objects() if isinstance(each, av.VideoFrame)]
            assert len(pictures) <= 3
            assert _threads() - before <= 2 * (os.cpu_count() or 1)
    finally:
        gc.enable()


def test_a_pipe_is_played(tmp_path: Path) -> None:
    """Another program can write it; nothing of it is read ahead to check it."""
    write_video(tmp_path / "a.mkv", [frame(index).image for index in range(5)])
    os.mkfifo(tmp_path / "pipe.mkv")
    content = (tmp_path / "a.mkv").read_bytes()
    writer = threading.Thread(target=lambda: (tmp_path / "pipe.mkv").write_bytes(content))
    writer.start()

    with open_source(tmp_path / "pipe.mkv") as source:
        assert len(list(source)) == 5

    writer.join()
