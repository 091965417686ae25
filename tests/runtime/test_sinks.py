"""Tests the choice of sinks by their text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.sink import CallableSink, Sink
from msfnet_runtime.sinks import open_sink
from msfnet_runtime.sinks.folder import NpzSink, PlySink, PngSink
from msfnet_runtime.sinks.options import SinkOptions, parse_lens, parse_range
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
    """A suffix means a video or recording; a name without one, or an existing folder, PNG."""
    (tmp_path / "there.mp4").mkdir()

    sink = open_sink(tmp_path / name, SPEC)

    assert isinstance(sink, kind)
    assert isinstance(sink, Sink)


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    """The message lists the known kinds of output."""
    with pytest.raises(MsfnetError, match=r" \.webm; .*\.mp4.*\.rrd.*folder.*npz:.*ply:.*rerun:"):
        open_sink(tmp_path / "a.webm", SPEC)


@pytest.mark.parametrize("name", ["depth", "depth.mp4"])
def test_an_unwritable_path_is_refused_before_the_first_frame(tmp_path: Path, name: str) -> None:
    """Here a file is in the place of the folder."""
    (tmp_path / "file").write_text("mine")

    with (
        pytest.raises(MsfnetError, match="cannot write"),
        open_sink(tmp_path / "file" / name, SPEC),
    ):
        pytest.fail("must not open")


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    """Depth maps of different runs are not mixed."""
    (tmp_path / "0000000000.png").write_text("mine")

    with pytest.raises(MsfnetError, match="already exists"), open_sink(tmp_path, SPEC):
        pytest.fail("must not open")
    (tmp_path / "manifest.jsonl").write_text("{}")
    line = rf"{re.escape(str(tmp_path))} .*earlier run.*another folder"
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
    """The suffix of what follows does not matter."""
    assert isinstance(open_sink(text, SPEC), kind)
    with pytest.raises(MsfnetError, match="names no folder"):
        open_sink("npz:", SPEC)


def test_a_function_receives_frame_and_depth() -> None:
    """It gets the same objects, in order."""
    got: list[tuple[Frame, DepthMap]] = []
    frames, depth = [frame(i) for i in range(3)], ramp((48, 80))

    write_all(CallableSink(lambda *each: got.append(each)), frames, depth)

    assert [each for each, _ in got] == frames
    assert all(each is depth for _, each in got)


@pytest.mark.parametrize(
    "text", ["720", "0,720,1,1", "a,b,c,d", "0deg", "180deg", "deg", "1,2,3,nan"]
)
def test_a_text_that_is_not_a_camera_is_refused(text: str) -> None:
    """The message names both ways to write one."""
    with pytest.raises(MsfnetError, match=r"not a camera.*fx,fy,cx,cy .*60deg"):
        parse_lens(text)


def test_an_unknown_colour_map_is_refused_before_the_first_frame() -> None:
    """The error lists the known ones, whatever the output."""
    with pytest.raises(MsfnetError, match=r"'jet'.*turbo"):
        SinkOptions(colours="jet")


@pytest.mark.parametrize("text", ["1", "2,1", "0,5", "1,inf", "a,b", "1,2,3"])
def test_a_text_that_is_not_a_range_is_refused(text: str) -> None:
    """The near end comes first."""
    assert parse_range("0.5,80") == (0.5, 80.0)
    with pytest.raises(MsfnetError, match=r"not a range.*near,far"):
        SinkOptions(range_m=parse_range(text))
