"""Tests that files are either complete or absent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from msfnet_runtime import MsfnetError
from msfnet_runtime.files import (
    atomic_directory,
    atomic_path,
    check_writable,
    refuse_filled,
    reserve_growing,
    sha256,
)
from msfnet_runtime.onnx_metadata import existing_file
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
        reserve_growing,
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
