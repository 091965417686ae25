"""Writes files that are either complete or absent: under a temporary name, then renamed.

The rule for every output: an input is never an output, nothing that exists is replaced unless that
is asked for, devices and pipes are written to and never replaced, a replaced file keeps its mode,
and all of it is checked before any work (:func:`check_outputs`).
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import logging
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO, FileIO
from pathlib import Path
from urllib.parse import unquote, urlsplit

from msfnet_runtime.errors import MsfnetError

try:
    import fcntl
except ImportError:  # Windows: temporary names are unique there too, but nothing is locked
    fcntl = None  # type: ignore[assignment]  # tested before each use

_log = logging.getLogger(__name__)

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)
_locks: set[int] = set()
"""Descriptors of the files and folders that :func:`locked` holds."""
_LONGEST_STEM, _LONGEST_GROWING, _LONGEST_SUFFIX = 100, 200, 32
"""Bytes of a target's name that its temporary name repeats; file systems end at 255."""


def cannot_write(target: Path, error: OSError | ValueError) -> MsfnetError:
    """Return the error for a file or folder that cannot be written."""
    number = error.errno if isinstance(error, OSError) else None
    space = "make room or " if number in _NO_SPACE else ""
    reason = getattr(error, "strerror", None) or str(error)
    return MsfnetError(f"cannot write {target}: {reason}; {space}choose another path")


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


def check_outputs(
    outputs: Iterable[str | os.PathLike[str] | None],
    *,
    inputs: Iterable[str | os.PathLike[str] | None] = (),
    force: bool = False,
) -> None:
    """Check before any work that files can be written, and that nobody else's are lost.

    Args:
        outputs: the files that will be written; None stands for one that is not asked for.
        inputs: what is read: files, folders, addresses of files, patterns of files; other names
            are ignored. An existing file inside a folder that is read counts as an input.
        force: whether existing files may be replaced. Inputs never are.

    Raises:
        MsfnetError: an output is an input, or named twice, or exists and ``force`` is not set (its
            ``parameter`` is ``force``), or is a folder, or cannot be written.
    """
    read = [source for source in inputs if source is not None]
    earlier: list[Path] = []
    for output in outputs:
        if output is None:
            continue
        target = Path(output)
        if is_folder(target):
            raise MsfnetError(f"{target} is a folder; name a file to write")
        for source in read:
            refuse_input(target, source)
        if any(same_path(target, other) for other in earlier) and not _is_stream(target):
            raise MsfnetError(f"{target} is written twice; give each output a path of its own")
        if _mode(target) is not None and not force and not _is_stream(target):
            raise MsfnetError(
                f"{target} exists already; choose another path or replace it", parameter="force"
            )
        earlier.append(target)
    for target in earlier:
        check_writable(target)


def refuse_input(target: Path, source: str | os.PathLike[str]) -> None:
    """Refuse an output that is an input, or an existing file of a folder that is read.

    Args:
        target: the output.
        source: what is read: a file, a folder, an address such as ``file:///drive.mp4``, a pattern
            of files; other names are ignored.

    Raises:
        MsfnetError: it is.
    """
    text = os.fspath(source)
    read = Path(unquote(urlsplit(text).path) if text.startswith("file://") else text)
    matched: list[Path] = []
    with suppress(OSError, ValueError, NotImplementedError):
        if set(text) & set("*?[") and "://" not in text and not read.exists():
            matched = matching_files(text)
    if any(same_path(target, path) for path in {read, *matched, *(f.parent for f in matched)}):
        raise MsfnetError(f"{target} is read and cannot be the output; choose another path")
    if _mode(target) is None or not is_folder(read) or _is_stream(target):
        return
    if read.resolve() in target.resolve().parents:
        raise MsfnetError(
            f"{target} lies in {read}, which is read; choose a path outside of that folder"
        )


def matching_files(pattern: str) -> list[Path]:
    """Return what matches a pattern such as ``frames/*.png``, ``**`` for any folders.

    Raises:
        OSError, ValueError, NotImplementedError: the pattern is not valid.
    """
    root = Path(pattern).anchor
    return list(Path(root or ".").glob(pattern.removeprefix(root)))


