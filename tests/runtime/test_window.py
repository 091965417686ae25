"""Tests the window: missing libraries are named, and the user can end the stream."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_runtime import MsfnetError
from msfnet_runtime.sinks.window import WindowSink
from tests.runtime.streams import frame, ramp
from tests.specs import network_spec

SPEC = network_spec()


def test_an_opencv_without_windows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The headless build has no framework; the message names the package to install."""
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "")

    with pytest.raises(MsfnetError, match=r"opencv-python .*opencv-python-headless"):
        WindowSink(SPEC)


def test_a_missing_display_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check, OpenCV's Qt would end the process."""
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "QT5")
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(MsfnetError, match="no display"):
        WindowSink(SPEC)


@pytest.mark.parametrize(
    ("key", "visible", "goes_on"),
    [
        (-1, 1.0, True),
        (ord("x"), 1.0, True),
        (ord("q"), 1.0, False),
        (27, 1.0, False),
        (-1, 0.0, False),
    ],
)
def test_a_window_shows_the_newest_picture_until_it_is_ended(
    monkeypatch: pytest.MonkeyPatch, key: int, visible: float, goes_on: bool
) -> None:
    """q, Esc or closing it ends the stream; each picture is shown once, in OpenCV's order."""
    shown: list[NDArray[np.uint8]] = []
    calls = {
        "currentUIFramework": lambda: "GTK3",
        "namedWindow": lambda *_: None,
        "imshow": lambda _, picture: shown.append(picture),
        "waitKey": lambda _: key,
        "getWindowProperty": lambda *_: visible,
        "destroyAllWindows": lambda: shown.append(np.zeros(0, np.uint8)),
    }
    for name, call in calls.items():
        monkeypatch.setattr(cv2, name, call)
    monkeypatch.setenv("DISPLAY", ":0")

    with WindowSink(SPEC) as sink:
        for index in range(3):
            sink.write(frame(index), ramp((48, 80)))
        assert sink.poll() is goes_on
        sink.poll()

    assert len(shown) == 2
    np.testing.assert_array_equal(shown[0][:, :80, ::-1], frame(2).image)
    assert shown[1].size == 0, "the window is closed at the end"
