"""Shows frames and depth in a window."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.sink import SinkBase
from msfnet_runtime.sinks.options import DEFAULTS, SinkOptions
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.types import DepthMap, Frame

_TITLE = "msfnet: press q or Esc to stop"
_END_KEYS = (ord("q"), 27)


class WindowSink(SinkBase):
    """Shows the newest frame with its depth; q, Esc or closing the window ends the stream.

    The picture is drawn in the writing thread and shown by :meth:`poll` in the thread that runs
    the pipeline, because window systems need a single thread, some of them the main one.

    Raises:
        MsfnetError: this OpenCV cannot open windows, or there is no display.
    """

    def __init__(self, spec: ModelSpec, options: SinkOptions = DEFAULTS) -> None:
        check_windows()
        self._spec = spec
        self._options = options
        self._picture: NDArray[np.uint8] | None = None

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Draw the picture that the next poll shows."""
        self._picture = np.concatenate(self._options.panels(frame, depth, self._spec), axis=1)

    def poll(self) -> bool:
        """Show the newest picture; False once the user has ended the stream."""
        picture, self._picture = self._picture, None
        if picture is not None:
            cv2.imshow(_TITLE, picture[..., ::-1])
        if cv2.waitKey(1) & 0xFF in _END_KEYS:
            return False
        return cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) >= 1

    @contextmanager
    def _opened(self) -> Iterator[None]:
        cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        try:
            yield
        finally:
            cv2.destroyAllWindows()


def check_windows() -> None:
    """Check for a window system: without one, OpenCV would end the process.

    Raises:
        MsfnetError: it is missing.
    """
    if not cv2.currentUIFramework():
        raise MsfnetError(
            "this OpenCV cannot open windows; install opencv-python in place of "
            "opencv-python-headless, or write to a file",
            parameter="out",
        )
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in displays):
        raise MsfnetError(
            "there is no display for a window; write to a file instead", parameter="out"
        )
