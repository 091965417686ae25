from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from msfnet_benchmarks.scoring.protocols import PROTOCOLS, find_protocol
from msfnet_datasets import open_dataset
from msfnet_runtime import MsfnetError

KITTI_REGIONS = (
    ((375, 1242), (153, 371, 44, 1197), (166, 372, 56, 1185)),
    ((370, 1226), (151, 366, 44, 1181), (161, 367, 48, 1177)),
    ((374, 1238), (152, 370, 44, 1193), (165, 371, 54, 1183)),
    ((376, 1241), (153, 372, 44, 1196), (167, 373, 55, 1184)),
    ((370, 1224), (151, 366, 43, 1180), (161, 367, 47, 1176)),
)
"""KITTI's five sizes, Garg's crop of the frame, and of the benchmark crop in the frame's pixels:
computed apart from the code, in exact fractions."""


@pytest.mark.parametrize(
    ("name", "size", "region"),
    [
        ("kitti_raw", (375, 1242), (153, 371, 44, 1197)),
        ("kitti_raw_full", (375, 1242), (0, 375, 0, 1242)),
        ("kitti_raw_lidar_x", (375, 1242), (153, 371, 44, 1197)),
        ("kitti_bts", (375, 1242), (153, 371, 44, 1197)),
        ("kitti_adabins", (375, 1242), (166, 372, 56, 1185)),
        ("nyu_densedepth", (480, 640), (20, 460, 24, 616)),
        ("nyu_bts", (480, 640), (45, 471, 41, 601)),
        ("nyu_hu", (228, 304), (0, 228, 0, 304)),
        ("indoor", (723, 1281), (0, 723, 0, 1281)),
        ("outdoor", (9, 11), (0, 9, 0, 11)),
    ],
)
def test_regions_are_the_published_ones(
    name: str, size: tuple[int, int], region: tuple[int, int, int, int]
) -> None:
    """Rows and columns computed by hand."""
    assert PROTOCOLS[name].region(*size) == region


@pytest.mark.parametrize(
    ("size", "region"),
    [
        ((375, 1242), (124, 342, 44, 1197)),
        ((370, 1226), (122, 337, 44, 1181)),
        ((374, 1238), (124, 341, 44, 1193)),
        ((376, 1241), (124, 343, 44, 1196)),
        ((370, 1224), (122, 337, 43, 1180)),
    ],
)
def test_eigens_crop_at_all_of_kittis_sizes(
    size: tuple[int, int], region: tuple[int, int, int, int]
) -> None:
    """Rows 124:342 of 375, as published; the others in exact fractions, apart from the code."""
    assert PROTOCOLS["kitti_raw_eigen"].region(*size) == region


@pytest.mark.parametrize(("size", "full", "cropped"), KITTI_REGIONS)
def test_garg_before_or_after_the_benchmark_crop_differ(
    size: tuple[int, int], full: tuple[int, ...], cropped: tuple[int, ...]
) -> None:
    """BTS takes it of the full frame, AdaBins of the crop; both at all of KITTI's sizes."""
    assert PROTOCOLS["kitti_bts"].region(*size) == full
    assert PROTOCOLS["kitti_adabins"].region(*size) == cropped


def test_hu_halves_by_area_and_takes_the_centre() -> None:
    """Depth by nearest: no value that was not measured; 240x320 is taken as halved already."""
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (480, 640, 3), np.uint8)
    depth = rng.uniform(1, 9, (480, 640)).astype(np.float32)

    small_image, small_depth = PROTOCOLS["nyu_hu"].prepare(image, depth)

    halved = image.reshape(240, 2, 320, 2, 3).mean((1, 3))[6:234, 8:312]
    assert small_image.shape == (228, 304, 3)
    assert np.abs(small_image - halved).max() <= 0.5
    assert np.isin(small_depth, depth).all()
    half = cv2.resize(depth, (320, 240), interpolation=cv2.INTER_NEAREST)
    _, again = PROTOCOLS["nyu_hu"].prepare(small_image_like(image), np.asarray(half, np.float32))
    np.testing.assert_array_equal(again, small_depth)


def small_image_like(image: np.ndarray) -> np.ndarray:
    """Return the image at half its size."""
    return np.asarray(cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA))


def test_the_benchmark_crop_is_what_the_model_sees_and_the_whole_is_scored() -> None:
    """The prediction of the crop is put back: outside it nothing is scored."""
    protocol = PROTOCOLS["kitti_adabins"]
    image = np.arange(375 * 1242 * 3, dtype=np.int64).reshape(375, 1242, 3).astype(np.uint8)
    depth = np.full((375, 1242), 10, np.float32)

    seen, truth = protocol.prepare(image, depth)
    restored = protocol.restore(np.full(seen.shape[:2], 11, np.float32), (375, 1242))

    np.testing.assert_array_equal(seen, image[23:375, 13:1229])
    assert truth.shape == (375, 1242)
    assert np.isnan(restored).sum() == 375 * 1242 - 352 * 1216
    metrics = protocol.score(prediction=restored[23:, 13:1229], ground_truth=truth)
    assert metrics.rel == pytest.approx(0.1, rel=1e-6)
    assert metrics.pixels == (372 - 166) * (1185 - 56)


