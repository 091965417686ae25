"""Tests that written frames are kept: after errors, on a full disk, after a kill."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.sinks import open_sink
from msfnet_runtime.sinks.options import SinkOptions
from tests.runtime.streams import frame, ramp, read_video, write_all
from tests.specs import network_spec

SPEC = network_spec()
OPTIONS = SinkOptions(lens=60.0)
VIDEOS = ["a.mp4", "a.mov", "a.mkv", "a.avi"]
FOLDERS = ["depth", "npz:depth", "ply:depth"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use paths relative to an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RERUN_ANALYTICS", "0")


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Limit the size of files, bytes: the system's error EFBIG is handled like ENOSPC."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def noise(rng: np.random.Generator, count: int) -> list[Frame]:
    """Return pictures that do not compress."""
    pictures = rng.integers(0, 256, (count, 96, 160, 3)).astype(np.uint8)
    return [Frame(picture, i, i / 30) for i, picture in enumerate(pictures)]


def decoded(path: Path) -> int:
    """Return the number of pictures in a video, up to its end or first error."""
    count = 0
    with av.open(str(path)) as container:
        try:
            for _ in container.decode(video=0):
                count += 1
        except av.FFmpegError:
            pass
    return count


@pytest.mark.parametrize("name", [*VIDEOS, *FOLDERS, "a.rrd"])
def test_before_the_first_frame_nothing_is_left(name: str, tmp_path: Path) -> None:
    """An error then leaves no file, and does not change an older video that it would replace."""
    if name == "a.mp4":
        Path(name).write_text("old")
    options = replace(OPTIONS, force=True)

    with pytest.raises(KeyboardInterrupt), open_sink(name, SPEC, options=options):
        raise KeyboardInterrupt

    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"] * (name == "a.mp4")


@pytest.mark.parametrize("name", VIDEOS)
def test_an_error_elsewhere_finishes_a_video(name: str, tmp_path: Path) -> None:
    """It contains every frame, under its final name."""
    with pytest.raises(KeyboardInterrupt), open_sink(name, SPEC) as sink:
        for index in range(7):
            sink.write(frame(index), ramp((48, 80)))
        raise KeyboardInterrupt

    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(read_video(Path(name))[0]) == 7


@pytest.mark.parametrize("text", FOLDERS)
def test_an_error_elsewhere_keeps_a_folder(text: str) -> None:
    """The manifest lists the files."""
    with pytest.raises(RuntimeError), open_sink(text, SPEC, options=OPTIONS) as sink:
        for index in range(3):
            sink.write(frame(index), ramp((48, 80)))
        raise RuntimeError

    assert len(_listed(Path("depth"))) == 3


def _listed(folder: Path) -> list[str]:
    """Return the files in the manifest, after checking that they are those in the folder."""
    _, *lines = map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
    files = [line["file"] for line in lines]
    assert sorted([*files, "manifest.jsonl"]) == sorted(p.name for p in folder.glob("[!.]*"))
    return files


@pytest.mark.parametrize("name", VIDEOS)
def test_a_full_disk_keeps_a_video_up_to_the_last_half_second(
    name: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    """The message says where it is; it decodes without an error to its end."""
    partial = Path(name).stem + ".partial" + Path(name).suffix
    written = 0
    line = rf"cannot write .*{name}: .*{partial}, playable"
    with (
        pytest.raises(MsfnetError, match=line),
        full_disk(300_000),
        open_sink(name, SPEC) as sink,
    ):
        for each in noise(rng, 60):
            sink.write(each, ramp((96, 160)))
            written += 1

    assert [path.name for path in tmp_path.iterdir()] == [partial]
    assert written - 16 <= len(read_video(Path(partial))[0]) <= written


@pytest.mark.parametrize("name", ["a.mp4", "depth", "npz:depth"])
def test_a_disk_full_from_the_start_leaves_nothing(
    name: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    """Not even the first frame fits."""
    with pytest.raises(MsfnetError, match=r"cannot write .*make room"), full_disk(1000):
        write_all(open_sink(name, SPEC), noise(rng, 40))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", FOLDERS)
def test_a_full_disk_keeps_the_frames_before(text: str, rng: np.random.Generator) -> None:
    """The small frames are complete; there is no part of the large one."""
    small, large = ramp((8, 8)), rng.uniform(1, 80, (96, 160)).astype(np.float32)
    line = r"cannot write .*; the frames before it are kept: 2"
    with (
        pytest.raises(MsfnetError, match=line),
        full_disk(20_000),
        open_sink(text, SPEC, options=OPTIONS) as sink,
    ):
        for index in range(2):
            sink.write(frame(index, (8, 8)), small)
        sink.write(noise(rng, 1)[0], DepthMap(large, np.ones((96, 160), bool)))

    assert len(_listed(Path("depth"))) == 2


def test_a_full_disk_keeps_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that might not fit is refused; Rerun can read the earlier ones."""
    pytest.importorskip("rerun")
    free = iter([1 << 30, 1 << 30, 1 << 20])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free)))

    with pytest.raises(MsfnetError, match=r"cannot write .*a.rrd: .*a.partial.rrd"):
        write_all(open_sink("a.rrd", SPEC, options=OPTIONS), [frame(i) for i in range(5)])

    assert [path.name for path in tmp_path.iterdir()] == ["a.partial.rrd"]
    assert _logged(Path("a.partial.rrd"), "/camera/depth") == 2


