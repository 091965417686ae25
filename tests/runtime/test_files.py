"""Tests that files are either complete or absent."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from msfnet_runtime import MsfnetError, open_engine
from msfnet_runtime.files import (
    Growing,
    atomic_directory,
    atomic_path,
    check_outputs,
    check_writable,
    existing_file,
    locked,
    refuse_filled,
    sha256,
)
from msfnet_runtime.sinks import open_sink
from msfnet_runtime.sources import open_source
from tests.specs import network_spec


def test_an_interrupted_file_leaves_the_old_one_untouched(tmp_path: Path) -> None:
    """Ctrl-C during writing keeps the old file and leaves no other."""
    target = tmp_path / "model.onnx"
    target.write_text("old")

    with pytest.raises(KeyboardInterrupt), atomic_path(target) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt

    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_finished_file_replaces_the_old_one(tmp_path: Path) -> None:
    """The temporary name keeps the suffix, by which writers choose a format."""
    target = tmp_path / "new" / "video.mp4"

    with atomic_path(target) as partial:
        assert partial.suffix == ".mp4"
        partial.write_text("whole")

    assert target.read_text() == "whole"


def test_an_unwritable_path_is_refused(tmp_path: Path) -> None:
    """A file in the place of a folder is named."""
    (tmp_path / "file").write_text("")

    with pytest.raises(MsfnetError, match="cannot write"), atomic_path(tmp_path / "file/out.onnx"):
        pytest.fail("nothing can be written here")


def test_a_folder_is_complete_or_absent(tmp_path: Path) -> None:
    """An error during writing leaves no incomplete folder."""
    with pytest.raises(ValueError, match="stop"), atomic_directory(tmp_path / "data") as partial:
        (partial / "half").write_text("")
        raise ValueError("stop")

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_never_replaced(tmp_path: Path) -> None:
    """Its content is kept."""
    (tmp_path / "mine").write_text("")

    with pytest.raises(MsfnetError, match="already exists"), atomic_directory(tmp_path):
        pytest.fail("must not start")


def test_sha256_is_the_standard_one(tmp_path: Path) -> None:
    """The file is longer than one block; the reference is hashlib on the whole content."""
    content = bytes(range(256)) * 8192
    (tmp_path / "x").write_bytes(content)

    assert sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_a_path_is_checked_before_long_work_and_not_changed(tmp_path: Path) -> None:
    """An existing file keeps its content; a folder that cannot be created is an error."""
    (tmp_path / "file").write_text("kept")

    check_writable(tmp_path / "file")
    check_writable(tmp_path / "new.json")

    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"
    with pytest.raises(MsfnetError, match="cannot write"):
        check_writable(tmp_path / "file/new.json")


LONG = "a" * 300


@pytest.mark.parametrize(
    "access",
    [
        check_writable,
        Growing,
        refuse_filled,
        lambda path: existing_file(path, "model"),
        lambda path: open_source(f"file://{path}"),
        lambda path: open_sink(path, network_spec()).__enter__(),
        lambda path: open_sink(path.with_suffix(".mp4"), network_spec()).__enter__(),
        lambda path: open_sink(f"npz:{path}", network_spec()).__enter__(),
    ],
)
def test_too_long_a_name_is_refused_in_one_line(
    tmp_path: Path, access: Callable[[Path], object]
) -> None:
    """The system's error does not reach the user, and names the path."""
    with pytest.raises(MsfnetError, match=LONG):
        access(tmp_path / LONG)