@pytest.mark.parametrize(
    ("name", "ground_truth", "image", "range_m", "clip_m"),
    [
        ("nyu_hu", "nyu_depth", "nyu_half_centre", (0, math.inf), None),
        ("nyu_densedepth", "nyu_depth", "full", (0, math.inf), (0.1, 10)),
        ("nyu_bts", "nyu_depth", "full", (1e-3, 10), (1e-3, 10)),
        ("kitti_raw", "velodyne", "full", (1e-3, 80), (1e-3, 80)),
        ("kitti_raw_full", "velodyne", "full", (1e-3, 80), (1e-3, 80)),
        ("kitti_raw_eigen", "velodyne", "full", (1e-3, 80), (1e-3, 80)),
        ("kitti_raw_lidar_x", "velodyne_lidar_x", "full", (1e-3, 80), (1e-3, 80)),
        ("kitti_bts", "improved", "kb", (1e-3, 80), (1e-3, 80)),
        ("kitti_adabins", "improved", "kb", (1e-3, 80), (1e-3, 80)),
        ("indoor", None, "full", (1e-3, 10), (1e-3, 10)),
        ("outdoor", None, "full", (1e-3, 80), (1e-3, 80)),
    ],
)
def test_protocols_are_those_of_the_papers(
    name: str,
    ground_truth: str | None,
    image: str,
    range_m: tuple[float, float],
    clip_m: tuple[float, float] | None,
) -> None:
    """Source of ground truth, what the model sees, and both ranges in metres."""
    protocol = PROTOCOLS[name]

    assert (protocol.name, protocol.ground_truth, protocol.image) == (name, ground_truth, image)
    assert (protocol.range_m, protocol.clip_m) == (range_m, clip_m)


def test_every_protocol_is_tested_above() -> None:
    """A new one needs its constants written down."""
    assert set(PROTOCOLS) == {
        *("nyu_hu", "nyu_densedepth", "nyu_bts", "kitti_raw", "kitti_raw_full"),
        *("kitti_raw_eigen", "kitti_raw_lidar_x", "kitti_bts", "kitti_adabins"),
        *("indoor", "outdoor"),
    }


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_protocol_says_which_rmse_its_papers_give(name: str) -> None:
    """Hu's and DenseDepth's code average squared errors; the others average each image's RMSE."""
    pooled = {"nyu_hu", "nyu_densedepth"}

    assert PROTOCOLS[name].averaging == ("pooled" if name in pooled else "images")
    assert ("the pooled RMSE" in PROTOCOLS[name].describe()) == (name in pooled)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_range_bins_and_boundaries_follow_the_ground_truth(name: str) -> None:
    """Rooms end at 10 m and are measured everywhere; streets at 80 m, along scan lines."""
    indoors = name.startswith("nyu") or name == "indoor"

    assert PROTOCOLS[name].bins_m == ((0, 2, 4, 6, 10) if indoors else (0, 10, 20, 40, 80))
    assert PROTOCOLS[name].dense == indoors
    assert PROTOCOLS[name].ordered == name.startswith("kitti")


def test_only_ground_truth_inside_range_and_region_counts() -> None:
    """Borders of the range are out: 0, 1e-3 and 80 m are not measurements."""
    truth = np.zeros((375, 1242), np.float32)
    truth[200, 100:105] = (1e-3, 80.0, 79.9, 5.0, 90.0)
    truth[10, 100] = 5.0  # above Garg's crop

    valid = PROTOCOLS["kitti_raw"].valid(truth)

    assert valid.sum() == 2
    assert valid[200, 102]
    assert valid[200, 103]


def test_predictions_are_clipped_where_the_protocol_says() -> None:
    """DenseDepth clips to 0.1 to 10 m: 30 m for 10 m is not an error; Hu does not clip."""
    truth, prediction = np.full((480, 640), 10, np.float32), np.full((480, 640), 30, np.float32)

    clipped = PROTOCOLS["nyu_densedepth"].score(prediction=prediction, ground_truth=truth)
    plain = PROTOCOLS["nyu_hu"].score(prediction=prediction, ground_truth=truth)

    assert clipped.rel == 0
    assert plain.rel == 2


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("nyu_densedepth", (240, 320), "480x640"),
        ("nyu_hu", (300, 400), "480x640 or 240x320"),
        ("kitti_bts", (300, 1242), "352x1216"),
    ],
)
def test_sizes_a_protocol_does_not_know_are_refused(
    name: str, size: tuple[int, int], message: str
) -> None:
    """The error is one line that names the supported sizes."""
    protocol, depth = PROTOCOLS[name], np.ones(size, np.float32)
    with pytest.raises(MsfnetError, match=message):
        _, truth = protocol.prepare(np.ones((*size, 3), np.uint8), depth)
        protocol.score(prediction=truth, ground_truth=truth)


def test_an_image_of_another_size_than_its_depth_is_refused() -> None:
    """They do not belong together."""
    with pytest.raises(MsfnetError, match="belong together"):
        PROTOCOLS["kitti_raw"].prepare(np.ones((4, 5, 3), np.uint8), np.ones((4, 6), np.float32))


def test_an_unknown_name_is_answered_with_the_known() -> None:
    """All of them, in one line."""
    with pytest.raises(MsfnetError, match=r"nyu_hu.*kitti_adabins"):
        find_protocol("kitti")


def test_lidar_x_is_another_ground_truth_and_only_by_name(real_data: Path) -> None:
    """A real scan: the same pixels, in the median 0.27 m deeper than camera z."""
    drive = real_data / "kitti_raw/2011_09_26/2011_09_26_drive_0013_sync"

    depths = [
        open_dataset(drive, ground_truth=PROTOCOLS[name].ground_truth)[0].ground_truth((375, 1242))
        for name in ("kitti_raw", "kitti_raw_lidar_x")
    ]

    seen = (depths[0] > 0) & (depths[1] > 0)
    assert seen.sum() > 10_000
    assert np.median((depths[1] - depths[0])[seen]) == pytest.approx(0.27, abs=0.08)
