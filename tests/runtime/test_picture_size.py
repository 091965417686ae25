from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from msfnet_runtime import MsfnetError
from msfnet_runtime.images import read_image, read_raw
from msfnet_runtime.picture_size import VARIABLE, check_picture_size, declared_size


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of the person who runs the tests is not theirs."""
    monkeypatch.delenv(VARIABLE, raising=False)


def exr(height: int, width: int) -> bytes:
    """Return the header of an OpenEXR file whose window does not start at 0."""

    def attribute(name: bytes, kind: bytes, value: bytes) -> bytes:
        return name + b"\0" + kind + b"\0" + struct.pack("<I", len(value)) + value

    window = struct.pack("<iiii", 5, -3, 5 + width - 1, -3 + height - 1)
    display = attribute(b"displayWindow", b"box2i", struct.pack("<iiii", 0, 0, 9, 9))
    return b"v/1\x01\2\0\0\0" + display + attribute(b"dataWindow", b"box2i", window) + b"\0"


def big_tiff(height: int, width: int) -> bytes:
    entries = b"".join(
        struct.pack(">HHQQ", tag, 16, 1, value) for tag, value in ((256, width), (257, height))
    )
    return b"MM\0+\0\x08\0\0" + struct.pack(">QQ", 16, 2) + entries + bytes(8)


def tiles(side: int) -> bytes:
    """Return a small TIFF whose tiles are huge."""
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in ((256, 8), (257, 8), (322, side), (323, side))
    )
    return b"II*\0" + struct.pack("<IH", 8, 4) + entries + bytes(4)


def vast_png(height: int, width: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def vast_jpeg(height: int, width: int) -> bytes:
    """Write another size into a small JPEG, which has a thumbnail of its own size before it."""
    plain = cv2.imencode(".jpg", np.full((16, 24, 3), 90, np.uint8))[1].tobytes()
    place = plain.index(b"\xff\xc0") + 5
    plain = plain[:place] + struct.pack(">HH", height, width) + plain[place + 4 :]
    small = cv2.imencode(".jpg", np.full((8, 8, 3), 9, np.uint8))[1].tobytes()
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(small) + 2) + small + plain[2:]


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".png", []),
        (".jpg", []),
        (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".bmp", []),
        (".tiff", []),
        (".tiff", [cv2.IMWRITE_TIFF_COMPRESSION, 1]),
        (".ppm", []),
        (".ppm", [cv2.IMWRITE_PXM_BINARY, 0]),
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 80]),
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
    ],
)
def test_the_size_is_read_without_decoding(
    tmp_path: Path, suffix: str, options: list[int], rng: np.random.Generator
) -> None:
    for height, width in ((47, 300), (301, 50)):
        image = rng.integers(0, 255, (height, width, 3), np.uint8)
        content = cv2.imencode(suffix, image, options)[1].tobytes()
        assert declared_size(content) == (height, width)
        assert declared_size(content[:7]) is None
        (tmp_path / f"a{suffix}").write_bytes(content)
        assert read_image(tmp_path / f"a{suffix}").shape == (height, width, 3)


def test_sizes_of_formats_that_opencv_does_not_write_are_read() -> None:
    assert declared_size(exr(30, 40)) == (30, 40)
    assert declared_size(big_tiff(30, 40)) == (30, 40)
    assert declared_size(tiles(70_000)) == (70_000, 70_000)
    assert declared_size(b"P5 # a comment\n# another\n 40\n30 255\n" + bytes(1200)) == (30, 40)
    extended = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\x27\0\0\x1d\0\0"
    assert declared_size(extended) == (30, 40)
    old = b"BM" + bytes(12) + struct.pack("<IHH", 12, 40, 30)
    assert declared_size(old) == (30, 40)
    upside_down = b"BM" + bytes(12) + struct.pack("<Iii", 40, 40, -30)
    assert declared_size(upside_down) == (30, 40)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"v/1\x01" + bytes(3), b"MM\0*\xff" * 3])
def test_a_damaged_header_has_no_size(content: bytes) -> None:
    assert declared_size(content) is None


@pytest.mark.parametrize(
    ("name", "content", "size"),
    [
        ("a.png", vast_png(40_000, 50_000), "50000x40000, 2000 megapixels"),
        ("a.jpg", vast_jpeg(65_000, 65_000), "65000x65000, 4225 megapixels"),
        ("a.tiff", tiles(20_000), "20000x20000"),
        ("a.tiff", big_tiff(20_000, 20_000), "20000x20000"),
        ("a.exr", exr(20_000, 20_000), "20000x20000"),
    ],
)
def test_a_picture_beyond_the_limit_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, size: str
) -> None:
    """The content decides, whatever the file is called."""
    monkeypatch.setattr(cv2, "imdecode", None)
    for file in (tmp_path / name, tmp_path / "renamed.png"):
        file.write_bytes(content)
        for read in (read_image, read_raw):
            with pytest.raises(MsfnetError, match=f"{file.name} is {size}.*{VARIABLE}"):
                read(file)


def test_the_limit_can_be_raised_and_lowered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_picture_size(8000, 8000, "at the limit")
    with pytest.raises(MsfnetError, match="beyond is 8000x8001"):
        check_picture_size(8001, 8000, "beyond")
    monkeypatch.setenv(VARIABLE, "65")
    check_picture_size(8001, 8000, "raised")
    monkeypatch.setenv(VARIABLE, "0.5")
    cv2.imwrite(str(tmp_path / "a.png"), np.full((600, 900, 3), 7, np.uint8))
    with pytest.raises(MsfnetError, match=r"a\.png is 900x600"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("value", ["many", "0", "-3", "nan", "inf"])
def test_a_limit_that_is_no_size_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(MsfnetError, match=f"{VARIABLE}={value}"):
        check_picture_size(1, 1, "any")


def test_a_picture_without_pixels_is_refused() -> None:
    for size in ((0, 5), (5, -1)):
        with pytest.raises(MsfnetError, match="holds no pixel"):
            check_picture_size(*size, "a")


def test_a_file_that_is_no_file_or_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device never ends, and a pipe waits for a writer."""
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    with pytest.raises(MsfnetError, match=r"zero\.png is not a regular file"):
        read_image(tmp_path / "zero.png")
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(2_000_000_000)
    with pytest.raises(MsfnetError, match=r"sparse\.png has 2000 MB; the limit is 1024"):
        read_image(tmp_path / "sparse.png")
