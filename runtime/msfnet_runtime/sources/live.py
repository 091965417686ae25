"""Reads live sources: cameras of this machine, GStreamer pipelines and network streams."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import cv2
import numpy as np

from msfnet_runtime.channel import CLOCK, Channel, Clock
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.images import quiet
from msfnet_runtime.source import SourceBase, SourceHealth
from msfnet_runtime.sources.addresses import without_secrets
from msfnet_runtime.sources.decoding import PyavCapture
from msfnet_runtime.sources.images import LOGGER, SlowLog
from msfnet_runtime.sources.options import DEFAULTS, SourceOptions
from msfnet_runtime.types import Frame

FIRST_WAIT_S = 0.5
"""Wait before the first attempt to reopen a lost source; doubled up to :data:`LONGEST_WAIT_S`."""

LONGEST_WAIT_S = 10.0

_MAX_CONSECUTIVE_BAD = 30
"""Consecutive frames that cannot be decoded before the source counts as lost."""

_CLOSE_S = 1.0
"""The longest time that closing waits for a read in progress."""


class Capture(Protocol):
    """The part of OpenCV's VideoCapture that sources use."""

    def get(self, what: int, /) -> float:
        """Return a property: ``CAP_PROP_FPS``, ``_FRAME_COUNT``, ``_POS_MSEC``; 0 if unknown."""

    def grab(self) -> bool:
        """Wait for the next frame; return False if there is none."""

    def retrieve(self) -> tuple[bool, Any]:
        """Decode the frame, (H, W, 3) uint8 BGR; the first value is False if that fails."""

    def release(self) -> None:
        """Release the device or connection."""


def frame_rate(capture: Capture, fallback: float) -> float:
    """Return the frame rate of a capture if it is plausible."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if math.isfinite(fps) and 0 < fps <= 1000 else fallback


class LiveSource(SourceBase):
    """Yields frames as they arrive, stamped on arrival; a slow consumer gets the newest.

    A separate thread reads, so that no frames wait in the camera's buffers, and so that a camera
    that hangs does not delay the end of the stream. A lost source is reopened, with growing
    waits, until it is back or the stream is stopped. One that reports its length, such as a
    recording on a server, ends.

    Args:
        connect: opens the source.
        name: identifies the source in messages.
        reconnect: False ends the frames when the source is lost.
        clock: measures timestamps and waits.

    Raises:
        MsfnetError: it cannot be opened the first time.
    """

    live = True

    def __init__(
        self,
        connect: Callable[[], Capture],
        name: str,
        *,
        reconnect: bool = True,
        clock: Clock = CLOCK,
    ) -> None:
        self._connect = connect
        self._name = name
        self._clock = clock
        self._capture = connect()
        self.fps = frame_rate(self._capture, SourceBase.fps)
        self._reconnect = reconnect and self._capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0
        self._losses = self._skipped = self._bad = 0
        self._error: BaseException | None = None
        self._log = SlowLog(clock)
        self._ended: Channel[None] = Channel(1, clock=clock)
        self._frames: Channel[Frame] = Channel(1, newest=True, clock=clock)
        self._reader = threading.Thread(target=self._read, name="msfnet-camera", daemon=True)

    @property
    def health(self) -> SourceHealth:
        """Skipped and dropped frames, and how often the source was lost and came back."""
        return SourceHealth(self._skipped, self._losses, self._frames.dropped)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; timestamps are seconds since the first.

        Raises:
            MsfnetError: reading failed, and the source is not opened again.
        """
        self._reader.start()
        while (frame := self._frames.get()) is not None:
            yield frame
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the frames at once, also while a lost source is awaited."""
        self._ended.finish()
        self._frames.cancel()

    def close(self) -> None:
        """Release the camera."""
        self.stop()
        if self._reader.ident is None:
            self._capture.release()
        else:
            self._reader.join(_CLOSE_S)

    def _read(self) -> None:
        """Read until the end, and leave an error to the thread that takes the frames."""
        try:
            self._read_frames()
        except BaseException as error:  # noqa: BLE001 - raised by __iter__
            self._error = error
        finally:
            self._release()
            self._frames.finish()

    def _read_frames(self) -> None:
        """Read until the end; only this thread uses the capture."""
        index, start = 0, 0.0
        while not self._ended.over:
            try:
                grabbed = self._bad < _MAX_CONSECUTIVE_BAD and self._capture.grab()
                now = self._clock.now()
                read, image = self._capture.retrieve() if grabbed else (False, None)
            except MsfnetError:
                raise
            except Exception as error:
                if not self._reconnect:
                    raise MsfnetError(f"{self._name} failed: {_text(error)}; check it") from error
                self._log(f"{self._name} failed: {_text(error)}")
                grabbed = False
            if not grabbed:
                if self._ended.over or not (self._reconnect and self._came_back()):
                    break
                continue
            if not read or image is None:
                self._skip()
                continue
            self._bad, start = 0, start or now
            frame = Frame(np.ascontiguousarray(image[..., ::-1], np.uint8), index, now - start)
            if not self._frames.put(frame):
                break
            index += 1

    def _release(self) -> None:
        try:
            self._capture.release()
        except Exception as error:  # noqa: BLE001 - of a driver; nothing depends on it
            self._log(f"{self._name} failed: {_text(error)}")

    def _skip(self) -> None:
        self._bad += 1
        self._skipped += 1
        self._log(f"{self._name}: a frame cannot be decoded")

    def _came_back(self) -> bool:
        """Reopen the source, with growing waits; return False if the stream is stopped."""
        LOGGER.warning("%s is lost; waiting for it", self._name)
        self._release()
        wait = FIRST_WAIT_S
        while not self._ended.wait_until_over(wait):
            wait = min(2 * wait, LONGEST_WAIT_S)
            try:
                self._capture = self._connect()
            except MsfnetError:
                continue
            except Exception as error:  # noqa: BLE001 - of a driver; the source is still lost
                self._log(f"{self._name} failed: {_text(error)}")
                continue
            self._losses += 1
            self._bad = 0
            LOGGER.warning("%s is back", self._name)
            return True
        return False


def _text(error: Exception) -> str:
    """Return an error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def _open_capture(message: str, *what: Any) -> cv2.VideoCapture:
    """Open a capture of OpenCV; the message is the error if that fails."""
    quiet()
    capture = cv2.VideoCapture(*what)
    if not capture.isOpened():
        raise MsfnetError(message)
    return capture


