"""Images with an EXIF orientation stay in register with their depth; photographs are shown upright.

Only single photographs have nothing that would have to be turned with them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_datasets import SampleList, open_dataset
from msfnet_runtime.sources import open_source
from tests.orientations import encode, shown, tiff

ROWS, COLUMNS = np.mgrid[0:32, 0:48]
DEPTH = (1 + ROWS / 16 + COLUMNS / 32).astype(np.float32)
"""(32, 48) float32 metres; no turn maps it to itself."""
IMAGE = np.repeat((50 * DEPTH).astype(np.uint8)[..., None], 3, axis=2)
"""Bright where the depth is far, so that both tell each other."""


def densedepth(root: Path, image: bytes, suffix: str) -> SampleList:
    (root / "data/room").mkdir(parents=True)
    (root / f"data/room/1{suffix}").write_bytes(image)
    cv2.imwrite(str(root / "data/room/depth.png"), np.rint(DEPTH * 25.5).astype(np.uint8))
    (root / "data/nyu2_val.csv").write_text(f"data/room/1{suffix},data/room/depth.png\n")
    return open_dataset(root, "nyu")


def bts(root: Path, image: bytes, suffix: str) -> SampleList:
    (root / "room").mkdir(parents=True)
    (root / f"room/rgb{suffix}").write_bytes(image)
    cv2.imwrite(str(root / "room/depth.png"), np.rint(DEPTH * 1000).astype(np.uint16))
    (root / "list.txt").write_text(f"room/rgb{suffix} room/depth.png 518.8\n")
    return open_dataset(root, "nyu_sync", "list.txt")


def own(root: Path, image: bytes, suffix: str) -> SampleList:
    for folder in ("rgb", "depth"):
        (root / folder).mkdir()
    (root / f"rgb/1{suffix}").write_bytes(image)
    (root / "depth/1.tiff").write_bytes(tiff(DEPTH, orientation=6))
    return open_dataset(root, "folder", "all")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff"])
@pytest.mark.parametrize("write", [densedepth, bts, own])
def test_an_image_and_its_depth_stay_in_register(
    tmp_path: Path, write: Callable[[Path, bytes, str], SampleList], suffix: str, orientation: int
) -> None:
    """Depth files have no orientation that counts, so that what is stored belongs together."""
    (sample,) = write(tmp_path, encode(IMAGE, suffix, orientation), suffix)

    image = sample.frame().image
    depth = sample.ground_truth((image.shape[0], image.shape[1]))

    np.testing.assert_allclose(depth, DEPTH, atol=0.03)
    np.testing.assert_allclose(image[..., 0], 50 * depth, atol=5)


@pytest.mark.parametrize("orientation", [1, 3, 5, 6])
def test_a_source_turns_photographs_but_not_images_of_pairs(
    tmp_path: Path, orientation: int
) -> None:
    """The images of KITTI drives, lists and RGB-D folders have intrinsics as they are stored."""
    content = encode(IMAGE, ".jpg", orientation)
    photographs, pairs, rooms = (tmp_path / name for name in ("photographs", "pairs", "rooms"))
    drive = tmp_path / "kitti/date/drive/image_02/data"
    for folder in (photographs, pairs, rooms, drive):
        folder.mkdir(parents=True)
    (photographs / "1.jpg").write_bytes(content)
    (drive / "0000000000.jpg").write_bytes(content)
    own(pairs, content, ".jpg")
    densedepth(rooms, content, ".jpg")

    assert_close(image_of(photographs), shown(IMAGE, orientation))
    assert_close(image_of(photographs / "1.jpg"), shown(IMAGE, orientation))
    assert_close(image_of(photographs / "*.jpg"), shown(IMAGE, orientation))
    for stored in (pairs, rooms, tmp_path / "kitti"):
        assert_close(image_of(stored), IMAGE)


def image_of(what: Path) -> NDArray[np.uint8]:
    with open_source(str(what)) as source:
        (frame,) = source
    return frame.image


def assert_close(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> None:
    np.testing.assert_allclose(one.astype(int), other, atol=5)