@pytest.mark.parametrize("read", [lambda path: existing_file(path, "model"), open_engine])
def test_what_is_no_file_is_refused_before_it_is_read(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    """A pipe would wait for ever, a device would never end, a loop of links has no file."""
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    (tmp_path / "null.onnx").symlink_to("/dev/null")
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.onnx"))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(MsfnetError, match=f"{path.stem}.onnx"):
            read(path)


def test_an_output_is_never_an_input(tmp_path: Path) -> None:
    """Also by another spelling, a hard link, a symbolic link, and with ``force``."""
    source = tmp_path / "drive.mp4"
    source.write_text("frames")
    (tmp_path / "hard.mp4").hardlink_to(source)
    (tmp_path / "soft.mp4").symlink_to(source)

    for name in ("drive.mp4", "../" + tmp_path.name + "/drive.mp4", "hard.mp4", "soft.mp4"):
        with pytest.raises(MsfnetError, match=r"read and cannot be the output"):
            check_outputs([tmp_path / name], inputs=[source], force=True)
    assert source.read_text() == "frames"


def test_files_of_a_folder_that_is_read_are_inputs(tmp_path: Path) -> None:
    """A new file may lie in the folder of the data; one that exists there is not replaced."""
    (tmp_path / "0001.png").write_text("picture")

    for source in (tmp_path, tmp_path / "*.png", f"{tmp_path}/**/0?01.png"):
        check_outputs([tmp_path / "new.json"], inputs=[source, "synthetic:street", None])
        with pytest.raises(MsfnetError, match="is read"):
            check_outputs([tmp_path / "0001.png"], inputs=[source], force=True)


def test_names_with_characters_of_patterns_are_no_patterns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generated scenes, addresses and files with brackets leave their folder's files alone."""
    monkeypatch.chdir(tmp_path)
    Path("depth.mp4").write_text("old")
    Path("drive [1].mp4").write_text("frames")

    for source in ("synthetic:street?frames=5", "http://camera/video?size=1", "drive [1].mp4"):
        check_outputs(["depth.mp4"], inputs=[source], force=True)
    with pytest.raises(MsfnetError, match="is read"):
        check_outputs(["drive [1].mp4"], inputs=["drive [1].mp4"], force=True)


def test_the_file_of_an_address_is_an_input(tmp_path: Path) -> None:
    """Streams read ``file:`` addresses, with escapes."""
    (tmp_path / "drive 1.mp4").write_text("frames")

    with pytest.raises(MsfnetError, match="is read and cannot be the output"):
        check_outputs(
            [tmp_path / "drive 1.mp4"], inputs=[f"file://{tmp_path}/drive%201.mp4"], force=True
        )


def test_an_existing_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    """The error names the parameter that allows it."""
    (tmp_path / "scores.json").write_text("old")

    with pytest.raises(MsfnetError, match="exists already") as caught:
        check_outputs([None, tmp_path / "scores.json"])
    assert caught.value.parameter == "force"
    check_outputs([tmp_path / "scores.json"], force=True)
    assert (tmp_path / "scores.json").read_text() == "old"


def test_two_outputs_are_never_one_file(tmp_path: Path) -> None:
    """Two spellings of one new path are found."""
    with pytest.raises(MsfnetError, match="written twice"):
        check_outputs([tmp_path / "a.csv", tmp_path / "x/../a.csv"])
    check_outputs(["/dev/null", "/dev/null"])


def test_a_replaced_file_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    """A new file has the mode of the process."""
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "real.json").chmod(0o640)
    (tmp_path / "link.json").symlink_to("real.json")

    with atomic_path(tmp_path / "link.json") as partial:
        partial.write_text("new")
    with atomic_path(tmp_path / "new.json") as partial:
        partial.write_text("new")

    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "real.json").stat().st_mode) == 0o640
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "new.json").stat().st_mode) == 0o666 & ~mask


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    """The reader gets the whole file; the same holds for an open descriptor and a device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()

    check_outputs([pipe])
    with atomic_path(pipe) as partial:
        partial.write_text("whole")
    reader.join(10)

    assert got == ["whole"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with atomic_path("/dev/null") as partial:
        partial.write_text("whole")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with (tmp_path / "log").open("w") as log:
        with atomic_path(f"/dev/fd/{log.fileno()}") as partial:
            partial.write_text("whole")
        assert (tmp_path / "log").read_text() == "whole"


def test_a_full_device_is_an_error_of_one_line() -> None:
    """Linux offers one that is always full."""
    with pytest.raises(MsfnetError, match="/dev/full"), atomic_path("/dev/full") as partial:
        partial.write_text("whole")


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link under the temporary name makes writing fail; its target is untouched."""
    (tmp_path / "victim").write_text("kept")
    monkeypatch.setattr("secrets.token_hex", lambda size: "00" * size)
    planted = tmp_path / f".out.{os.getpid()}-00000000.partial.json"
    planted.symlink_to(tmp_path / "victim")

    with pytest.raises(MsfnetError, match="cannot write"), atomic_path(tmp_path / "out.json"):
        pytest.fail("must not start")

    assert (tmp_path / "victim").read_text() == "kept"


