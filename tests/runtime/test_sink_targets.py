"""Tests that sinks keep what exists, and that two streams never write to one place."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from msfnet_runtime import Frame, MsfnetError
from msfnet_runtime.engines.fake import FakeEngine
from msfnet_runtime.pipeline import run_pipeline
from msfnet_runtime.sinks import check_sinks, open_sink
from msfnet_runtime.sinks.folder import PngSink
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.streaming import StreamOptions, stream
from tests.runtime.streams import Frames, estimator, frame, ramp, read_video, write_all
from tests.specs import deploy_spec, network_spec

SPEC = network_spec()
FORCE = SinkOptions(force=True, lens=60.0)
ASKED = SinkOptions(lens=60.0)
VIDEOS = ["a.mp4", "a.mov", "a.mkv", "a.avi"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use paths relative to an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RERUN_ANALYTICS", "0")


def frames(count: int) -> list[Frame]:
    """Return some frames."""
    return [frame(index) for index in range(count)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.rrd"])
def test_a_recording_is_replaced_only_if_that_is_asked_for(name: str) -> None:
    """The error names the parameter; a replaced file keeps its mode."""
    Path(name).write_text("mine")
    Path(name).chmod(0o640)

    with pytest.raises(MsfnetError, match=f"{name} exists already") as caught:
        write_all(open_sink(name, SPEC, options=ASKED), frames(2))
    assert caught.value.parameter == "force"
    assert Path(name).read_text() == "mine"

    write_all(open_sink(name, SPEC, options=FORCE), frames(2))
    assert Path(name).stat().st_size > 400
    assert Path(name).stat().st_mode & 0o777 == 0o640
    assert [path.name for path in Path().iterdir()] == [name]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["a.mp4", "a.rrd"])
def test_a_file_that_appears_during_a_recording_is_kept(name: str, force: bool) -> None:
    """The recording keeps its temporary name, which the error says."""
    line = rf"{name} appeared while it was recorded and is kept; the recording is .*a\.partial\."
    with (
        pytest.raises(MsfnetError, match=line),
        open_sink(name, SPEC, options=FORCE if force else ASKED) as sink,
    ):
        for each in frames(8):
            sink.write(each, ramp((48, 80)))
        Path(name).write_text("mine")

    assert Path(name).read_text() == "mine"
    assert Path(name).with_stem("a.partial").stat().st_size > 400


@pytest.mark.parametrize("text", ["a.mp4", "a.rrd", "depth", "npz:depth"])
def test_a_second_stream_to_one_target_is_refused_at_once(text: str) -> None:
    """The first one is not disturbed, even if the second may replace what exists."""
    with open_sink(text, SPEC, options=ASKED) as first:
        for _ in range(2):
            with (
                pytest.raises(MsfnetError, match=r"another process is writing|earlier run"),
                open_sink(text, SPEC, options=ASKED),
            ):
                pytest.fail("must not open")
            with (
                pytest.raises(MsfnetError, match="another process is writing"),
                open_sink(text, SPEC, options=FORCE),
            ):
                pytest.fail("must not open")
            first.write(frame(0), ramp((48, 80)))

    assert sorted(path.name for path in Path().iterdir()) == [text.removeprefix("npz:")]


@pytest.mark.parametrize("name", VIDEOS)
def test_a_growing_video_can_be_read_from_the_moment_it_exists(name: str) -> None:
    """After every frame it holds at least one picture, or there is no file yet."""
    partial = Path(name).with_stem("a.partial")
    counts = []
    with open_sink(name, SPEC, fps=10) as sink:
        for each in frames(14):
            sink.write(each, ramp((48, 80)))
            if partial.exists():
                counts.append(len(read_video(partial)[0]))

    assert len(counts) >= 7
    assert counts[0] >= 1
    assert counts == sorted(counts)
    assert len(read_video(Path(name))[0]) == 14


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_recording_that_is_renamed_is_an_error(name: str) -> None:
    """Nothing is lost: the renamed file is finished."""
    with (
        pytest.raises(MsfnetError, match=r"a\.partial\..* was renamed or removed"),
        open_sink(name, SPEC, fps=10) as sink,
    ):
        for each in frames(20):
            sink.write(each, ramp((48, 80)))
            if each.index == 12:
                Path(name).with_stem("a.partial").rename("moved")

    assert [path.name for path in Path().iterdir()] == ["moved"]
    with av.open("moved") as container:
        assert sum(1 for _ in container.decode(video=0)) == 13


@pytest.mark.parametrize("removed", [False, True])
def test_a_folder_that_is_renamed_or_removed_is_an_error(removed: bool) -> None:
    """No second folder without a manifest is made."""
    with (
        pytest.raises(MsfnetError, match=r"depth was renamed or removed.*kept: 3"),
        open_sink("depth", SPEC) as sink,
    ):
        for each in frames(6):
            sink.write(each, ramp((48, 80)))
            if each.index == 2:
                Path("depth").rename("moved")
                if removed:
                    Path("depth").mkdir()

    assert len(list(Path("moved").glob("*.png"))) == 3
    assert not removed or not any(Path("depth").iterdir())


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_the_users_own_pictures_is_never_written_into(force: bool) -> None:
    """The error advises to choose another folder, never to remove this one."""
    Path("pictures").mkdir()
    cv2.imwrite("pictures/0000000000.png", np.zeros((4, 4), np.uint8))

    with pytest.raises(MsfnetError, match="choose a new folder") as caught:
        write_all(open_sink("pictures", SPEC, options=SinkOptions(force=force)), frames(1))

    assert "remove" not in str(caught.value)
    assert [path.name for path in Path("pictures").iterdir()] == ["0000000000.png"]


def test_only_the_files_of_an_earlier_run_are_replaced() -> None:
    """Others in its folder stay, even under a name that the new run would use."""
    write_all(open_sink("depth", SPEC), frames(3))
    Path("depth/notes.txt").write_text("mine")
    Path("depth/0000000004.png").write_text("mine")

    write_all(open_sink("npz:depth", SPEC, options=FORCE), [frame(7)])
    names = {path.name for path in Path("depth").iterdir()}
    assert names == {"manifest.jsonl", "0000000007.npz", "notes.txt", "0000000004.png"}

    write_all(open_sink("depth", SPEC, options=FORCE), [frame(4)])
    names = {path.name for path in Path("depth").iterdir()}
    others = {"notes.txt", "0000000004.png"}
    assert names == {"manifest.jsonl", "0000000004_0000000004.png"} | others
    assert Path("depth/0000000004.png").read_text() == "mine"


def test_an_earlier_run_stays_until_the_first_new_frame() -> None:
    """A stream that fails before it keeps the old frames."""
    write_all(open_sink("depth", SPEC), frames(3))
    before = {path: path.read_bytes() for path in Path("depth").iterdir()}

    with pytest.raises(KeyboardInterrupt), open_sink("depth", SPEC, options=FORCE):
        raise KeyboardInterrupt

    assert {path: path.read_bytes() for path in Path("depth").iterdir()} == before


@pytest.mark.parametrize(
    "name", ["../thesis.png", "thesis.ckpt", "/etc/passwd", "link/thesis.png", 7, None]
)
def test_a_manifest_that_names_other_files_removes_nothing(name: object) -> None:
    """Only files of a sink's kinds inside the folder can be an earlier run's."""
    Path("depth").mkdir()
    Path("else").mkdir()
    Path("depth/link").symlink_to(Path("else").absolute())
    for place in ("thesis.png", "depth/thesis.ckpt", "else/thesis.png"):
        Path(place).write_text("mine")
    lines = [json.dumps({"schema_version": 2}), json.dumps({"file": name})]
    Path("depth/manifest.jsonl").write_text("\n".join(lines))

    with pytest.raises(MsfnetError, match="not a manifest of msfnet"):
        write_all(open_sink("depth", SPEC, options=FORCE), frames(1))

    for place in ("thesis.png", "depth/thesis.ckpt", "else/thesis.png"):
        assert Path(place).read_text() == "mine"


def test_outputs_are_checked_before_any_work() -> None:
    """What is read is never written, nor one place twice; nothing is left."""
    Path("pictures").mkdir()
    cv2.imwrite("pictures/a.png", np.zeros((4, 4), np.uint8))
    write_all(open_sink("depth", SPEC), frames(2))
    write_all(open_sink("drive.mp4", SPEC), frames(2))
    for texts, source, words in (
        (["drive.mp4"], "drive.mp4", "drive.mp4 is read"),
        (["pictures"], "pictures", "pictures is read"),
        (["depth"], "depth", "depth is read"),
        (["png:depth"], "depth/*.png", "depth is read"),
        (["depth"], "depth/0000000001.png", "contains what is read"),
        (["new.mp4", "./new.mp4"], "0", "written twice"),
        (["new", "npz:new"], "0", "written twice"),
    ):
        with pytest.raises(MsfnetError, match=words):
            check_sinks(texts, inputs=[source], force=True)
        engine = FakeEngine(deploy_spec(48, 80), lambda batch: batch[..., 0][None])
        if source != "0":
            options = StreamOptions(out=tuple(texts), sinks=FORCE)
            with pytest.raises(MsfnetError, match=words):
                stream(engine, source, options)

    assert not {"new.mp4", "new"} & {path.name for path in Path().iterdir()}


def test_a_pipe_and_a_device_are_never_replaced() -> None:
    """A recording needs a file that can be seeked."""
    os.mkfifo("a.mp4")

    for force in (False, True):
        with pytest.raises(MsfnetError, match="device or pipe"):
            write_all(open_sink("a.mp4", SPEC, options=SinkOptions(force=force)), frames(1))
    with pytest.raises(MsfnetError, match="/dev/null is a file"):
        write_all(open_sink("/dev/null", SPEC, options=FORCE), frames(1))


def test_a_linked_target_stays_a_link() -> None:
    """The file that it leads to is replaced."""
    Path("there").mkdir()
    Path("there/b.mp4").write_text("old")
    Path("a.mp4").symlink_to("there/b.mp4")

    write_all(open_sink("a.mp4", SPEC, options=FORCE), frames(3))

    assert Path("a.mp4").is_symlink()
    assert len(read_video(Path("there/b.mp4"))[0]) == 3


def test_a_name_with_a_dot_is_a_folder_if_the_prefix_says_so() -> None:
    """Without it the suffix is unknown, and the message names the prefix."""
    with pytest.raises(MsfnetError, match=r"kind of output \.v2; .*png:…"):
        open_sink("depth.v2", SPEC)

    sink = open_sink("png:depth.v2", SPEC)
    write_all(sink, frames(1))

    assert isinstance(sink, PngSink)
    assert Path("depth.v2/0000000000.png").exists()


@pytest.mark.parametrize("text", ["a\0b.mp4", "a\0b", "npz:a\0b", "a\0b.rrd"])
def test_a_path_with_nul_is_one_line(text: str) -> None:
    """The system's ValueError does not reach the user."""
    with pytest.raises(MsfnetError, match="cannot write"):
        check_sinks([text])
    with pytest.raises(MsfnetError, match="cannot write"):
        write_all(open_sink(text, SPEC, options=ASKED), frames(1))


def test_points_without_a_camera_are_refused_before_any_output_is_begun() -> None:
    """The sinks beside it leave nothing either."""
    texts = ("depth", "a.mp4", "ply:clouds", "npz:arrays")

    with pytest.raises(MsfnetError, match="point clouds need a camera"):
        _run(texts, Frames(5))

    assert list(Path().iterdir()) == []


def _run(texts: tuple[str, ...], source: Frames) -> None:
    """Stream a source into outputs."""
    with ExitStack() as stack:
        sinks = [stack.enter_context(open_sink(text, SPEC)) for text in texts]
        run_pipeline(source, estimator(), sinks)


@pytest.mark.parametrize("text", ["ä" * 120 + ".mp4", "png:" + "x" * 249, "npz:" + "x" * 255])
def test_a_long_name_is_written(text: str) -> None:
    """The temporary names beside it are shorter."""
    write_all(open_sink(text, SPEC), frames(8))

    assert [path.name for path in Path().iterdir()] == [text.partition(":")[2] or text]
