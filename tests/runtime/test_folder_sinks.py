"""Tests the files of each frame with independent readers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_runtime import CameraIntrinsics, DepthMap, Frame, ModelSpec, MsfnetError
from msfnet_runtime.depth_storage import PngStorage
from msfnet_runtime.sinks import open_sink
from msfnet_runtime.sinks.options import SinkOptions, parse_lens
from msfnet_runtime.sources.adapters import IterableSource, RotatedSource
from tests.runtime.streams import frame, ramp, write_all
from tests.specs import network_spec

SPEC = network_spec()
CAMERA = CameraIntrinsics(50.0, 51.0, 40.0, 24.0, 80, 48)


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a folder's manifest."""
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_png_depth_is_within_half_a_count(tmp_path: Path, rng: np.random.Generator) -> None:
    """Indoor models use millimetres; OpenCV reads invalid depth as 0."""
    spec = replace(SPEC, depth_range_m=(0.1, 10.0))
    values = rng.uniform(0.1, 10, (37, 53)).astype(np.float32)
    valid = rng.random((37, 53)) < 0.8
    values[~valid] = np.nan

    write_all(
        open_sink(tmp_path / "d", spec), [frame(4, (37, 53))], DepthMap(values, valid, 4, 0.4)
    )

    counts = cv2.imread(str(tmp_path / "d/0000000004.png"), cv2.IMREAD_UNCHANGED)
    assert counts is not None
    assert counts.dtype == np.uint16
    assert counts.shape == (37, 53)
    np.testing.assert_array_equal(counts == 0, ~valid)
    assert np.abs(counts[valid] / 1000 - values[valid]).max() <= 0.5001 / 1000


