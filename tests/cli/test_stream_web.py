"""``msfnet stream --web`` as a process: the page is named, served and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from websockets.sync.client import connect

from tests.onnx_models import conv_model
from tests.runtime.live_page import TOKEN, next_frame
from tests.specs import network_spec

SIZE = (64, 96)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a small ONNX model."""
    onnx.save(conv_model(network_spec(*SIZE)), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start ``msfnet stream``."""
    command = [sys.executable, "-m", "msfnet", "stream", *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def test_the_page_is_named_and_serves_until_a_signal(model: Path) -> None:
    """Its address, with the token of the environment, is a line on standard error."""
    source = f"synthetic:street?frames=2000&size={SIZE[0]}x{SIZE[1]}"
    process = start(
        model,
        source,
        *("--web-address", "127.0.0.1:0", "--max-fps", 20),
        MSFNET_WEB_TOKEN=TOKEN,
    )
    assert process.stderr is not None
    address = next(line for line in process.stderr if line.startswith("live page: ")).split()[-1]
    page, _, query = address.partition("?")
    assert query == f"token={TOKEN}"
    with connect(f"{page.replace('http', 'ws')}ws?{query}") as socket:
        first, second = (next_frame(socket).header for _ in range(2))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)

    assert second["index"] > first["index"]
    assert (first["height"], first["width"]) == SIZE
    assert first["assumed_fov_deg"] is None
    assert process.returncode == 128 + signal.SIGTERM


def test_a_network_without_a_token_is_refused_in_one_line(model: Path) -> None:
    """Nothing is served; the line says how a token is made and passed."""
    process = start(model, "synthetic:street?frames=5", "--web-address", "0.0.0.0:0")
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    lines = errors.strip().splitlines()
    assert len(lines) == 1
    assert "--web-token" in lines[0]
    assert "MSFNET_WEB_TOKEN" in lines[0]
