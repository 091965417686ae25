from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_runtime import MsfnetError
from msfnet_runtime.images import read_image, read_raw
from tests.orientations import encode as encode_turned
from tests.orientations import shown, tiff

JPEGS = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
}


def with_thumbnail(jpeg: bytes, thumbnail: bytes) -> bytes:
    """Put a complete JPEG into the segment of cameras' thumbnails."""
    return jpeg[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + jpeg[2:]


def encode(image: NDArray[np.integer], suffix: str, options: list[int]) -> bytes:
    return cv2.imencode(suffix, image, options)[1].tobytes()


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_is_cut_short_is_an_error(
    tmp_path: Path, photo: NDArray[np.uint8], kind: str
) -> None:
    """It can end anywhere, also after a thumbnail; OpenCV 4 would fill the rest with grey."""
    content = encode(photo, ".jpg", JPEGS[kind])
    content = with_thumbnail(content, encode(photo[:40, :40], ".jpg", []))
    file = tmp_path / "frame.jpg"
    file.write_bytes(content)
    whole = cv2.imread(str(file))
    assert whole is not None
    np.testing.assert_array_equal(read_image(file), whole[..., ::-1])

    for length in [*np.linspace(10, len(content) - 3, 40).astype(int), *range(-2, 0)]:
        file.write_bytes(content[:length])
        with pytest.raises(MsfnetError, match=r"frame\.jpg is cut short"):
            read_image(file)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_png_that_is_cut_short_is_an_error(
    tmp_path: Path, rng: np.random.Generator, capfd: pytest.CaptureFixture[str], dtype: str
) -> None:
    """It can end anywhere, also within the last chunk; nothing is printed."""
    depth = rng.integers(1, 255, (60, 80)).astype(dtype)
    content = encode(depth, ".png", [])
    file = tmp_path / "depth.png"
    file.write_bytes(content)
    np.testing.assert_array_equal(read_raw(file), depth)

    for length in [*np.linspace(8, len(content) - 20, 40).astype(int), *range(-20, 0)]:
        file.write_bytes(content[:length])
        with pytest.raises(MsfnetError, match=r"depth\.png is cut short"):
            read_raw(file)
    assert capfd.readouterr() == ("", "")


def test_bytes_after_the_end_are_ignored(tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    """Cameras and editors append data; fill bytes before a marker are allowed too."""
    for suffix in (".png", ".jpg"):
        content = encode(photo, suffix, [])
        file = tmp_path / f"frame{suffix}"
        file.write_bytes(content)
        plain = read_image(file)
        file.write_bytes(content + b"appended\xff\xd8\xff\xe1")
        np.testing.assert_array_equal(read_image(file), plain)
    jpeg = encode(photo, ".jpg", [])
    (tmp_path / "filled.jpg").write_bytes(jpeg[:2] + b"\xff\xff" + jpeg[2:-2] + b"\xff\xff\xff\xd9")
    np.testing.assert_array_equal(read_image(tmp_path / "filled.jpg"), plain)


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def test_an_image_with_too_many_pixels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV has a limit of its own, with its own error, where ours is raised above it."""
    monkeypatch.setenv("MSFNET_MAX_MEGAPIXELS", "20000")
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0")), chunk(b"IEND", b"")
    file = tmp_path / "vast.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))

    for read in (read_image, read_raw):
        with pytest.raises(MsfnetError, match=r"vast\.png is not a readable image"):
            read(file)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_only_where_it_is_shown(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    """A photograph is upright; an image that belongs to depth stays as it is stored."""
    image = np.zeros((32, 64, 3), np.uint8)
    image[:16, :32], image[:16, 32:], image[16:, :32] = (250, 20, 90), (20, 250, 90), (90, 20, 250)
    file = tmp_path / f"a{suffix}"
    file.write_bytes(encode_turned(image, suffix, orientation))

    assert difference(read_image(file), image) < 5
    assert difference(read_raw(file)[..., ::-1], image) < 5
    if suffix == ".webp" and cv2.__version__.startswith("4."):
        pytest.skip("OpenCV 4 ignores the orientation of WebP")
    assert difference(read_image(file, upright=True), shown(image, orientation)) < 5


def difference(one: NDArray[np.generic], other: NDArray[np.generic]) -> float:
    """Return the mean difference of two images, infinity where their sizes differ."""
    if one.shape != other.shape:
        return np.inf
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_depth_in_tiff_files_is_never_turned(tmp_path: Path, dtype: str, orientation: int) -> None:
    """OpenCV turns TIFF files even when it is asked not to."""
    depth = np.arange(1, 121).reshape(8, 15).astype(dtype)
    (tmp_path / "depth.tiff").write_bytes(tiff(depth, orientation))
    np.testing.assert_array_equal(read_raw(tmp_path / "depth.tiff"), depth)


def test_every_real_image_is_complete(real_data: Path) -> None:
    """No file of the data sets is reported as cut short."""
    files = [f for f in sorted(real_data.rglob("*")) if f.suffix in (".png", ".jpg")][::15]

    assert len(files) > 150
    for file in files:
        assert read_raw(file).size
