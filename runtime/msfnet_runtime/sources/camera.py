"""Live sources, and those read through OpenCV: cameras of this machine, GStreamer pipelines."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import cv2
import numpy as np

from msfnet_runtime.channel import Channel
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.images import quiet
from msfnet_runtime.source import SourceBase, SourceHealth
from msfnet_runtime.sources.options import DEFAULTS, SourceOptions
from msfnet_runtime.sources.skipping import LOGGER, SlowLog
from msfnet_runtime.types import Frame

FIRST_WAIT_S = 0.5
"""Before a lost source is tried again; doubled each time, up to :data:`LONGEST_WAIT_S`."""

LONGEST_WAIT_S = 10.0

_BAD_IN_A_ROW = 30
"""Frames that fail to decode, one after the other, before the source counts as lost."""

_CLOSE_S = 1.0
"""How long closing waits for a read that is under way; what is left ends by itself."""


class Capture(Protocol):
    """What a live source reads from: OpenCV's VideoCapture, as far as it is used."""

    def get(self, what: int, /) -> float:
        """Return a property: ``CAP_PROP_FPS``, ``_FRAME_COUNT``, ``_POS_MSEC``; 0 where unknown."""

    def grab(self) -> bool:
        """Wait for the next frame; False when there is none any more."""

    def retrieve(self) -> tuple[bool, Any]:
        """Decode the frame that was waited for, (H, W, 3) uint8 BGR; False where that fails."""

    def release(self) -> None:
        """Give the device or connection back."""


def frame_rate(capture: Capture, fallback: float) -> float:
    """Return what a capture says of its frame rate, where that can be true."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if math.isfinite(fps) and 0 < fps <= 1000 else fallback


class LiveSource(SourceBase):
    """Frames as they arrive, stamped on arrival; who takes them late gets the newest.

    A thread of its own reads, so that nothing grows old in the camera's own buffers, and a camera
    that hangs does not hold whoever stops the stream. A source that is lost is opened again and
    again, with growing waits, until it is back or the stream is stopped; one that announces its
    length (a recording on a server) ends.

    Args:
        connect: opens the source.
        name: for messages.
        reconnect: False ends the frames when the source is lost; what was recorded stays.

    Raises:
        MsfnetError: it cannot be opened the first time.
    """

    live = True

    def __init__(
        self, connect: Callable[[], Capture], name: str, *, reconnect: bool = True
    ) -> None:
        self._connect = connect
        self._name = name
        self._capture = connect()
        self.fps = frame_rate(self._capture, SourceBase.fps)
        self._reconnect = reconnect and self._capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0
        self._losses = self._skipped = self._bad = 0
        self._log = SlowLog()
        self._ended = threading.Event()
        self._frames: Channel[Frame] = Channel(1, newest=True)
        self._reader = threading.Thread(target=self._read, name="msfnet-camera", daemon=True)

    @property
    def health(self) -> SourceHealth:
        """What was skipped or dropped, and how often the source was lost and came back."""
        return SourceHealth(self._skipped, self._losses, self._frames.dropped)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; timestamps are seconds since the first."""
        self._reader.start()
        while (frame := self._frames.get()) is not None:
            yield frame

    def stop(self) -> None:
        """End the frames at once, also where the source is waited for."""
        self._ended.set()
        self._frames.cancel()

    def close(self) -> None:
        """Give the camera back."""
        self.stop()
        if self._reader.ident is None:
            self._capture.release()
        else:
            self._reader.join(_CLOSE_S)

    def _read(self) -> None:
        """Read until the end; the capture belongs to this thread."""
        index, start = 0, 0.0
        while not self._ended.is_set():
            grabbed = self._bad < _BAD_IN_A_ROW and self._capture.grab()
            now = time.monotonic()
            if not grabbed:
                if self._ended.is_set() or not (self._reconnect and self._came_back()):
                    break
                continue
            read, image = self._capture.retrieve()
            if not read or image is None:
                self._skip()
                continue
            self._bad, start = 0, start or now
            frame = Frame(np.ascontiguousarray(image[..., ::-1], np.uint8), index, now - start)
            if not self._frames.put(frame):
                break
            index += 1
        self._capture.release()
        self._frames.finish()

    def _skip(self) -> None:
        self._bad += 1
        self._skipped += 1
        self._log(f"{self._name}: a frame cannot be decoded")

    def _came_back(self) -> bool:
        """Open the source again, with growing waits; False when the stream is stopped."""
        LOGGER.warning("%s is lost; waiting for it", self._name)
        self._capture.release()
        wait = FIRST_WAIT_S
        while not self._ended.wait(wait):
            wait = min(2 * wait, LONGEST_WAIT_S)
            try:
                self._capture = self._connect()
            except MsfnetError:
                continue
            self._losses += 1
            self._bad = 0
            LOGGER.warning("%s is back", self._name)
            return True
        return False


class CameraSource(LiveSource):
    """A camera by its index, or by its device file (``/dev/video0``).

    Raises:
        MsfnetError: it cannot be opened.
    """

    def __init__(self, device: int | str, options: SourceOptions = DEFAULTS) -> None:
        name = f"camera {device}"

        def connect() -> cv2.VideoCapture:
            quiet()
            capture = cv2.VideoCapture(device)
            if not capture.isOpened():
                raise MsfnetError(
                    f"{name} cannot be opened; check that it is plugged in, that no other "
                    "program holds it and that you may read it, or try another index"
                )
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # an older frame is worth nothing
            if options.camera_size is not None:
                capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options.camera_size[0])
                capture.set(cv2.CAP_PROP_FRAME_WIDTH, options.camera_size[1])
            if options.camera_fps is not None:
                capture.set(cv2.CAP_PROP_FPS, options.camera_fps)
            return capture

        super().__init__(connect, name, reconnect=options.reconnect)


class GStreamerSource(LiveSource):
    """A GStreamer pipeline that ends in ``appsink``, where OpenCV was built with GStreamer.

    Raises:
        MsfnetError: it was not, or the pipeline does not start.
    """

    def __init__(self, pipeline: str, options: SourceOptions = DEFAULTS) -> None:
        if not has_gstreamer():
            raise MsfnetError(
                "this OpenCV has no GStreamer, as those from pip; build OpenCV with it (NVIDIA's "
                "for Jetson has it), or give an address such as rtsp://…"
            )

        def connect() -> cv2.VideoCapture:
            quiet()
            capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
            if not capture.isOpened():
                raise MsfnetError(
                    f"the pipeline `{pipeline}` does not start; try it with gst-launch-1.0, and "
                    "let it end in `videoconvert ! video/x-raw,format=BGR ! appsink`"
                )
            return capture

        super().__init__(connect, "the GStreamer pipeline", reconnect=options.reconnect)


def has_gstreamer() -> bool:
    """Tell whether OpenCV was built with GStreamer."""
    return bool(re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()))
