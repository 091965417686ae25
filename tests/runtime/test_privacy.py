"""No library that msfnet runs looks up a host of its maker: tried in a network of its own.

There a name server answers every question, and counts them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from tests.onnx_models import conv_model
from tests.specs import network_spec

ISOLATED = """
set -e
ip link set lo up
echo 'nameserver 127.0.0.1' > resolv
mount --bind resolv /etc/resolv.conf
"$@"
"""

ASK = """
import subprocess, sys, threading, socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
names = []

def answer():
    while True:
        question, asker = server.recvfrom(2048)
        end = question.index(0, 12)
        names.append(bytes(c if 45 <= c < 123 else 46 for c in question[13:end]).decode())
        record = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4\\x7f\\0\\0\\1"
        wanted = question[end + 1:end + 3] == b"\\0\\1"
        counts = (b"\\0\\1" if wanted else b"\\0\\0") + b"\\0\\0\\0\\0"
        head = question[:2] + b"\\x81\\x80\\0\\1" + counts
        server.sendto(head + question[12:end + 5] + (record if wanted else b""), asker)

threading.Thread(target=answer, daemon=True).start()
subprocess.run([sys.executable, "-c", *sys.argv[1:]], check=True)
print("asked:", *sorted(set(names)))
"""

RUN = """
import sys, time
from msfnet.__main__ import run
from msfnet_runtime.libraries import LIBRARIES, is_installed, why_not
for provider in ("cpu", "openvino"):
    assert run(["stream", "model.onnx", "synthetic:street?frames=2", "--out", provider,
                "--provider", provider]) == 0
for module in filter(is_installed, sys.argv[2:]):
    why_not(module)
time.sleep(float(sys.argv[1]))
"""

CONTROL = "import socket, time; socket.getaddrinfo('control.example', 443); time.sleep(1)"


def asked(folder: Path, code: str, *arguments: str) -> list[str]:
    """Return the names that a program looks up in a network without any other host."""
    (folder / "hosts.py").write_text(ASK)
    settings = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HOME": str(folder),  # where a user would have agreed to reports
    }
    for name in ("CI", "ORT_DISABLE_TELEMETRY"):
        settings.pop(name, None)
    done = subprocess.run(
        ["unshare", "-rn", "-m", "bash", "-c", ISOLATED, "-", sys.executable, "hosts.py", code,
         *arguments],
        cwd=folder, env=settings, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.fixture
def isolated(tmp_path: Path) -> Path:
    """Return a folder to work in; skip where no network of its own can be made."""
    try:
        names = asked(tmp_path, CONTROL)
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"a process cannot have a network of its own here: {str(error)[:200]}")
    assert names == ["control.example"]
    return tmp_path


def test_a_stream_asks_for_no_host(isolated: Path) -> None:
    """By either library that runs ONNX files; OpenVINO's asks within a second."""
    onnx.save(conv_model(network_spec()), isolated / "model.onnx")
    assert asked(isolated, RUN, "2") == []


@pytest.mark.slow
def test_no_library_asks_for_a_host(isolated: Path) -> None:
    """All that msfnet can import, each loaded as msfnet loads it; ONNX Runtime asks after 10 s."""
    onnx.save(conv_model(network_spec()), isolated / "model.onnx")
    libraries = ("torch", "timm", "lightning", "tensorboard", "onnx", "onnxscript", "onnxsim")
    others = ("tensorrt_rtx", "plotly", "matplotlib", "rerun", "prometheus_client", "av", "h5py")
    assert asked(isolated, RUN, "20", *libraries, *others) == []
