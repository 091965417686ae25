from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest

from msfnet_runtime import CameraIntrinsics, MsfnetError
from msfnet_runtime.layouts import make_room, make_street
from msfnet_runtime.scenes import Box, Scene, cast, render, yaw_pose
from msfnet_runtime.sources import open_source
from msfnet_runtime.sources.synthetic import KITTI_INTRINSICS, SyntheticSource, scaled

CAMERA = CameraIntrinsics(60.0, 50.0, 39.5, 29.5, 80, 60)


def one_box() -> Scene:
    """Return a ground and one box, 10 to 12 m ahead, 2 m wide and 2.9 m high."""
    return Scene((Box((-1.0, -2.9, 10.0), (1.0, 0.0, 12.0), (0.5, 0.2, 0.2)),), (0.2, -1, 0.1), 0)


def test_depth_is_that_of_the_formulas() -> None:
    """Ground: height f / (v - cy). Box: the distance of its front, where its outline says."""
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


def test_depth_is_along_the_cameras_axis_also_when_it_turns() -> None:
    """A wall 10 m to the right seen by a camera that looks there is 10 m deep everywhere."""
    wall = Scene((Box((10.0, -50.0, -50.0), (11.0, 50.0, 50.0), (0.5, 0.5, 0.5)),), (0, -1, 0), 0)

    rendering = render(wall, yaw_pose((0.0, -1.5, 0.0), np.pi / 2), CAMERA)

    above = rendering.depth[:29]
    np.testing.assert_allclose(above, 10, rtol=1e-4)


def test_pitch_looks_down() -> None:
    """Straight down, the ground is as deep as the camera is high."""
    nothing = Scene((), (0, -1, 0), 0)

    rendering = render(nothing, yaw_pose((0.0, -2.0, 0.0), 0.3, np.pi / 2), CAMERA)

    np.testing.assert_allclose(rendering.depth, 2, rtol=1e-4)


def test_rays_are_as_long_as_the_way_to_the_box_and_end_nowhere_without_one() -> None:
    """Unit rays at known angles; the window keeps what it should."""
    origin = np.array([0.0, -1.5, 0.0])
    slanted = np.array([0.08, 0.0, 1.0]) / np.hypot(0.08, 1)
    rays = np.array([[[0.0, 0.0, 1.0], slanted, [0.0, -1.0, 0.0], [0.0, 0.6, 0.8]]])

    distance = cast(one_box(), origin, rays)

    expected = [[10.0, 10 * np.hypot(0.08, 1), np.inf, 1.5 / 0.6]]
    np.testing.assert_allclose(distance, expected)
    hidden = cast(one_box(), origin, rays, lambda bounds: (slice(None), slice(1, 4)))
    assert np.isinf(hidden[0, 0])


def test_a_room_ends_at_its_walls() -> None:
    """From the middle of a room 6 m deep the wall ahead is 3 m away, in every row of it."""
    room = Box((-2.0, -2.5, -3.0), (2.0, 0.0, 3.0), (0.8, 0.8, 0.8))
    scene = Scene((), (0.0, -2.2, 0.0), 0, room)

    depth = render(scene, yaw_pose((0.0, -1.25, 0.0), 0.0), CAMERA).depth

    assert depth[30, 40] == pytest.approx(3.0)
    assert depth[0, 40] == pytest.approx(1.25 * 50 / 29.5, rel=1e-5)


@pytest.mark.parametrize("make", [make_street, make_room])
def test_a_seed_is_a_scene(make: object) -> None:
    """The same seed gives the same pixels, another seed others."""
    camera = scaled(KITTI_INTRINSICS, (64, 128))

    def picture(seed: int) -> np.ndarray:
        journey = make(seed, 6)  # type: ignore[operator]
        return render(journey.scene, journey.poses[4], camera).image

    np.testing.assert_array_equal(picture(1), picture(1))
    assert np.mean(picture(1) != picture(2)) > 0.5


@pytest.mark.parametrize("kind", ["street", "room"])
def test_cameras_stay_out_of_things(kind: str) -> None:
    """Over many seeds, nothing is nearer than a hand's breadth, and there is much to see."""
    for seed in range(12):
        source = SyntheticSource(kind, seed=seed, frames=40, size=(48, 96))
        for index in (0, 20, 39):
            depth = source.rendering(index).depth
            assert depth[depth > 0].min() > 0.3, (seed, index)
            assert (depth > 0).mean() > 0.5
            assert np.ptp(depth) > 0.3


def test_a_street_is_driven_and_a_room_fits_nyu() -> None:
    """The ground moves by 0.8 m a frame; rooms are at most 10 m deep, NYU's range."""
    poses = make_street(3, 4).poses
    steps = [b.position[2] - a.position[2] for a, b in pairwise(poses)]

    np.testing.assert_allclose(steps, 0.8)
    room = SyntheticSource("room", seed=3, frames=2, size=(48, 64)).rendering(1).depth
    assert room.min() > 0
    assert room.max() < 10


def test_a_source_is_opened_by_its_words() -> None:
    """Size, number and clock are the ones asked for; intrinsics are KITTI's, scaled."""
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
    """KITTI's for streets, NYU's for rooms."""
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
        "synthetic:street?size=64",
        "synthetic:street?size=8x8",
        "synthetic:",
    ],
)
def test_words_that_mean_nothing_are_refused(text: str) -> None:
    """One line that shows how to write it."""
    with pytest.raises(MsfnetError, match=r"synthetic:|use seed"):
        open_source(text)
