"""``msfnet stream`` as a process of its own, looked at from outside."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from msfnet_runtime import MsfnetError
from msfnet_runtime.closing import Closing

if TYPE_CHECKING:
    from _typeshed import StrPath

_PAGE = "live page"

_PATIENCE_S = 60.0
"""How long a process may take to start, to go on or to end."""

_SAMPLE_EVERY_S = 0.05
"""Often enough that a file just being written is not all that is seen."""


class Sample(NamedTuple):
    """The system's figures of a process."""

    resident_bytes: int
    descriptors: int
    threads: int


class StreamProcess(Closing):
    """Runs ``python -m msfnet stream … --log json``; reads along, and samples it.

    Args:
        arguments: what follows ``stream``.
        watch: called with every snapshot.
    """

    def __init__(
        self,
        arguments: Sequence[StrPath],
        watch: Callable[[dict[str, Any]], object] = lambda snapshot: None,
    ) -> None:
        command = [sys.executable, "-m", "msfnet", "stream", *map(str, arguments)]
        self._process = subprocess.Popen(
            [*command, "--log", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._watch = watch
        self._changed = threading.Condition()
        self._page = ""
        self._snapshot: dict[str, Any] = {"frames": 0}
        self.samples: list[Sample] = []
        """What the system said of it, from its first frame on, 20 times a second."""
        self.messages: list[str] = []
        """What it said on standard error besides snapshots."""
        self._reader = threading.Thread(target=self._read, name="stream-process", daemon=True)
        self._reader.start()
        self._sampler = threading.Thread(target=self._watch_process, name="sampler", daemon=True)
        self._sampler.start()

    def page(self) -> str:
        """Wait for the live page; return its address."""
        self._wait(lambda: bool(self._page))
        return self._page

    def reach(self, frames: int) -> None:
        """Wait until it has written so many frames.

        Raises:
            MsfnetError: it ended before, or got no further for a minute.
        """
        while (now := self._frames()) < frames:
            self._wait(partial(self._is_beyond, now))

    def limit_files(self, size: int) -> None:
        """Let no file it writes grow beyond so many bytes, as if the disk were full there."""
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, size))

    def kill(self) -> None:
        """End it with SIGKILL, which it cannot notice."""
        self._process.kill()
        self._process.wait()

    def end(self) -> tuple[int, dict[str, Any]]:
        """Wait for its end; return the exit status and the report, empty where there is none."""
        assert self._process.stdout is not None
        try:
            status = self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise MsfnetError(f"msfnet stream does not end; {self._last_words()}") from None
        self._reader.join()
        self._sampler.join()
        text = self._process.stdout.read()
        return status, dict(json.loads(text)) if text else {}

    def close(self) -> None:
        """End it, if it runs, and close its pipes."""
        self.kill()
        self._reader.join()
        self._sampler.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                with self._changed:
                    self._take(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _take(self, line: str) -> None:
        message = json.loads(line) if line.startswith("{") else {}
        if "frames" in message:
            self._snapshot = message
            self._watch(message)
        elif _PAGE in message:
            self._page = message[_PAGE]
        else:
            self.messages.append(
                ", ".join(f"{kind}: {text}" for kind, text in message.items()) or line
            )

    def _watch_process(self) -> None:
        while self._process.poll() is None:
            if self._frames() and (sample := _sample(self._process.pid)):
                self.samples.append(sample)
            time.sleep(_SAMPLE_EVERY_S)

    def _frames(self) -> int:
        return int(self._snapshot["frames"])

    def _is_beyond(self, frames: int) -> bool:
        return self._frames() > frames

    def _wait(self, reached: Callable[[], bool]) -> None:
        due = time.monotonic() + _PATIENCE_S
        with self._changed:
            while not reached():
                left = due - time.monotonic()
                if left <= 0 or not self._reader.is_alive():
                    raise MsfnetError(f"msfnet stream does not go on; {self._last_words()}")
                self._changed.wait(min(left, 0.2))

    def _last_words(self) -> str:
        return f"it last said: {self.messages[-1]}" if self.messages else "it said nothing"


def _sample(process: int) -> Sample | None:
    """Ask the system; None where the process is just gone."""
    root = Path(f"/proc/{process}")
    try:
        pages = int((root / "statm").read_text(encoding="ascii").split()[1])
        files, threads = (len(list((root / name).iterdir())) for name in ("fd", "task"))
    except (OSError, IndexError):
        return None
    return Sample(pages * os.sysconf("SC_PAGE_SIZE"), files, threads)
