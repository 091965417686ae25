from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import islice, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_runtime import CameraIntrinsics, MsfnetError
from msfnet_runtime.sources import open_source
from msfnet_runtime.sources.synthetic import KITTI_INTRINSICS, SyntheticSource
from msfnet_runtime.synthetic.layouts import Journey, make_room, make_street
from msfnet_runtime.synthetic.scenes import Box, Scene, cast, render, yaw_pose

CAMERA = CameraIntrinsics(60.0, 50.0, 39.5, 29.5, 80, 60)


def one_box() -> Scene:
    """Return a ground and one box, 10 to 12 m ahead, 2 m wide and 2.9 m high."""
    return Scene((Box((-1.0, -2.9, 10.0), (1.0, 0.0, 12.0), (0.5, 0.2, 0.2)),), (0.2, -1, 0.1), 0)


def test_depth_matches_the_closed_form() -> None:
    """The ground is at height f / (v - cy); the box at its front's distance, within its outline."""
    rendering = render(one_box(), yaw_pose((0.0, -1.5, 0.0), 0.0), CAMERA)

    v, u = np.mgrid[0:60, 0:80].astype(float)
    x, y = (u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy
    with np.errstate(divide="ignore"):
        ground = np.where(y > 0, 1.5 / y, 0)
    box = (np.abs(x) * 10 < 1) & (y * 10 > -1.4) & (y * 10 < 1.5)
    expected = np.where(box, 10.0, np.where(ground < 1000, ground, 0))
    np.testing.assert_allclose(rendering.depth, expected, rtol=1e-5)
    assert box.sum() > 50
    assert rendering.image.shape == (60, 80, 3)


def test_depth_is_along_the_cameras_axis_when_it_turns() -> None:
    """A camera that looks at a wall 10 m to the right sees 10 m everywhere."""
    wall = Scene((Box((10.0, -50.0, -50.0), (11.0, 50.0, 50.0), (0.5, 0.5, 0.5)),), (0, -1, 0), 0)

    rendering = render(wall, yaw_pose((0.0, -1.5, 0.0), np.pi / 2), CAMERA)

    above = rendering.depth[:29]
    np.testing.assert_allclose(above, 10, rtol=1e-4)


def test_pitch_looks_down() -> None:
    """For a camera that looks straight down, depth is its height."""
    nothing = Scene((), (0, -1, 0), 0)

    rendering = render(nothing, yaw_pose((0.0, -2.0, 0.0), 0.3, np.pi / 2), CAMERA)

    np.testing.assert_allclose(rendering.depth, 2, rtol=1e-4)


def test_the_length_of_a_ray_is_the_distance_to_the_box() -> None:
    """Unit rays have known angles; a window of the picture gives the same distances."""
    origin = np.array([0.0, -1.5, 0.0])
    slanted = np.array([0.08, 0.0, 1.0]) / np.hypot(0.08, 1)
    rays = np.array([[[0.0, 0.0, 1.0], slanted, [0.0, -1.0, 0.0], [0.0, 0.6, 0.8]]])

    distance = cast(one_box(), origin, rays)

    expected = [[10.0, 10 * np.hypot(0.08, 1), np.inf, 1.5 / 0.6]]
    np.testing.assert_allclose(distance, expected)
    hidden = cast(one_box(), origin, rays, lambda bounds: (slice(None), slice(1, 4)))
    assert np.isinf(hidden[0, 0])


def test_a_room_ends_at_its_walls() -> None:
    """From the middle of a room 6 m deep the wall ahead is 3 m away in every row."""
    room = Box((-2.0, -2.5, -3.0), (2.0, 0.0, 3.0), (0.8, 0.8, 0.8))
    scene = Scene((), (0.0, -2.2, 0.0), 0, room)

    depth = render(scene, yaw_pose((0.0, -1.25, 0.0), 0.0), CAMERA).depth

    assert depth[30, 40] == pytest.approx(3.0)
    assert depth[0, 40] == pytest.approx(1.25 * 50 / 29.5, rel=1e-5)


@pytest.mark.parametrize("make", [make_street, make_room])
def test_a_seed_is_a_scene(make: Callable[[int], Journey]) -> None:
    """The same seed gives the same pixels, another seed different ones."""
    camera = KITTI_INTRINSICS.scaled(64, 128)

    def picture(seed: int) -> NDArray[np.uint8]:
        journey = make(seed)
        return render(journey.scene, journey.pose(4), camera).image

    np.testing.assert_array_equal(picture(1), picture(1))
    assert np.mean(picture(1) != picture(2)) > 0.5


def test_another_process_draws_the_same_pixels() -> None:
    """The hash seed of the process does not matter."""
    code = (
        "import hashlib; from msfnet_runtime.sources.synthetic import SyntheticSource\n"
        "for kind in ('street', 'room'):\n"
        "    drawn = SyntheticSource(kind, seed=6, size=(48, 96)).rendering(7)\n"
        "    print(hashlib.sha256(drawn.image.tobytes() + drawn.depth.tobytes()).hexdigest())"
    )

    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]

    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].split())) == 2