def same_path(one: Path, other: Path) -> bool:
    """Return whether two paths name one file or folder, hard links included."""
    try:
        if os.path.realpath(one) == os.path.realpath(other):
            return True
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def _mode(path: Path) -> int | None:
    """Return the type and mode of what a path or its link leads to; None if there is nothing.

    Raises:
        MsfnetError: the system refuses the path.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise cannot_write(path, error) from None


def _is_stream(path: Path) -> bool:
    """Return whether a path is a device, a pipe or an open descriptor such as ``/dev/stdout``."""
    folder = os.path.realpath(path.parent)
    if folder == "/dev" or folder.startswith("/proc/"):
        return True
    mode = _mode(path)
    return mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary sibling of ``path``, with its suffix; rename it to ``path`` on success.

    On any exception, Ctrl-C included, the temporary file is removed and ``path`` is untouched. A
    killed process leaves its temporary file, which :func:`check_writable` removes. A file that is
    replaced passes on its mode and owner, a symbolic link stays one, and what is written to a
    device or pipe is sent there when it is complete.

    Raises:
        MsfnetError: the folder cannot be created or written, or the disk is full.
    """
    named = Path(path)
    if _is_stream(named):
        with tempfile.TemporaryDirectory() as folder:
            partial = Path(folder) / f"output{named.suffix}"
            yield partial
            _send(partial, named)
        return
    target = Path(os.path.realpath(named)) if named.is_symlink() else named
    partial = _reserve(target)
    try:
        with disk_full(target), _held(partial):
            yield partial
            _keep_mode(target, partial)
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _send(partial: Path, stream: Path) -> None:
    """Write a complete file into a device or pipe."""
    try:
        descriptor = os.open(stream, os.O_WRONLY | os.O_APPEND)
        with os.fdopen(descriptor, "wb") as sink, partial.open("rb") as source:
            shutil.copyfileobj(source, sink)
    except OSError as error:
        raise cannot_write(stream, error) from None


def _keep_mode(target: Path, partial: Path) -> None:
    """Give a file the mode and, where the system allows it, the owner of the one it replaces."""
    try:
        old = target.stat()
    except OSError:
        return
    with suppress(OSError, AttributeError):  # only the administrator may give files away
        os.chown(partial, old.st_uid, old.st_gid)
    partial.chmod(stat.S_IMODE(old.st_mode))


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check before long work that its result can be written; remove what killed processes left.

    Raises:
        MsfnetError: as :func:`atomic_path`.
    """
    target = Path(path)
    if _is_stream(target):
        if not os.access(target, os.W_OK):
            raise MsfnetError(f"cannot write {target}; choose another path")
        return
    target = Path(os.path.realpath(target)) if target.is_symlink() else target
    _remove_dead(target)
    _reserve(target).unlink()


def _reserve(target: Path) -> Path:
    """Create the temporary sibling of a file."""
    partial = _temporary_name(target)
    try:
        _create(partial, target)
    except FileExistsError as error:  # somebody guessed the name
        raise cannot_write(partial, error) from None
    return partial


@contextmanager
def _held(partial: Path) -> Iterator[None]:
    """Keep a temporary file or folder locked, so that nobody takes it for a dead process's."""
    if fcntl is None:
        yield
        return
    lock = os.open(partial, os.O_RDONLY)
    try:
        _try_lock(lock, partial)
        yield
    finally:
        os.close(lock)


def _temporary_name(target: Path) -> Path:
    """Return a new temporary name beside a target, with its suffix."""
    start, end = _temporary_ends(target)
    return target.with_name(f"{start}{os.getpid()}-{secrets.token_hex(4)}{end}")


def _temporary_ends(target: Path) -> tuple[str, str]:
    """Return what the temporary names of a target begin and end with."""
    suffix = target.suffix if len(os.fsencode(target.suffix)) <= _LONGEST_SUFFIX else ""
    stem = os.fsencode(target.name.removesuffix(suffix))[:_LONGEST_STEM]
    return f".{stem.decode('utf-8', 'ignore')}.", f".partial{suffix}"


