from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_datasets.frame_statistics import (
    FrameStatistics,
    describe_frame,
    frame_hash,
    summarise_frames,
    unlike,
)
from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.precision_records import FrameSummary
from msfnet_runtime.sources import open_source
from msfnet_runtime.sources.images import ImageFolder
from msfnet_runtime.typed import parse_json, to_json

Photo = NDArray[np.uint8]


def textured(rng: np.random.Generator, low: int, high: int) -> Frame:
    """Return a (24, 32, 3) frame of noise about a random brightness."""
    centre = rng.integers(low, high)
    return Frame((centre + rng.integers(-9, 10, (24, 32, 3))).astype(np.uint8))


def summary(frames: list[Frame]) -> FrameSummary:
    """Return the summary of frames without depth."""
    return summarise_frames((frame, describe_frame(frame)) for frame in frames)


def statistics(frames: list[Frame]) -> list[FrameStatistics]:
    """Return the frames' statistics without depth."""
    return [describe_frame(frame) for frame in frames]


def test_light_and_colour_are_those_of_the_definitions(photo: Photo) -> None:
    """The luma and opponent channels written out in NumPy agree, to 8-bit rounding."""
    red, green, blue = np.moveaxis(photo.astype(float), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    rg, yb = red - green, (red + green) / 2 - blue
    spread = np.sqrt(rg.var() + yb.var())

    found = describe_frame(Frame(photo))

    assert found.brightness == pytest.approx(luma.mean(), abs=0.2)
    assert found.contrast == pytest.approx(luma.std(), abs=0.2)
    assert found.redness == pytest.approx(rg.mean(), abs=1e-3)
    assert found.yellowness == pytest.approx(yb.mean(), abs=1e-3)
    assert found.colourfulness == pytest.approx(
        spread + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2), rel=1e-4
    )


def test_sharpness_is_the_laplacian_of_the_grey_image(photo: Photo) -> None:
    """Five-point differences in NumPy, mirrored about the border pixels, have the same variance."""
    grey = np.pad(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(float), 1, mode="reflect")
    middle = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]

    expected = np.log1p((around - 4 * middle).var())

    assert describe_frame(Frame(photo)).sharpness == pytest.approx(expected, rel=1e-5)


def test_what_is_upright_lies_down_when_turned(photo: Photo) -> None:
    """A quarter turn negates uprightness and the aspect; a half turn the slope."""
    found = describe_frame(Frame(photo))
    quarter = describe_frame(Frame(np.rot90(photo).copy()))
    half = describe_frame(Frame(photo[::-1, ::-1].copy()))

    assert abs(found.uprightness) > 0.1
    assert quarter.uprightness == pytest.approx(-found.uprightness, rel=1e-4)
    assert quarter.log_aspect == pytest.approx(-math.log(131 / 97))
    assert abs(found.slope) > 1
    assert half.slope == pytest.approx(-found.slope)


def test_a_frame_of_more_pixels_is_described_alike(real_data: Path) -> None:
    """A real frame at twice its width and height is described as before."""
    with open_source(str(real_data / "nyu_mini/data/nyu2_val.csv")) as source:
        frame = next(iter(source))
    large = np.repeat(np.repeat(frame.image, 2, axis=0), 2, axis=1)

    assert describe_frame(Frame(large)) == describe_frame(frame)


def test_depth_is_described_by_its_valid_pixels(photo: Photo, rng: np.random.Generator) -> None:
    """Quantiles of 1 to 9 m by definition; invalid pixels, and a map of them, are ignored."""
    metres = rng.permutation(np.linspace(1, 9, 20 * 20 + 1))[:400].reshape(20, 20)
    valid = np.ones((20, 20), bool)
    valid[:2] = False
    ordered = np.sort(metres[valid])
    depth = DepthMap(np.where(valid, metres, 999).astype(np.float32), valid)

    found = describe_frame(Frame(photo), depth)

    expected = [ordered[round(q * (len(ordered) - 1))] for q in (0.05, 0.5, 0.95)]
    logs = [found.log_near_depth, found.log_middle_depth, found.log_far_depth]
    assert [math.exp(value or 0) for value in logs] == pytest.approx(expected, abs=0.05)
    assert describe_frame(Frame(photo), replace(depth, valid=~np.ones((20, 20), bool))) == (
        describe_frame(Frame(photo))
    )


def test_a_flat_frame_has_finite_figures() -> None:
    """No logarithm of 0."""
    found = describe_frame(Frame(np.full((5, 7, 3), 80, np.uint8)))

    assert found == FrameStatistics(80, 0, 0, 0, 0, 0, 0, 0, math.log(7 / 5))


def test_the_hash_is_of_shape_and_pixels(photo: Photo) -> None:
    """One pixel, or the same bytes in another shape, are another image; the index is not."""
    changed = photo.copy()
    changed[3, 4, 1] ^= 1
    turned = photo.reshape(131, 97, 3)

    hashes = [frame_hash(Frame(image)) for image in (photo, changed, turned)]

    assert len(set(hashes)) == 3
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in hashes)
    assert frame_hash(Frame(photo, 7, name="x")) == hashes[0]
    assert frame_hash(Frame(np.asfortranarray(photo))) == hashes[0]