class CameraSource(LiveSource):
    """Reads a camera, by its index or its device file (``/dev/video0``).

    Raises:
        MsfnetError: it cannot be opened.
    """

    def __init__(self, device: int | str, options: SourceOptions = DEFAULTS) -> None:
        name = f"camera {device}"

        def connect() -> cv2.VideoCapture:
            capture = _open_capture(
                f"{name} cannot be opened; check that it is plugged in, that no other program uses "
                "it and that you have permission to read it, or try another index",
                device,
            )
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # older frames are useless
            if options.camera_size is not None:
                capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options.camera_size[0])
                capture.set(cv2.CAP_PROP_FRAME_WIDTH, options.camera_size[1])
            if options.camera_fps is not None:
                capture.set(cv2.CAP_PROP_FPS, options.camera_fps)
            return capture

        super().__init__(connect, name, reconnect=options.reconnect)


class GStreamerSource(LiveSource):
    """Reads a GStreamer pipeline that ends in ``appsink``, if OpenCV was built with GStreamer.

    Raises:
        MsfnetError: OpenCV has no GStreamer, or the pipeline does not start.
    """

    def __init__(self, pipeline: str, options: SourceOptions = DEFAULTS) -> None:
        if not has_gstreamer():
            raise MsfnetError(
                "this OpenCV has no GStreamer, like all from pip; build OpenCV with it (NVIDIA's "
                "for Jetson has it), or use an address such as rtsp://…"
            )
        message = (
            f"the pipeline `{without_secrets(pipeline)}` does not start; test it with "
            "gst-launch-1.0, and end it with `videoconvert ! video/x-raw,format=BGR ! appsink`"
        )
        super().__init__(
            lambda: _open_capture(message, pipeline, cv2.CAP_GSTREAMER),
            "the GStreamer pipeline",
            reconnect=options.reconnect,
        )


class StreamSource(LiveSource):
    """Reads a network stream by its address with PyAV: rtsp, http, tcp, udp and others.

    Raises:
        MsfnetError: PyAV is absent, the address does not respond in time, or has no video.
    """

    def __init__(self, url: str, options: SourceOptions = DEFAULTS) -> None:
        name = without_secrets(url)

        def connect() -> PyavCapture:
            try:
                return PyavCapture(url, options.timeout_s, name=name)
            except OSError:
                raise MsfnetError(
                    f"{name} cannot be opened; check the address, and that the camera or server "
                    "is on and reachable from here"
                ) from None

        super().__init__(connect, name, reconnect=options.reconnect)


def has_gstreamer() -> bool:
    """Return whether OpenCV was built with GStreamer."""
    return bool(re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()))
