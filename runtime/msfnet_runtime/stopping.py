"""Treats Ctrl-C and SIGTERM as requests to stop, so that outputs are finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Records whether a stop was requested, and by which signal."""

    signal = 0
    """Number of the signal; 0 if there was none."""

    def __call__(self) -> bool:
        """Return whether a stop was requested."""
        return bool(self.signal)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Treat the first SIGINT or SIGTERM within the context as a request to stop.

        A second signal has its usual effect: Ctrl-C raises KeyboardInterrupt, SIGTERM ends the
        process. Outside the main thread, where Python cannot set handlers, nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def request(number: int, frame: FrameType | None) -> None:
            self.signal = number
            restore()

        for number in SIGNALS:
            signal.signal(number, request)
        try:
            yield
        finally:
            restore()