def test_png_depth_saturates_and_never_wraps(tmp_path: Path) -> None:
    """Ranges above 65.5 m use KITTI's 1/256 m; the nearest valid depth does not read as invalid."""
    values = np.array([[80.0, 255.99, 256.0, 257.0, 1e9, 0.0001, 5.0]], np.float32)
    valid = np.array([[True] * 6 + [False]])

    write_all(open_sink(tmp_path / "d", SPEC), [frame(0, (1, 7))], DepthMap(values, valid))

    counts = cv2.imread(str(tmp_path / "d/0000000000.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(counts, [[20480, 65533, 65535, 65535, 65535, 1, 0]])


@pytest.mark.parametrize(("high", "counts"), [(10.0, 1000), (65.5, 1000), (65.6, 256), (80.0, 256)])
def test_the_manifest_describes_the_files(tmp_path: Path, high: float, counts: int) -> None:
    """It contains unit and spec, and for each frame file, index, time, size and camera."""
    spec = replace(SPEC, depth_range_m=(0.5, high))
    camera = CameraIntrinsics(50.0, 51.0, 40.0, 24.0, 80, 48)
    frames = [replace(frame(i), name=n, intrinsics=camera) for i, n in enumerate(("a", "", "a"))]
    depth = replace(ramp((48, 80)), index=7, timestamp_s=0.7)

    write_all(open_sink(tmp_path / "d", spec), frames, depth)

    manifest, *entries = read_manifest(tmp_path / "d")
    files = [entry.pop("file") for entry in entries]
    assert manifest["counts_per_metre"] == counts
    assert manifest["saturates_at_m"] == pytest.approx(65535 / counts)
    assert ModelSpec.from_json(json.dumps(manifest["spec"])) == spec
    assert files == ["a.png", "0000000001.png", "a_0000000002.png"]
    assert sorted([*files, "manifest.jsonl"]) == sorted(p.name for p in (tmp_path / "d").iterdir())
    for entry in entries:
        assert CameraIntrinsics(**entry.pop("intrinsics")) == camera
        assert entry == {"index": 7, "timestamp_s": 0.7, "width": 80, "height": 48}


def test_a_frame_name_never_leaves_the_folder(tmp_path: Path) -> None:
    """Names of frames can be paths."""
    write_all(open_sink(tmp_path / "d", SPEC), [replace(frame(0), name="../../x/y")])

    assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["y.png"]
    assert (tmp_path / "d/x/y.png").exists()


@pytest.mark.parametrize(("unit", "counts"), [("uint16_mm", 1000), ("uint16_256", 256)])
def test_the_unit_can_be_chosen(tmp_path: Path, unit: PngStorage, counts: int) -> None:
    """It can differ from that of the model's range; depth that does not fit saturates."""
    depth = DepthMap(np.array([[2.0, 70.0]], np.float32), np.ones((1, 2), bool))

    write_all(open_sink(tmp_path / "d", SPEC, options=SinkOptions(unit=unit)), [frame(0)], depth)

    png = cv2.imread(str(tmp_path / "d/0000000000.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(png, [[2 * counts, min(70 * counts, 65535)]])
    assert read_manifest(tmp_path / "d")[0]["counts_per_metre"] == counts


# NumPy


def test_npz_is_bit_for_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    """Depth, validity, time, index and camera are exactly those that were written."""
    values = rng.uniform(0.1, 90, (48, 80)).astype(np.float32)
    depth = DepthMap(values, values > 5, 7, 0.7)

    write_all(
        open_sink(f"npz:{tmp_path / 'd'}", SPEC),
        [replace(frame(7), intrinsics=CAMERA), frame(8)],
        depth,
    )

    first, second = (np.load(tmp_path / f"d/000000000{n}.npz") for n in (7, 8))
    np.testing.assert_array_equal(first["depth_m"], values)
    np.testing.assert_array_equal(first["valid"], values > 5)
    assert (first["timestamp_s"], first["index"]) == (0.7, 7)
    np.testing.assert_array_equal(first["intrinsics"], [[50, 0, 40], [0, 51, 24], [0, 0, 1]])
    assert "intrinsics" not in second
    assert [line["file"] for line in read_manifest(tmp_path / "d")[1:]] == [
        "0000000007.npz",
        "0000000008.npz",
    ]


def test_the_users_camera_is_stored_like_the_sources_own(tmp_path: Path) -> None:
    """A field of view becomes a camera matrix in the archive and a camera in the manifest."""
    options = SinkOptions(lens=90.0)

    write_all(open_sink(f"npz:{tmp_path}/d", SPEC, options=options), [frame(0)])

    (file,) = (tmp_path / "d").glob("*.npz")
    with np.load(file) as stored:
        expected = np.array([[40, 0, 39.5], [0, 40, 23.5], [0, 0, 1]])
        np.testing.assert_allclose(stored["intrinsics"], expected)
    line = json.loads((tmp_path / "d/manifest.jsonl").read_text().splitlines()[1])
    assert line["intrinsics"]["fx"] == pytest.approx(40)


# Point clouds


def read_ply(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Read points and colours as the header describes them."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    words = [line.split() for line in head.decode("ascii").splitlines()]
    assert words[:2] == [["ply"], ["format", "binary_little_endian", "1.0"]]
    count = next(int(line[2]) for line in words if line[:2] == ["element", "vertex"])
    kinds = {"float": "<f4", "uchar": "u1"}
    names = [(line[2], kinds[line[1]]) for line in words if line[0] == "property"]
    points = np.frombuffer(body, np.dtype(names))
    assert len(points) == count
    return (
        np.stack([points[axis] for axis in "xyz"], axis=1).astype(np.float64),
        np.stack([points[axis] for axis in ("red", "green", "blue")], axis=1).astype(np.int64),
    )


@pytest.mark.parametrize("known", [True, False])
def test_points_project_back_to_their_pixels(tmp_path: Path, known: bool) -> None:
    """OpenCV projects them; colours are the pixels', the source's camera has priority."""
    each, depth = frame(0), ramp((48, 80))
    lens = (1.0, 1.0, 0.0, 0.0) if known else (50.0, 51.0, 40.0, 24.0)
    each = replace(each, intrinsics=CAMERA if known else None)

    write_all(open_sink(f"ply:{tmp_path}/d", SPEC, options=SinkOptions(lens=lens)), [each], depth)

    points, colours = read_ply(tmp_path / "d/0000000000.ply")
    matrix = np.array([[50.0, 0, 40], [0, 51, 24], [0, 0, 1]])
    zero = np.zeros(3)
    pixels = cv2.projectPoints(points, zero, zero, matrix, np.zeros(4))[0][:, 0]
    columns, rows = np.rint(pixels).astype(int).T
    assert np.abs(pixels - np.rint(pixels)).max() < 1e-3
    assert len(points) == depth.valid.sum()
    assert depth.valid[rows, columns].all()
    np.testing.assert_array_equal(points[:, 2], depth.values[rows, columns])
    np.testing.assert_array_equal(colours, each.image[rows, columns])


def test_a_field_of_view_is_a_camera(tmp_path: Path) -> None:
    """The outer edges of the outermost pixels are half the angle away from the axis."""
    depth = DepthMap(np.full((48, 80), 2.0, np.float32), np.ones((48, 80), bool))
    options = SinkOptions(lens=parse_lens("90deg"))

    write_all(open_sink(f"ply:{tmp_path}/d", SPEC, options=options), [frame(0)], depth)

    points, _ = read_ply(tmp_path / "d/0000000000.ply")
    assert points[:, 0].max() == pytest.approx(2 * 39.5 / 40)
    assert points[:, :2].mean(axis=0) == pytest.approx([0, 0], abs=1e-6)


def test_a_camera_of_another_size_is_scaled(tmp_path: Path) -> None:
    """The rays are the same, through half the pixels."""
    camera = CameraIntrinsics(100.0, 100.0, 79.5, 47.5, 160, 96)
    depth = DepthMap(np.full((48, 80), 2.0, np.float32), np.ones((48, 80), bool))

    write_all(open_sink(f"ply:{tmp_path}/d", SPEC), [replace(frame(0), intrinsics=camera)], depth)

    points, _ = read_ply(tmp_path / "d/0000000000.ply")
    assert points[:, :2].mean(axis=0) == pytest.approx([0, 0], abs=1e-6)
    assert points[:, 0].max() == pytest.approx(2 * 39.5 / 50)


def test_points_without_a_camera_are_refused(tmp_path: Path) -> None:
    """The message says how to specify one, and nothing is left behind."""
    with pytest.raises(MsfnetError, match=r"camera.*fx,fy,cx,cy.*60deg"):
        write_all(open_sink(f"ply:{tmp_path / 'd'}", SPEC), [frame(0)])

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["a\0b", "\ud800", "x" * 300, "x" * 240, "ä" * 150, "a\nb", "\x1b[31mred"]
)
def test_any_frame_name_becomes_a_file_name(name: str, tmp_path: Path) -> None:
    """Long names are shortened, and what no terminal prints is replaced; none is overwritten."""
    write_all(open_sink(tmp_path / "d", SPEC), [replace(frame(i), name=name) for i in range(3)])

    files = [entry["file"] for entry in read_manifest(tmp_path / "d")[1:]]
    assert len(set(files)) == 3
    for file in files:
        assert file.isprintable()
        assert (tmp_path / "d" / file).is_file()


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_camera_is_that_of_the_frames_before_they_are_rotated(degrees: int) -> None:
    """As the camera that a source knows, which is rotated with its frames."""
    lens, fitting = (50.0, 51.0, 40.5, 20.25), CameraIntrinsics(50, 51, 40.5, 20.25, 80, 48)
    image = np.zeros((48, 80, 3), np.uint8)
    image[20, 40] = 255  # the pixel nearest to the centre
    (frame,) = RotatedSource(IterableSource([image]), degrees)

    camera = SinkOptions(lens=lens, rotate=degrees).camera(frame)

    row, column = np.argwhere(frame.image[..., 0])[0]
    assert abs(camera.cx - column) <= 0.5
    assert abs(camera.cy - row) <= 0.5
    assert camera == fitting.rotated(degrees)
    view = SinkOptions(lens=90.0, rotate=degrees).camera(frame)
    assert (view.fx, view.fy) == pytest.approx((40, 40))


def test_a_camera_of_larger_frames_is_refused() -> None:
    """Its centre lies outside; the line has both."""
    frame = Frame(np.zeros((48, 80, 3), np.uint8))
    with pytest.raises(MsfnetError, match=r"centre 640, 360 is outside .*80x48") as raised:
        SinkOptions(lens=(900.0, 900.0, 640.0, 360.0)).camera(frame)
    assert raised.value.parameter == "lens"
