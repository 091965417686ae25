"""The ``msfnet`` command: runs the app and turns every error a user can cause into one line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from itertools import pairwise

from msfnet import messages

_STOPPED = 130
"""Exit status of a command stopped by Ctrl-C, as shells give it."""

_NOT_READ = 141
"""Exit status when the reader of standard output went away (``| head``), as shells give it."""

_LONGEST = 300
"""Characters of a foreign error's text in a message."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    _prepare_streams()
    status = run(list(sys.argv[1:] if arguments is None else arguments))
    try:
        sys.stdout.flush()
    except OSError as error:
        status = status or _explain(error, [])
        _discard_output()
    sys.exit(status)


def _prepare_streams() -> None:
    """Make standard output and error accept every character, and stand in for closed ones."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # the next file that is opened would get its number, and foreign text
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a text file


def _discard_output() -> None:
    """Let Python's last attempt to write standard output succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def run(arguments: list[str]) -> int:
    """Run one command line.

    Returns:
        0 on success, 1 for an error that the user can put right, 2 for bad usage, 130 when
        stopped by Ctrl-C, 141 when the reader of the output went away. With ``--debug`` anywhere,
        errors are raised with their traceback.
    """
    debug = "--debug" in arguments
    with messages.collected(as_json=_wants_json(arguments)):
        try:
            from msfnet.cli import app

            status = app([a for a in arguments if a != "--debug"], standalone_mode=False)
            if status == _STOPPED:  # the command-line library caught Ctrl-C itself
                raise KeyboardInterrupt
            return status if isinstance(status, int) else 0
        except BaseException as error:
            if debug:
                raise
            return _explain(error, arguments)


def _wants_json(arguments: Sequence[str]) -> bool:
    """Return whether ``--log json`` is on a command line, which may be wrong elsewhere."""
    return "--log=json" in arguments or ("--log", "json") in pairwise(arguments)


def _explain(error: BaseException, arguments: list[str]) -> int:
    """Print one line for an error and return the exit status."""
    if isinstance(error, SystemExit):
        reader_left = isinstance(error.__context__, BrokenPipeError)
        return _NOT_READ if reader_left else error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        messages.note("stopped")
        return _STOPPED
    if isinstance(error, BrokenPipeError) and not error.filename:
        return _NOT_READ
    status, text = _describe(error, arguments)
    messages.note("error", text)
    return status


def _describe(error: BaseException, arguments: list[str]) -> tuple[int, str]:
    """Return the exit status for an error, and its line."""
    if isinstance(error, ImportError):
        return 1, _import_problem(error)
    from msfnet.cli import command_words, option_of
    from msfnet_runtime.errors import MsfnetError

    if hasattr(error, "format_message"):  # a usage error of the command-line library
        message = " ".join(str(error.format_message()).split()).rstrip(".")
        message = message.replace("Value error, ", "")  # a prefix of the library's validation
        help_command = " ".join(["msfnet", *command_words(arguments), "--help"])
        return 2, f"{message}; see `{help_command}`"
    if isinstance(error, MsfnetError):
        option = option_of(error.parameter, arguments) if error.parameter else None
        return 1, f"{error}{f' ({option})' if option else ''}"
    if isinstance(error, OSError) and error.filename:
        return 1, f"{error.filename}: {error.strerror}; check the path and its rights"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return 1, f"{error.strerror}; make room on the disk, or send the output elsewhere"
    return 1, _fault(error)


def _import_problem(error: ImportError) -> str:
    """Return what a failed import means: a library's problem, or a fault of ours."""
    try:
        from msfnet_runtime.libraries import explain

        known = explain(error)
    except ImportError:  # NumPy or OpenCV, which everything here imports
        known = None
    if known:
        return str(known)
    if (error.name or "").startswith("msfnet"):
        return _fault(error)
    return (
        f"a library is missing or does not load: {_short(error)}; install it again, or what it "
        "lacks; `msfnet doctor` shows what loads"
    )


def _fault(error: BaseException) -> str:
    return (
        f"{type(error).__name__}: {_short(error)}; this is a fault in msfnet, run again with "
        "--debug to see where"
    )


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:_LONGEST]


if __name__ == "__main__":
    main()
