"""How the command line shows work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msfnet_runtime.progress import Progress

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Yield a ``Progress`` that draws on standard error, titled ``title``."""
    if sys.stderr.isatty():
        with _bar(title) as report:
            yield report
    else:
        yield _Lines(title)


class _Lines:
    """Plain lines: the first, the last, and one every few seconds between."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._last = -_SECONDS_BETWEEN_LINES

    def __call__(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES and not 0 < total <= done:
            return
        self._last = now
        count = f"{done}/{total}" if total else str(done)
        print(f"{self._title}: {count} {what}".rstrip(), file=sys.stderr, flush=True)


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, what="")

        def report(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total or None, what=what)

        yield report


def say(text: str) -> None:
    """Print a result on standard output."""
    print(text, flush=True)