@pytest.mark.parametrize("make", [make_street, make_room])
def test_cameras_do_not_collide(make: Callable[[int], Journey]) -> None:
    """For many seeds and all frames, boxes are at least 20 cm away and walls 1 m."""
    for seed in range(30):
        journey = make(seed)
        low, high = journey.scene.bounds[:, 0], journey.scene.bounds[:, 1]
        for frame in range(0, 220, 4):
            place = journey.pose(frame).position
            gap = np.maximum(np.maximum(low - place, place - high), 0)
            assert np.linalg.norm(gap, axis=1).min() > 0.2, (seed, frame)
            if journey.scene.room is not None:
                room = journey.scene.room
                assert (place[[0, 2]] - np.array(room.low)[[0, 2]]).min() > 1
                assert (np.array(room.high)[[0, 2]] - place[[0, 2]]).min() > 1


def test_cameras_move_smoothly() -> None:
    """It moves 0.8 m per frame in a street, and less than 10 cm and 3 degrees in a room."""
    street, room = make_street(3), make_room(3)

    drive = [street.pose(frame) for frame in range(6)]
    walk = [room.pose(frame) for frame in range(60)]

    np.testing.assert_allclose([b.position[2] - a.position[2] for a, b in pairwise(drive)], 0.8)
    for a, b in pairwise(walk):
        turned = np.degrees(np.arccos((np.trace(a.rotation.T @ b.rotation) - 1) / 2))
        assert 0 < np.linalg.norm(b.position - a.position) < 0.1
        assert 0 < turned < 3


def test_depths_have_the_range_of_the_data_sets() -> None:
    """A street has sky and goes beyond 80 m; a room has depth everywhere, below NYU's 10 m."""
    for seed in range(6):
        street = SyntheticSource("street", seed=seed, size=(94, 310)).rendering(5).depth
        room = SyntheticSource("room", seed=seed, size=(60, 80)).rendering(5 * seed).depth

        assert 0.03 < (street == 0).mean() < 0.4
        assert street.max() > 80
        assert 1 < street[street > 0].min() < 8
        assert 0.3 < room.min() < room.max() < 10
        assert room.max() > 1.5 * room.min()


def test_a_source_is_opened_by_its_text() -> None:
    """Size, count and timestamps are as requested; intrinsics are KITTI's, scaled."""
    with open_source("synthetic:street?seed=5&frames=3&size=188x621") as source:
        frames = list(source)

    assert source.length == 3
    assert [f.timestamp_s for f in frames] == pytest.approx([0, 0.1, 0.2])
    assert frames[0].image.shape == (188, 621, 3)
    camera = frames[0].intrinsics
    assert camera is not None
    assert camera.fx == pytest.approx(KITTI_INTRINSICS.fx / 2)
    assert not np.array_equal(frames[0].image, frames[2].image)


def test_the_defaults_are_the_data_sets_sizes() -> None:
    """Streets have KITTI's size, rooms NYU's."""
    with open_source("synthetic:street?frames=1") as street, open_source("synthetic:room") as room:
        shapes = [next(iter(islice(source, 1))).image.shape for source in (street, room)]

    assert shapes == [(375, 1242, 3), (480, 640, 3)]


@pytest.mark.parametrize(
    "text",
    [
        "synthetic:castle",
        "synthetic:street?speed=3",
        "synthetic:street?frames=0",
        "synthetic:street?frames=some",
        "synthetic:street?seed=-1",
        "synthetic:street?seed=" + "9" * 5000,
        "synthetic:street?size=64",
        "synthetic:street?size=x",
        "synthetic:street?size=",
        "synthetic:street?size=100000x100000",
        "synthetic:street?size=8x8",
        "synthetic:",
    ],
)
def test_invalid_texts_are_refused(text: str) -> None:
    """The message shows how to write it."""
    with pytest.raises(MsfnetError, match=r"synthetic:|use seed"):
        open_source(text)