def test_threads_may_write_one_file_at_once(tmp_path: Path) -> None:
    """Each has a temporary file of its own; the last one to finish wins, whole."""

    def write(number: int) -> None:
        for _ in range(20):
            with atomic_path(tmp_path / "out.txt") as partial:
                partial.write_text(str(number) * 1000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))

    text = (tmp_path / "out.txt").read_text()
    assert text == text[0] * 1000
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


HOLD = """
import sys, time
from msfnet_runtime.files import atomic_path, locked, temporary_folder
with {use} as partial:
    print("ready", flush=True)
    time.sleep(60)
"""


@contextmanager
def _holding(use: str) -> Iterator[subprocess.Popen[str]]:
    """Run another process that holds a file or folder open until it is killed."""
    command = [sys.executable, "-c", HOLD.format(use=use)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """Not while the process lives, and nothing that only looks alike."""
    alike = tmp_path / ".out.notes.partial.json"
    alike.write_text("mine")
    with (
        _holding(f"atomic_path({str(tmp_path / 'out.json')!r})") as one,
        _holding(f"temporary_folder({str(tmp_path / 'out.json')!r})") as other,
    ):
        check_writable(tmp_path / "out.json")
        assert len(list(tmp_path.iterdir())) == 3
        for process in (one, other):
            process.kill()
            process.wait(10)
        check_writable(tmp_path / "out.json")

    assert list(tmp_path.iterdir()) == [alike]


@pytest.mark.parametrize("name", ["sweep.json", "run"])
def test_one_process_at_a_time_writes_a_locked_target(tmp_path: Path, name: str) -> None:
    """A file or a folder; the lock ends with its process and leaves nothing."""
    (tmp_path / "run").mkdir()
    target = tmp_path / name
    with _holding(f"locked({str(target)!r})") as other:
        with pytest.raises(MsfnetError, match="another process"), locked(target):
            pytest.fail("must not start")
        other.kill()
        other.wait(10)
        with locked(target):
            pass

    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_path_that_the_system_refuses_is_an_error_of_one_line(tmp_path: Path) -> None:
    """A NUL character cannot be in a path."""
    for use in (check_writable, lambda path: check_outputs([path]), refuse_filled):
        with pytest.raises(MsfnetError, match="cannot write"):
            use(tmp_path / "a\0b")


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    """The temporary name is not longer than file systems allow."""
    target = tmp_path / ("é" * 125 + ".json")

    with atomic_path(target) as partial:
        partial.write_text("whole")

    assert target.read_text() == "whole"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_that_outlives_its_parent_does_not_keep_the_parents_lock(tmp_path: Path) -> None:
    """A killed training leaves reading processes for some seconds; the run can be resumed."""
    script = (
        "import os, sys, time\n"
        "from msfnet_runtime.files import locked\n"
        f"with locked({str(tmp_path)!r}):\n"
        "    child = os.fork()\n"
        "    os.write(1, b'parent\\n' if child else b'child\\n')\n"
        "    time.sleep(20)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout
        assert {parent.stdout.readline(), parent.stdout.readline()} == {"parent\n", "child\n"}
        with pytest.raises(MsfnetError, match="another process"), locked(tmp_path):
            pytest.fail("must not start")

        parent.kill()
        parent.wait(10)
        try:
            with locked(tmp_path):
                pass
        finally:
            os.killpg(parent.pid, signal.SIGKILL)
