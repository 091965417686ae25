"""Treats Ctrl-C, SIGTERM and SIGHUP as requests to stop, so that outputs are finished."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""The signals that request a stop; SIGHUP, of a terminal that closes, is unknown to Windows."""


class Stop:
    """Records whether a stop was requested, and by which signal.

    Args:
        abort_s: seconds after a second Ctrl-C in which the process may end by itself; then it is
            ended, whatever hangs. None waits for it.
    """

    signal = 0
    """Number of the signal; 0 if there was none."""

    def __init__(self, *, abort_s: float | None = None) -> None:
        self._abort_s = abort_s

    def __call__(self) -> bool:
        """Return whether a stop was requested."""
        return bool(self.signal)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Treat the first of :data:`SIGNALS` within the context as a request to stop.

        A second one aborts: Ctrl-C raises KeyboardInterrupt, the others end the process. SIGHUP
        stays ignored where it is, as under nohup. Outside the main thread, where Python cannot set
        handlers, nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        if before.get(getattr(signal, "SIGHUP", None)) is signal.SIG_IGN:
            del before[signal.SIGHUP]

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def abort(number: int, frame: FrameType | None) -> None:
            restore()
            if self._abort_s is not None:
                end = threading.Timer(self._abort_s, os._exit, (128 + number,))
                end.daemon = True
                end.start()
            raise KeyboardInterrupt

        def request(number: int, frame: FrameType | None) -> None:
            self.signal = number
            restore()
            if before[signal.SIGINT] is signal.default_int_handler:
                signal.signal(signal.SIGINT, abort)

        for number in before:
            signal.signal(number, request)
        try:
            yield
        finally:
            restore()