def test_a_recording_is_read_by_rerun() -> None:
    """It has depth with its unit, pictures, and one camera for all frames; Rerun verifies it."""
    pytest.importorskip("rerun")

    write_all(open_sink("a.rrd", SPEC, options=OPTIONS), [frame(i) for i in range(5)])

    subprocess.run([*RERUN, "verify", "a.rrd"], check=True, capture_output=True)
    assert _logged(Path("a.rrd"), "/camera/depth") == _logged(Path("a.rrd"), "/camera/image") == 5
    assert _logged(Path("a.rrd"), "/camera") == 1


RERUN = [sys.executable, "-m", "rerun", "rrd"]


def _logged(path: Path, entity: str) -> int:
    """Return the number of rows of an entity, counted by Rerun's command."""
    command = [*RERUN, "print", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = re.findall(rf"with (\d+) rows \([^)]*\) - {entity} -", text)
    return sum(map(int, rows))


def _kill_a_writer(text: str, frames: int) -> int:
    """Kill a writing process soon after a number of frames; return how many it had written."""
    command = [sys.executable, "-m", "tests.runtime.sink_writer", str(Path(text).absolute())]
    root = Path(__file__).parents[2]
    if ":" in text:
        command[-1] = text.replace(":", f":{Path.cwd()}/")
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= frames:
                break
        time.sleep(float(np.random.default_rng().uniform(0, 0.05)))
        process.kill()
        rest = process.stdout.read().split()
    return int(rest[-1]) if rest else frames


@pytest.mark.parametrize("name", VIDEOS)
def test_a_killed_writer_leaves_a_video_up_to_the_last_second(name: str, tmp_path: Path) -> None:
    """It has 30 frames a second; the next run keeps it and uses the next name."""
    partial = Path(Path(name).stem + ".partial" + Path(name).suffix)

    written = _kill_a_writer(name, 75)

    assert [path.name for path in tmp_path.glob("[!.]*")] == [partial.name]
    assert written - 30 <= decoded(partial) <= written + 1
    kept = partial.read_bytes()
    with open_sink(name, SPEC) as sink:
        for index in range(12):
            sink.write(frame(index), ramp((48, 80)))
        assert Path(f"{partial.stem}-2{partial.suffix}").exists()
    assert partial.read_bytes() == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, partial.name])


@pytest.mark.parametrize("text", ["depth", "npz:depth"])
def test_a_killed_writer_leaves_every_frame(text: str) -> None:
    """Every file and every line of the manifest is complete; only the last can lack its line."""
    written = _kill_a_writer(text, 40)

    lines = (Path("depth") / "manifest.jsonl").read_text().splitlines()
    assert written <= len([json.loads(line) for line in lines]) - 1 <= written + 1
    for path in Path("depth").glob("[!.]*g"):
        assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED) is not None
    for path in Path("depth").glob("[!.]*.npz"):
        assert np.load(path)["depth_m"].shape == (48, 80)


@pytest.mark.parametrize("text", ["a.mp4", "a.mkv", *FOLDERS])
def test_descriptors_and_memory_do_not_grow(text: str) -> None:
    """From frame 60 to 300 no more files are open, and memory grows by less than 200 kB."""
    each, depth = frame(0), ramp((48, 80))
    descriptors, memory = [], []
    tracemalloc.start()
    with open_sink(text, SPEC, options=OPTIONS) as sink:
        for index in range(300):
            sink.write(Frame(each.image, index, index / 30), depth)
            if index in (60, 299):
                descriptors.append(len(list(Path("/proc/self/fd").iterdir())))
                memory.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()

    assert descriptors[0] == descriptors[1]
    assert memory[1] - memory[0] < 200_000
