"""A clock that makes tests of threads deterministic."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from msfnet_runtime.channel import Clock

_POLL_S = 0.0005
"""Real seconds between two looks at the other threads."""


class VirtualClock(Clock):
    """Simulates time: it stands still while any thread works, and jumps when all of them wait.

    The thread that creates the clock and all threads started afterwards take part. They must wait
    through the clock alone: a thread that waits for anything else counts as working.
    """

    def __init__(self) -> None:
        self._now = 100.0
        self._lock = threading.Lock()
        self._waits: dict[int, tuple[Callable[[], object], float]] = {}
        self._strangers = set(threading.enumerate()) - {threading.current_thread()}

    def now(self) -> float:
        """Return the simulated time, seconds."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Wait for simulated seconds."""
        changed = threading.Condition()
        with changed:
            self._wait(changed, lambda: False, seconds)

    def wait_for(
        self,
        changed: threading.Condition,
        predicate: Callable[[], object],
        timeout_s: float | None = None,
    ) -> None:
        """Wait on a condition until the predicate holds or the simulated time-out is over."""
        self._wait(changed, predicate, math.inf if timeout_s is None else timeout_s)

    def _wait(
        self, changed: threading.Condition, predicate: Callable[[], object], seconds: float
    ) -> None:
        deadline = self._now + seconds
        thread = threading.get_ident()
        with self._lock:
            self._waits[thread] = predicate, deadline
        try:
            while not predicate() and self._now < deadline:
                self._advance()
                changed.wait(_POLL_S)
        finally:
            with self._lock:
                del self._waits[thread]

    def _advance(self) -> None:
        """Jump to the next deadline, unless a thread works or is about to."""
        with self._lock:
            threads = {t.ident for t in threading.enumerate() if t not in self._strangers}
            if threads - self._waits.keys() or any(ready() for ready, _ in self._waits.values()):
                return
            deadline = min(deadline for _, deadline in self._waits.values())
            assert deadline < math.inf, "every thread waits, and none has a time-out"
            self._now = max(self._now, deadline)
