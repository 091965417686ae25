"""Sinks are chosen by their text, and write what others can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.sink import CallableSink, Sink
from msfnet_runtime.sinks import open_sink
from msfnet_runtime.sinks.arrays import NpzSink
from msfnet_runtime.sinks.clouds import PlySink
from msfnet_runtime.sinks.images import PngSink
from msfnet_runtime.sinks.options import parse_lens, parse_range
from msfnet_runtime.sinks.rerun import RerunSink
from msfnet_runtime.sinks.video import VideoSink
from tests.runtime.streams import frame, ramp, write_all
from tests.specs import network_spec

SPEC = network_spec()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((f"a.{suffix}", VideoSink) for suffix in ("mp4", "MKV", "mov", "avi")),
        ("depth", PngSink),
        ("there.mp4", PngSink),
        ("depth.rrd", RerunSink),
    ],
)
def test_the_path_chooses_the_sink(tmp_path: Path, name: str, kind: type) -> None:
    """A video by its suffix, PNG for a name without one and for an existing folder."""
    (tmp_path / "there.mp4").mkdir()

    sink = open_sink(tmp_path / name, SPEC)

    assert isinstance(sink, kind)
    assert isinstance(sink, Sink)


def test_another_suffix_lists_what_works(tmp_path: Path) -> None:
    """An image or a misspelt video is not written as something else."""
    with pytest.raises(MsfnetError, match=r"\.webm is no kind of output; name a video \(\.mp4"):
        open_sink(tmp_path / "a.webm", SPEC)


@pytest.mark.parametrize("name", ["depth", "depth.mp4"])
def test_an_unwritable_place_is_known_before_the_first_frame(tmp_path: Path, name: str) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("mine")

    with (
        pytest.raises(MsfnetError, match="cannot write"),
        open_sink(tmp_path / "file" / name, SPEC),
    ):
        pytest.fail("must not open")


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    """Yesterday's depth maps are not mixed with today's."""
    (tmp_path / "0000000000.png").write_text("mine")

    with pytest.raises(MsfnetError, match="exists already"), open_sink(tmp_path, SPEC):
        pytest.fail("must not open")
    (tmp_path / "manifest.jsonl").write_text("{}")
    line = f"{tmp_path} holds frames of an earlier run, whole or cut off; name another folder"
    with pytest.raises(MsfnetError, match=line), open_sink(tmp_path, SPEC):
        pytest.fail("must not open")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("npz:there.mp4", NpzSink),
        ("ply:d", PlySink),
        ("rerun:", RerunSink),
        ("rerun:10.0.0.1:9876", RerunSink),
    ],
)
def test_a_prefix_chooses_the_sink(text: str, kind: type) -> None:
    """Whatever the suffix of what follows it."""
    assert isinstance(open_sink(text, SPEC), kind)


def test_a_function_takes_frame_and_depth() -> None:
    """The same objects, in order."""
    got: list[tuple[Frame, DepthMap]] = []
    frames, depth = [frame(i) for i in range(3)], ramp((48, 80))

    write_all(CallableSink(lambda *each: got.append(each)), frames, depth)

    assert [each for each, _ in got] == frames
    assert all(each is depth for _, each in got)


@pytest.mark.parametrize(
    "text", ["720", "0,720,1,1", "a,b,c,d", "0deg", "180deg", "deg", "1,2,3,nan"]
)
def test_a_camera_that_is_none_is_one_line(text: str) -> None:
    """Both ways to give one are named."""
    with pytest.raises(MsfnetError, match=r"is no camera; give fx,fy,cx,cy .* such as 60deg"):
        parse_lens(text)


@pytest.mark.parametrize("text", ["1", "2,1", "0,5", "1,inf", "a,b", "1,2,3"])
def test_a_range_that_is_none_is_one_line(text: str) -> None:
    """Near comes first."""
    assert parse_range("0.5,80") == (0.5, 80.0)
    with pytest.raises(MsfnetError, match="no range; give near,far"):
        parse_range(text)
