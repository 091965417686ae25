"""``msfnet stream`` as a process: signals, exit status, and what it prints where."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import cv2
import numpy as np
import onnx
import pytest

from tests.onnx_models import conv_model
from tests.runtime.streams import frame, read_video, write_video
from tests.specs import network_spec

SIZE = (64, 96)


class _Camera(BaseHTTPRequestHandler):
    """A network camera: JPEG after JPEG, thirty a second, without end."""

    def do_GET(self) -> None:
        """Send pictures until the client leaves."""
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(10_000):
            jpeg = cv2.imencode(".jpg", frame(number % 60, SIZE).image)[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:
                return
            time.sleep(1 / 30)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def camera() -> Iterator[str]:
    """Yield the address of a camera."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Camera) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/video.mjpg"
        server.shutdown()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a small ONNX model."""
    onnx.save(conv_model(network_spec(*SIZE)), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Return a video of 120 frames."""
    write_video(tmp_path / "in.mp4", [frame(n % 60, SIZE).image for n in range(120)])
    return tmp_path / "in.mp4"


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start ``msfnet stream`` with JSON lines on its standard error."""
    command = [sys.executable, "-m", "msfnet", "stream", *map(str, arguments), "--log", "json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def first_snapshot(process: subprocess.Popen[str]) -> dict[str, float]:
    """Wait for the first line of JSON that tells of frames."""
    assert process.stderr is not None
    while line := process.stderr.readline():
        if line.startswith("{") and (stats := json.loads(line))["frames"] > 0:
            return dict(stats)
    raise AssertionError(f"it ended before a frame, with status {process.wait()}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("live", [True, False])
def test_a_signal_leaves_a_playable_video(
    live: bool, number: signal.Signals, model: Path, video: Path, camera: str, tmp_path: Path
) -> None:
    """All frames reported are in it; a camera's end is success, a part of a file is not."""
    source = camera if live else video
    process = start(model, source, "--out", tmp_path / "out.mp4", "--max-fps", 20)
    first_snapshot(process)
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)

    report = json.loads(out)
    pictures, seconds = read_video(tmp_path / "out.mp4")
    assert process.returncode == (0 if live else 128 + number)
    assert len(pictures) == report["frames"] > 0
    assert live or report["frames"] < 120
    assert np.all(np.diff(seconds) > 0)
    assert pictures[0].shape == (SIZE[0], 2 * SIZE[1], 3)
    assert report["live"] is live
    assert not list(tmp_path.glob(".*")), "nothing unfinished stays"


def test_a_stream_is_shown_as_text(model: Path, video: Path, tmp_path: Path) -> None:
    """Plain lines on standard error where that is not a terminal, the report on standard output."""
    command = [sys.executable, "-m", "msfnet", "stream", *map(str, (model, video))]
    command += ["--out", str(tmp_path / "png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert done.stderr.startswith("stream: ")
    assert "stream: 120/120 " in done.stderr
    assert "age of depth" in done.stderr
    assert done.stdout.startswith("120 frames in ")
    assert len(done.stdout.splitlines()) == 3


def test_metrics_are_served_while_it_runs(model: Path, camera: str, tmp_path: Path) -> None:
    """They are served at the port of the option while a video is written."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Camera) as free:
        port = free.server_port
    process = start(model, camera, "--out", tmp_path / "out.mp4", "--metrics", port)
    first_snapshot(process)
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)

    frames = next(line for line in text.splitlines() if line.startswith("msfnet_frames_total"))
    assert float(frames.split()[1]) > 0
    assert 'msfnet_stage_seconds_bucket{le="0.1",stage="infer"}' in text
