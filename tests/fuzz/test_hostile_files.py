"""Files that were damaged at random are refused in one line or read: no crash, no hang."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.manifests import write_engine
from tests.onnx_models import conv_model
from tests.runtime.streams import frame, write_video
from tests.specs import network_spec

OPENING = Path(__file__).with_name("opening.py")

NUMBERS = [b"nan", b"inf", b"-1", b"0", b"1e999", b"9" * 40, b"", b"abc", b"null", b"[]", b"true"]

Make = Callable[[Path], bytes]
"""Writes what a kind needs into a folder; returns the bytes to damage."""


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes with one to four wounds."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, max(len(data), 1)))
        length = int(rng.integers(1, 64))
        kind = rng.integers(0, 7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = rng.bytes(length)
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length]
        elif kind == 5:
            data[at : at + length] = bytes([int(rng.choice([0, 255]))]) * length
        else:
            numbers = list(re.finditer(rb"-?\d+(\.\d+)?(e[+-]\d+)?", bytes(data)))
            if numbers:
                hit = numbers[int(rng.integers(0, len(numbers)))]
                data[hit.start() : hit.end()] = NUMBERS[int(rng.integers(0, len(NUMBERS)))]
    return bytes(data)


def picture(suffix: str) -> bytes:
    """Return a small picture as a file's bytes."""
    return cv2.imencode(suffix, frame(0).image)[1].tobytes()


def clip(folder: Path, suffix: str) -> bytes:
    """Return a small video's bytes."""
    path = folder.parent / f"clip{suffix}"
    write_video(path, [frame(index).image for index in range(8)])
    return path.read_bytes()


CALIBRATION = (
    b"calib_time: 09-Jan-2012 13:57:47\ncorner_dist: 9.950000e-02\n"
    b"S_rect_02: 1.242000e+03 3.750000e+02\n"
    b"P_rect_02: 7.215377e+02 0.0 6.095593e+02 4.485728e+01 0.0 7.215377e+02 1.728540e+02 "
    b"2.163791e-01 0.0 0.0 1.0 2.745884e-03\n"
)


def write_image(path: Path, content: bytes, number: int) -> None:
    """Store a damaged image under one of three suffixes."""
    path.with_suffix((".png", ".jpg", ".tif")[number % 3]).write_bytes(content)


def write_drive(path: Path, content: bytes, number: int) -> None:
    """Store a drive with damaged times or a damaged image."""
    images = path / "image_02/data"
    images.mkdir(parents=True)
    for index in range(3):
        (images / f"{index:010d}.png").write_bytes(picture(".png"))
    times = b"".join(b"2011-09-26 13:02:25.%06d000\n" % (index * 100) for index in range(3))
    (path / "image_02/timestamps.txt").write_bytes(
        damaged(times, np.random.default_rng(number)) if number % 2 else times
    )
    if number % 2 == 0:
        (images / "0000000001.png").write_bytes(content)


def write_calibration(path: Path, content: bytes, number: int) -> None:
    """Store a date's damaged calibration."""
    path.mkdir()
    (path / "calib_cam_to_cam.txt").write_bytes(content)


def write_list(path: Path, content: bytes, number: int) -> None:
    """Store a damaged list beside two images, one of them bad."""
    (path.parent.parent / "a.png").write_bytes(picture(".png"))
    (path.parent.parent / "b.png").write_bytes(b"no image")
    path.with_suffix(".csv").write_bytes(content)


def write_manifest(path: Path, content: bytes, number: int) -> None:
    """Store an engine with a damaged manifest."""
    path.with_suffix(".engine").write_bytes(b"plan")
    path.with_suffix(".engine.json").write_bytes(content)


def make_manifest(folder: Path) -> bytes:
    """Return a manifest's bytes."""
    artifact = write_engine(folder.parent)
    return artifact.sidecar(artifact.path).read_bytes()


def make_onnx(folder: Path) -> bytes:
    """Return an ONNX file's bytes."""
    return bytes(conv_model(network_spec()).SerializeToString())


Store = Callable[[Path, bytes, int], object]

KINDS: dict[str, tuple[list[Make], Store]] = {
    "image": ([lambda _: picture(".png"), lambda _: picture(".jpg")], write_image),
    "video": (
        [lambda folder: clip(folder, ".mp4"), lambda folder: clip(folder, ".mkv")],
        lambda path, content, number: path.with_suffix((".mp4", ".mkv")[number % 2]).write_bytes(
            content
        ),
    ),
    "drive": ([lambda _: picture(".png")], write_drive),
    "calibration": ([lambda _: CALIBRATION], write_calibration),
    "list": ([lambda _: b"a.png,d.png\nb.png,d.png\na.png,d.png\n"], write_list),
    "spec": (
        [lambda _: network_spec().to_json().encode()],
        lambda path, content, number: path.write_bytes(content),
    ),
    "manifest": ([make_manifest], write_manifest),
    "onnx": ([make_onnx], lambda path, content, number: path.write_bytes(content)),
}


def fuzz(tmp_path: Path, kind: str, count: int, seed: int) -> None:
    """Damage ``count`` files of a kind, open all in a separate process, and expect no fault."""
    rng = np.random.default_rng(seed)
    folder = tmp_path / kind / "files"
    folder.mkdir(parents=True)
    makes, store = KINDS[kind]
    originals = [make(folder) for make in makes]
    for number in range(count):
        content = damaged(originals[number % len(originals)], rng)
        store(folder / f"{number:05d}", content, number)

    done = subprocess.run(
        [sys.executable, str(OPENING), kind, str(folder)],
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )

    lines = done.stdout.splitlines()
    faults = [" ".join(lines[i - 1 : i + 1]) for i, line in enumerate(lines) if line[:1] == " "]
    assert (done.returncode, faults) == (0, []), (lines[-1:], done.stderr[-3000:])
    assert sum(line[:1] != " " for line in lines) >= count


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_damaged_files_are_refused_or_read(tmp_path: Path, kind: str) -> None:
    """Every kind of file that users pass to msfnet is tested."""
    fuzz(tmp_path, kind, 1000, seed=2)