def _remove_dead(target: Path) -> None:
    """Remove the temporary files and folders of a target whose process was killed."""
    start, end = _temporary_ends(target)
    try:
        names = [path.name for path in target.parent.iterdir()] if fcntl else []
    except (OSError, ValueError):
        return
    for name in names:
        if name.startswith(start) and name.endswith(end):
            process, _, token = name[len(start) : len(name) - len(end)].partition("-")
            if process.isdecimal() and token.isalnum() and not _lives(int(process)):
                with suppress(OSError):
                    _remove_unlocked(target.with_name(name))


def _remove_unlocked(partial: Path) -> None:
    """Remove a temporary file or folder of this user that no process holds locked."""
    lock = os.open(partial, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(lock)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if status.st_uid != os.geteuid():
            return
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(partial, ignore_errors=True)
        elif stat.S_ISREG(status.st_mode):
            partial.unlink()
    finally:
        os.close(lock)


def _lives(process: int) -> bool:
    """Return whether a process of this number exists here."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _try_lock(descriptor: int, path: Path) -> bool:
    """Lock an open file; return False if another process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _log.warning("%s cannot be locked (%s); let one process at a time use it", path, error)
    return True


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let one process at a time write a file or an existing folder.

    The lock ends with the process, however it ends.

    Raises:
        MsfnetError: another process holds it, or the folder cannot be written.
    """
    target = Path(path)
    if fcntl is None:
        yield
        return
    is_file = not is_folder(target)
    name = target.with_name(f".{target.name}.lock") if is_file else target
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW if is_file else os.O_RDONLY
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        while True:
            lock = os.open(name, flags, 0o666)
            if not _try_lock(lock, name):
                os.close(lock)
                raise MsfnetError(
                    f"another process is writing {target}; wait for it or choose another path"
                )
            with suppress(FileNotFoundError):  # its last holder has just removed it
                if os.path.samestat(os.fstat(lock), name.stat()):
                    break
            os.close(lock)
    except (OSError, ValueError) as error:
        raise cannot_write(target, error) from None
    _locks.add(lock)
    try:
        yield
    finally:
        if lock in _locks:  # not in a forked process
            _locks.remove(lock)
            if is_file:
                name.unlink(missing_ok=True)
            os.close(lock)


def _leave_locks() -> None:
    """Give up a parent's locks in a forked process, which may outlive it."""
    while _locks:
        os.close(_locks.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks)


def existing_file(path: str | os.PathLike[str], what: str) -> Path:
    """Return ``path`` when it is a file.

    Raises:
        MsfnetError: it is missing, a folder, a pipe, a device or not a valid path.
    """
    file = Path(path)
    try:
        regular_size(file)
    except FileNotFoundError:
        raise MsfnetError(f"{file} does not exist; check the path of the {what}") from None
    except IsADirectoryError:
        raise MsfnetError(f"{file} is a folder; name the {what} itself") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or "not a valid path"
        raise MsfnetError(f"cannot read {file}: {reason}; check the path") from None
    return file


def regular_size(path: Path) -> int:
    """Return the size of a file, bytes.

    Raises:
        OSError: it cannot be read as a file: it is missing, a folder, a pipe, where reading can
            wait for ever, or a device, which can be endless.
    """
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file")
    return found.st_size


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False if the system refuses it, as too long a name."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _create(partial: Path, target: Path) -> None:
    """Create an empty file beside its target, which nobody else may have made."""
    if is_folder(target):
        raise MsfnetError(f"{target} is a folder; name a file to write")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.touch(exist_ok=False)
    except (OSError, ValueError) as error:
        if isinstance(error, FileExistsError) and is_folder(target.parent):
            raise
        raise cannot_write(target, error) from None


class Growing:
    """The file beside ``target`` in which a long recording grows until it is finished.

    It is visible and playable, so that users find it if the process is killed. For ``depth.mp4``
    it is ``depth.partial.mp4``, or ``depth.partial-2.mp4`` if an earlier run left that one. One
    process at a time records to a target.

    Args:
        target: the finished recording.
        force: whether an existing recording is replaced.

    Raises:
        MsfnetError: ``target`` exists and ``force`` is not set, or is a folder, device or pipe, or
            cannot be written, or another process is recording it.
    """

    def __init__(self, target: Path, *, force: bool = False) -> None:
        if _is_stream(target):
            raise MsfnetError(f"{target} is a device or pipe; name a file to record to")
        check_outputs([target], force=force)
        self._target = Path(os.path.realpath(target)) if target.is_symlink() else target
        self._replaced = target.stat() if _mode(target) is not None else None
        self._held = ExitStack()
        self._held.enter_context(locked(self._target))
        self.path: Path | None = None
        """The growing file, once it is begun."""

    def begin(self, content: bytes = b"") -> Path:
        """Create the growing file with its first content, and return its path.

        Raises:
            MsfnetError: it cannot be written.
        """
        partial = _reserve(self._target)
        stem = os.fsencode(self._target.stem)[:_LONGEST_GROWING].decode("utf-8", "ignore")
        try:
            with disk_full(self._target):
                partial.write_bytes(content)
            self._status = partial.stat()
            for number in itertools.count(1):
                mark = "partial" if number == 1 else f"partial-{number}"
                path = self._target.with_name(f"{stem}.{mark}{self._target.suffix}")
                with suppress(FileExistsError):
                    _rename_new(partial, path)
                    self.path = path
                    return path
        except OSError as error:
            raise cannot_write(self._target, error) from None
        finally:
            partial.unlink(missing_ok=True)
        raise AssertionError("itertools.count never ends")

    def check(self) -> None:
        """Check that the growing file, once it is begun, still has its name.

        Raises:
            MsfnetError: it was renamed or removed.
        """
        if self.path is None:
            return
        try:
            if os.path.samestat(self._status, self.path.stat()):
                return
        except OSError:
            pass
        raise MsfnetError(
            f"{self.path} was renamed or removed while it was recorded, and {self._target} is not "
            "written; repeat the recording and leave its file alone"
        )

    def finish(self) -> None:
        """Rename the growing file to the target, and release it.

        Raises:
            MsfnetError: the target appeared during the recording, which is then kept under its
                temporary name; or the growing file was renamed or removed.
        """
        with self._held:
            if self.path is None:
                return
            self.check()
            present = self._target.stat() if _mode(self._target) is not None else None
            if self._replaced and present and os.path.samestat(self._replaced, present):
                _keep_mode(self._target, self.path)
                self.path.replace(self._target)
                return
            try:
                _rename_new(self.path, self._target)
            except FileExistsError:
                raise MsfnetError(
                    f"{self._target} appeared while it was recorded and is kept; the recording is "
                    f"{self.path}"
                ) from None

    def give_up(self, *, remove: bool = False) -> None:
        """Leave the growing file under its temporary name, or remove it; release it."""
        with self._held:
            if remove and self.path is not None:
                self.path.unlink(missing_ok=True)


def _rename_new(path: Path, target: Path) -> None:
    """Rename a file to a name that nobody else may have taken.

    Raises:
        FileExistsError: the name is taken.
        OSError: another error of the file system.
    """
    try:
        os.link(path, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        path.rename(target)
    else:
        path.unlink()


def append_whole(file: FileIO | BytesIO, data: bytes, end: int) -> None:
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
        exists, folder = _mode(target) is not None, target.is_dir()
        filled = any(target.iterdir()) if folder else exists
    except OSError as error:
        raise cannot_write(target, error) from None
    if filled:
        state = "already exists and is not empty" if folder else "is a file"
        raise MsfnetError(f"{target} {state}; choose a new folder")


@contextmanager
def temporary_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new folder beside ``path``, and remove it with all it holds in the end.

    A killed process leaves its folder; the next one with the same ``path`` removes it.

    Raises:
        MsfnetError: the folder cannot be made.
    """
    target = Path(path)
    _remove_dead(target)
    partial = _temporary_name(target)
    try:
        partial.mkdir(parents=True)
    except (OSError, ValueError) as error:
        raise cannot_write(target, error) from None
    try:
        with _held(partial):
            yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary sibling folder of ``path``; rename it to ``path`` on success.

    Raises:
        MsfnetError: ``path`` exists and is not an empty folder, or its parent cannot be written.
    """
    target = Path(path)
    refuse_filled(target)
    with temporary_folder(target) as partial:
        yield partial
        try:
            partial.replace(target)
        except OSError as error:
            raise cannot_write(target, error) from None


def sha256(*paths: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of the files' bytes, one file after another, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
