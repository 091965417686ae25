"""Ctrl-C and SIGTERM as a wish to end, so that everything written is finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether the end was asked for, and by which signal."""

    signal = 0
    """The signal's number; 0 where none came."""

    def __call__(self) -> bool:
        """Tell whether to stop."""
        return bool(self.signal)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let the first SIGINT or SIGTERM ask for the end, as long as the context lasts.

        A second signal has the effect it had before: Ctrl-C raises KeyboardInterrupt, SIGTERM
        ends the process. Outside the main thread, where Python sets no handlers, nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def ask(number: int, frame: FrameType | None) -> None:
            self.signal = number
            restore()

        for number in SIGNALS:
            signal.signal(number, ask)
        try:
            yield
        finally:
            restore()
