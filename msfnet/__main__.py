"""The ``msfnet`` command: runs the app and turns every error a user can cause into one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_STOPPED = 130
"""Exit status of a command stopped by Ctrl-C, as shells give it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command line.

    Returns:
        0 on success, 1 for an error that the user can put right, 2 for bad usage, 130 when
        stopped by Ctrl-C. With ``--debug`` anywhere, errors are raised with their traceback.
    """
    from msfnet.cli import app

    debug = "--debug" in arguments
    try:
        status = app([a for a in arguments if a != "--debug"], standalone_mode=False)
        if status == _STOPPED:  # the command-line library caught Ctrl-C itself
            return _line("stopped", _STOPPED)
        return status if isinstance(status, int) else 0
    except BaseException as error:
        if debug:
            raise
        return _explain(error, arguments)


def _explain(error: BaseException, arguments: list[str]) -> int:
    """Print one line for an error and return the exit status."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return _line("stopped", _STOPPED)
    from msfnet.cli import command_words, option_of

    if hasattr(error, "format_message"):  # a usage error of the command-line library
        message = " ".join(str(error.format_message()).split()).rstrip(".")
        message = message.replace("Value error, ", "")  # a prefix of the library's validation
        help_command = " ".join(["msfnet", *command_words(arguments), "--help"])
        return _line(f"error: {message}; see `{help_command}`", 2)
    from msfnet_runtime.errors import MsfnetError

    if isinstance(error, MsfnetError):
        option = option_of(error.parameter, arguments) if error.parameter else None
        return _line(f"error: {error}{f' ({option})' if option else ''}", 1)
    if isinstance(error, OSError) and error.filename:
        return _line(f"error: {error.filename}: {error.strerror}; check the path and its rights", 1)
    return _line(
        f"error: {type(error).__name__}: {' '.join(str(error).split())[:300]}; "
        "this is a fault in msfnet, run again with --debug to see where",
        1,
    )


def _line(text: str, status: int) -> int:
    print(text, file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
