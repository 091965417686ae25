"""Shows progress and results: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from msfnet.messages import printable, put

if TYPE_CHECKING:
    from msfnet_runtime.progress import Progress

_SECONDS_BETWEEN_LINES = 5.0

STANDARD_OUTPUT = Path("-")
"""The file name that stands for standard output."""


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Yield a ``Progress`` that draws on standard error, titled ``title``."""
    if sys.stderr.isatty():
        with _bar(title) as report:
            yield report
    else:
        yield _Lines(title)


class _Lines:
    """Prints the first report of a count, the last, and one every few seconds between.

    A line is ``title: done/total what (percent, time elapsed, time left)``. One command may count
    several times, each time with its own total; the time left is that of the present count.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._last = float("-inf")
        self._begun = time.monotonic()
        self._total, self._first, self._start, self._done = -1, 0, self._begun, -1
        """The present count's total, first report, start and newest report."""

    def __call__(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if total != self._total or done < self._first:
            self._total, self._first, self._start = total, done, now
            self._done, self._last = -1, float("-inf")
        finished = done > self._done and 0 < total <= done
        self._done = done
        if now - self._last < _SECONDS_BETWEEN_LINES and not finished:
            return
        self._last = now
        count = f"{done}/{total}" if total else str(done or "")
        times = [f"{done / total:.0%}"] if total else []
        times.append(f"{_clock(now - self._begun)} elapsed")
        if self._first < done < total:
            left = (now - self._start) / (done - self._first) * (total - done)
            times.append(f"{_clock(left)} left")
        line = " ".join(part for part in (f"{self._title}:", count, what) if part)
        put(f"{line} ({', '.join(times)})")


def _clock(seconds: float) -> str:
    """Return a time as ``M:SS`` or ``H:MM:SS``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Lenient:
    """Standard error for a bar, which goes on without it when its terminal is closed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)

    def write(self, text: str) -> int:
        """Write, or do nothing."""
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}", markup=False),  # names can hold [/x]
    )
    with Bar(*columns, console=Console(file=cast("TextIO", _Lenient()))) as bar:
        task = bar.add_task(title, total=None, what="")

        def report(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total or None, what=printable(what))

        yield report


def say(text: str) -> None:
    """Print a result on standard output.

    Raises:
        OSError: it cannot be written.
    """
    print(printable(text), flush=True)


def check_outputs(
    *outputs: Path | None,
    json: Path | None = None,
    inputs: Iterable[str | Path | None] = (),
    force: bool = False,
) -> None:
    """Check before any work that a command's files can be written.

    Only ``json`` may be standard output, ``-``.

    Raises:
        MsfnetError: as :func:`msfnet_runtime.files.check_outputs`.
    """
    from msfnet_runtime import MsfnetError, files

    if STANDARD_OUTPUT in outputs:
        raise MsfnetError("only --json prints on standard output; name a file instead of -")
    named = [None if json == STANDARD_OUTPUT else json, *outputs]
    files.check_outputs(named, inputs=inputs, force=force)


def show(text: str, content: str, json: Path | None) -> None:
    """Print a result as text, and write it as JSON where that is asked for.

    Args:
        text: the result for people to read.
        content: the same result as JSON.
        json: file to write, made whole or not at all; ``-`` prints the JSON instead of the text.

    Raises:
        MsfnetError: the file cannot be written.
    """
    from msfnet_runtime.files import atomic_path

    if json == STANDARD_OUTPUT:
        text = content
    elif json:
        with atomic_path(json) as partial:
            partial.write_text(content + "\n", encoding="utf-8")
    say(text)
