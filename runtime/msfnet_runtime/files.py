"""Writes files that are either complete or absent: under a temporary name, then renamed."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from msfnet_runtime.errors import MsfnetError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cannot_write(target: Path, error: OSError) -> MsfnetError:
    """Return the error for a file or folder that cannot be written."""
    space = "make room or " if error.errno in _NO_SPACE else ""
    return MsfnetError(f"cannot write {target}: {error.strerror}; {space}choose another path")


@contextmanager
def disk_full(target: Path) -> Iterator[None]:
    """Report a full disk as an error of one line; other errors pass.

    Raises:
        MsfnetError: there is no space for ``target``.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise cannot_write(target, error) from None


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary sibling of ``path``, with its suffix; rename it to ``path`` on success.

    On any exception, Ctrl-C included, the temporary file is removed and ``path`` is untouched.

    Raises:
        MsfnetError: the folder cannot be created or written, or the disk is full.
    """
    target = Path(path)
    partial = _reserve(target)
    try:
        with disk_full(target):
            yield partial
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check before long work that its result can be written.

    Raises:
        MsfnetError: as :func:`atomic_path`.
    """
    _reserve(Path(path)).unlink()


def _reserve(target: Path) -> Path:
    """Create the temporary sibling of a file."""
    partial = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    _create(partial, target, exist_ok=True)
    return partial


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False if the system refuses it, as too long a name."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _create(partial: Path, target: Path, *, exist_ok: bool) -> None:
    """Create an empty file beside its target."""
    if is_folder(target):
        raise MsfnetError(f"{target} is a folder; name a file to write")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.touch(exist_ok=exist_ok)
    except OSError as error:
        if isinstance(error, FileExistsError) and is_folder(target.parent):
            raise
        raise cannot_write(target, error) from None


def reserve_growing(target: Path) -> Path:
    """Create the file beside ``target`` in which a long recording grows until it is finished.

    It is visible and playable, so that users find it if the process is killed. For ``depth.mp4``
    it is ``depth.partial.mp4``, or ``depth.partial-2.mp4`` if an earlier run left that one.
    Nothing is overwritten.

    Raises:
        MsfnetError: the folder cannot be created or written, or ``target`` is a folder.
    """
    for number in itertools.count(1):
        mark = "partial" if number == 1 else f"partial-{number}"
        partial = target.with_name(f"{target.stem}.{mark}{target.suffix}")
        with suppress(FileExistsError):
            _create(partial, target, exist_ok=False)
            return partial
    raise AssertionError("itertools.count never ends")


def append_whole(file: FileIO, data: bytes, end: int) -> None:
    """Write all bytes to an unbuffered file, or restore its end.

    Raises:
        OSError: the disk is full, or another error of the file system.
    """
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(end)
        raise


def refuse_filled(target: Path) -> None:
    """Refuse a folder that is not empty.

    Raises:
        MsfnetError: ``target`` exists and is not an empty folder, or is not a valid path.
    """
    try:
        filled = target.exists() and (not target.is_dir() or any(target.iterdir()))
    except OSError as error:
        raise cannot_write(target, error) from None
    if filled:
        raise MsfnetError(f"{target} already exists; remove it or choose another path")


@contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary sibling folder of ``path``; rename it to ``path`` on success.

    Raises:
        MsfnetError: ``path`` exists and is not an empty folder, or its parent cannot be written.
    """
    target = Path(path)
    refuse_filled(target)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise cannot_write(target, error) from None
    try:
        yield partial
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sha256(*paths: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of the files' bytes, one file after another, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