def test_a_summary_survives_json(rng: np.random.Generator) -> None:
    """It comes back equal, with the quantiles NumPy gives, and judges as before."""
    frames = [textured(rng, 30, 60) for _ in range(20)]
    other = statistics([textured(rng, 190, 230) for _ in range(5)])

    made = summary(frames)

    again = parse_json(to_json(made), FrameSummary, "the summary")
    assert again == made
    assert made.count == 20
    assert made.hashes == tuple(frame_hash(frame) for frame in frames)
    assert made.percentiles["brightness"] == pytest.approx(
        np.percentile([entry.brightness for entry in statistics(frames)], (5, 50, 95))
    )
    assert unlike(again, other) == unlike(made, other) != []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda fields: [],
        lambda fields: fields.pop("hashes") and fields,
        lambda fields: {**fields, "count": 3},
        lambda fields: {**fields, "hashes": []},
        lambda fields: {**fields, "percentiles": {"contrast": [3, 2, 1]}},
        lambda fields: {**fields, "percentiles": {"contrast": [1, float("nan"), 2]}},
        lambda fields: {**fields, "percentiles": {}},
        lambda fields: {**fields, "covariance": [[1.0]]},
        lambda fields: {**fields, "covariance": (-np.eye(8)).tolist()},
        lambda fields: {**fields, "reach": None},
        lambda fields: {**fields, "reach": float("nan")},
    ],
)
def test_what_is_no_summary_is_refused(
    spoil: Callable[[dict[str, object]], object], rng: np.random.Generator
) -> None:
    """The error is one line for every change."""
    frames = [textured(rng, 30, 60) for _ in range(4)]
    fields = json.loads(to_json(summary(frames)))

    with pytest.raises(MsfnetError, match="summary") as caught:
        unlike(
            parse_json(json.dumps(spoil(fields)), FrameSummary, "the summary"), statistics(frames)
        )
    assert "\n" not in str(caught.value)


def test_no_frames_have_no_summary() -> None:
    """They are an error of one line, not an empty summary."""
    with pytest.raises(MsfnetError, match="at least one"):
        summarise_frames([])


def test_brighter_frames_are_told_in_one_line(rng: np.random.Generator) -> None:
    """Both ranges are named; frames of the same kind, and none at all, say nothing."""
    calibration = summary([textured(rng, 30, 60) for _ in range(12)])
    same = statistics([textured(rng, 30, 60) for _ in range(12)])
    bright = statistics([textured(rng, 190, 230) for _ in range(12)])

    (reason,) = unlike(calibration, bright)

    assert reason.startswith("calibrated on frames of brightness 3")
    assert "evaluated on 19" in reason
    assert unlike(calibration, same) == []
    assert unlike(calibration, []) == []


def test_half_of_the_frames_may_be_odd(rng: np.random.Generator) -> None:
    """Six of twelve warn of nothing, seven do."""
    calibration = summary([textured(rng, 30, 60) for _ in range(12)])
    same = statistics([textured(rng, 30, 60) for _ in range(6)])
    bright = statistics([textured(rng, 190, 230) for _ in range(7)])

    assert unlike(calibration, same + bright[:6]) == []
    assert len(unlike(calibration, same + bright)) == 1


def test_depth_is_told_in_metres_and_only_where_both_have_it(photo: Photo) -> None:
    """Rooms of 2 m against roads of 40 m; without depth on a side there is nothing to tell."""
    frames = [Frame(photo)] * 12

    def described(metres: float) -> list[FrameStatistics]:
        values = np.full((4, 4), metres, np.float32)
        return [describe_frame(frame, DepthMap(values, values > 0)) for frame in frames]

    rooms = summarise_frames(zip(frames, described(2), strict=True))

    assert unlike(rooms, described(40))[1] == (
        "calibrated on frames of depth (median) 2 m, but evaluated on 40 m"
    )
    assert unlike(rooms, statistics(frames)) == []
    assert unlike(summary(frames), described(40)) == []


def nyu(real_data: Path, name: str, step: int = 1) -> list[Frame]:
    """Return every ``step``-th frame of an NYU list."""
    with open_source(str(real_data / f"nyu_mini/data/nyu2_{name}.csv")) as source:
        return list(islice(source, 0, None, step))


def test_rooms_are_like_other_rooms_and_unlike_roads(real_data: Path) -> None:
    """64 NYU training frames, or 16, warn of KITTI but of no other rooms; 64 also at 4:3."""
    train, rooms = nyu(real_data, "train", 17)[:64], statistics(nyu(real_data, "val", 4))
    drive = "2011_09_26_drive_{}_sync/image_02/data"
    folders = [real_data / "kitti_raw/2011_09_26" / drive.format(n) for n in ("0013", "9999")]
    roads = [list(ImageFolder(folder)) for folder in folders]
    cut = [[Frame(frame.image[:, 371:871].copy()) for frame in road] for road in roads]

    calibration = summary(train)

    assert unlike(calibration, rooms) == []
    assert unlike(summary(train[::4]), rooms) == []
    assert all(unlike(calibration, statistics(road)) for road in roads + cut)
    assert all(unlike(summary(train[::4]), statistics(road)) for road in roads)


def test_few_frames_never_warn_by_accident(real_data: Path, rng: np.random.Generator) -> None:
    """One to 64 NYU frames against one to eight of the same rooms, 300 draws: at most 1 % warn."""
    frames = nyu(real_data, "train", 3)
    figures = statistics(frames)
    warned = 0
    for _ in range(300):
        order = rng.permutation(len(frames))
        count = 2 ** int(rng.integers(0, 7))
        calibrated, evaluated = order[:count], order[count:][: int(rng.integers(1, 9))]
        made = summarise_frames((frames[i], figures[i]) for i in calibrated)
        warned += bool(unlike(made, [figures[i] for i in evaluated]))

    assert warned <= 3
