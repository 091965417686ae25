"""Files that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msfnet_runtime.errors import MsfnetError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_full(target: Path) -> Iterator[None]:
    """Turn the errors of a full disk into one line.

    Raises:
        MsfnetError: there is no room for ``target``.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise MsfnetError(
            f"cannot write {target}: {error.strerror}; make room or choose another path"
        ) from None


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary sibling of ``path``, with its suffix; rename it to ``path`` on success.

    On any exception, Ctrl-C included, the temporary file is removed and ``path`` is untouched.

    Raises:
        MsfnetError: the folder cannot be made or written, or the disk is full.
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
    """Find out before long work whether its result can be written.

    Raises:
        MsfnetError: as :func:`atomic_path` would.
    """
    _reserve(Path(path)).unlink()


def _reserve(target: Path) -> Path:
    """Make the temporary sibling of a file."""
    partial = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    if target.is_dir():
        raise MsfnetError(f"{target} is a folder; name a file to write")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    except OSError as error:
        raise MsfnetError(f"cannot write {target}: {error.strerror}; choose another path") from None
    return partial


def reserve_growing(target: Path) -> Path:
    """Make the file beside ``target`` in which a long recording grows until it is finished.

    It is visible and plays as it is, so that what a killed process leaves is found: for
    ``depth.mp4`` it is ``depth.partial.mp4``, or ``depth.partial-2.mp4`` where that one was left
    by an earlier run. Nothing that exists is overwritten.

    Raises:
        MsfnetError: the folder cannot be made or written, or ``target`` is a folder.
    """
    if target.is_dir():
        raise MsfnetError(f"{target} is a folder; name a file to write")
    for number in itertools.count(1):
        mark = "partial" if number == 1 else f"partial-{number}"
        partial = target.with_name(f"{target.stem}.{mark}{target.suffix}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.touch(exist_ok=False)
        except FileExistsError:
            if partial.parent.is_dir():
                continue
            raise MsfnetError(
                f"cannot write {target}: {target.parent} is no folder; choose another path"
            ) from None
        except OSError as error:
            raise MsfnetError(
                f"cannot write {target}: {error.strerror}; choose another path"
            ) from None
        return partial
    raise AssertionError("itertools.count never ends")


def refuse_filled(target: Path) -> None:
    """Refuse a folder that holds something already.

    Raises:
        MsfnetError: ``target`` exists and is not an empty folder.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise MsfnetError(f"{target} exists already; remove it or choose another path")


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
        raise MsfnetError(f"cannot write {target}: {error.strerror}; choose another path") from None
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
