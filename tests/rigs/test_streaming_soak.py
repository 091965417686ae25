"""The soak runs the real command, and tells what lasts from what leaks."""

from __future__ import annotations

import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msfnet_runtime import MsfnetError, open_engine
from tests.rigs.brightness import write_brightness_model
from tests.rigs.flaky_camera import FlakyCamera
from tests.rigs.stream_process import Sample, StreamProcess
from tests.rigs.streaming_soak import Check, SoakReport, growth, more, soak


@pytest.mark.slow
def test_a_short_soak_keeps_what_it_promises(tmp_path: Path) -> None:
    """Ten losses, a viewer that stops reading, a kill, a full disk: nothing written is lost."""
    report = soak(tmp_path, frames=600, fps=300, cut_after=120)

    # Within seconds memory has not settled.
    assert [check.what for check in report.checks if not check.holds] in ([], ["memory"])
    measured = {check.what: check.measured for check in report.checks}
    assert (measured["camera losses"], measured["PNG"], measured["video"]) == ("10", "600", "600")
    assert (tmp_path / "killed" / "soak.partial.mp4").exists()
    assert not (tmp_path / "full" / "soak.mp4").exists()


def test_growth_is_the_end_against_the_time_after_the_warm_up() -> None:
    """Neither the warm-up's rise nor one high sample counts; a steady rise does."""
    flat = [Sample(50, 9, 9)] * 2 + [Sample(100, 9, 9)] * 15 + [Sample(100, 9, 9)] * 3
    rising = [Sample(1000 + 10 * i, 9, 9) for i in range(20)]

    assert growth(flat) == pytest.approx(0)
    assert growth(rising) == pytest.approx(1185 / 1025 - 1)


def test_what_every_loss_leaves_behind_is_more_and_what_comes_and_goes_is_not() -> None:
    """A file being written and a camera that is away do not count; one a loss does."""
    coming_and_going = [30 + (i % 3 == 0) - (i % 20 > 10) for i in range(200)]
    leaking = [count + i // 20 for i, count in enumerate(coming_and_going)]

    assert more([Sample(1, count, 9) for count in coming_and_going], "descriptors") <= 0
    assert more([Sample(1, 9, count) for count in leaking], "threads") >= 3
    assert more([Sample(1, 9, count) for count in leaking], "descriptors") == 0


def test_one_limit_that_does_not_hold_fails_the_report() -> None:
    """And is marked in the table."""
    report = SoakReport((Check("video", "7", "all 8", False), Check("PNG", "8", "all 8", True)), "")

    assert not report.passed
    assert report.text().splitlines()[2].split()[-1] == "NO"
    assert replace(report, checks=report.checks[1:]).passed


def test_brightness_is_a_model(tmp_path: Path) -> None:
    """White is near, black is far, in between lies between: by any engine that reads ONNX."""
    write_brightness_model(tmp_path / "model.onnx", (32, 48))
    with open_engine(tmp_path / "model.onnx") as engine:
        for level, metres in ((0, 80.0), (255, 1.0), (102, 48.4)):
            depth = engine.infer(np.full((1, 32, 48, 3), level, np.uint8))
            assert depth.shape == (1, 1, 32, 48)
            np.testing.assert_allclose(depth, metres, rtol=1e-5)


def test_the_camera_damages_breaks_off_and_refuses() -> None:
    """As asked for, part by part: read with the standard library's own client."""
    camera = FlakyCamera([b"JPEG" * 4], fps=500, lives=[7], away_s=0.4, damaged_every=3)
    with camera.running() as url:
        with urllib.request.urlopen(url, timeout=5) as answer:
            parts = answer.read().split(b"--frame\r\n")[1:]
        with pytest.raises(OSError, match=r"refused|reset"):
            urllib.request.urlopen(url, timeout=5)
        time.sleep(0.6)
        with urllib.request.urlopen(url, timeout=5) as answer:
            answer.read(10)

    bodies = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts]
    assert [len(body) for body in bodies] == [16, 16, 6, 16, 16, 6, 16]
    assert camera.sent >= 8
    assert not [t for t in threading.enumerate() if t.name == "flaky-camera"]


def test_a_command_that_ends_early_is_one_line(tmp_path: Path) -> None:
    """Its own last words, and its exit status."""
    with StreamProcess([tmp_path / "none.onnx", "0", "--out", tmp_path / "png"]) as process:
        with pytest.raises(MsfnetError, match=r"does not go on.*none\.onnx"):
            process.reach(1)
        assert process.end() == (1, {})
