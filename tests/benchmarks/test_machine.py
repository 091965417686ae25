from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from msfnet_benchmarks import machine
from msfnet_benchmarks.machine import describe_environment

NVIDIA_SMI = """#!/bin/sh
case "$1" in
--query-gpu=*) echo "NVIDIA H200, 9.0, 580.95.05, 143771 MiB, 1980 MHz, 3201 MHz, [N/A]" ;;
*) echo "| NVIDIA-SMI 580.95.05  Driver Version: 580.95.05  CUDA Version: 13.0 |" ;;
esac
"""


def stand_in(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a script in the place of nvidia-smi."""
    path = folder / "nvidia-smi"
    path.write_text(script)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_the_environment_says_what_it_was_measured_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions of what is installed, and nothing of what is not; threads as they were set."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    facts = describe_environment(threads=2)

    assert facts["numpy"] == np.__version__
    assert int(facts["cores"]) >= 1
    assert facts["python"] == sys.version.split()[0]
    assert "tensorflow" not in facts
    assert facts["threads"] == "2"
    assert facts["OMP_NUM_THREADS"] == "3"
    assert describe_environment()["threads"] == "each library's choice"


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of its memory")
def test_memory_is_the_machines() -> None:
    """It equals the C library's count of pages."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    assert float(describe_environment()["memory"].removesuffix(" GB")) == pytest.approx(
        total / 1e9, abs=0.06
    )


def test_the_environment_is_the_same_when_asked_again() -> None:
    """Only lasting facts are reported, so that two runs on one machine do not seem to differ."""
    assert describe_environment() == describe_environment()


def test_a_gpu_is_named_with_driver_cuda_and_clocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The values are nvidia-smi's; unknown ones are left out."""
    stand_in(tmp_path, NVIDIA_SMI, monkeypatch)
    facts = describe_environment()

    assert facts["GPU"] == "NVIDIA H200"
    assert facts["GPU driver"] == "580.95.05"
    assert facts["GPU clock, at most"] == "1980 MHz"
    assert facts["CUDA of the driver"] == "13.0"
    assert "GPU power limit" not in facts


@pytest.mark.parametrize("script", ["#!/bin/sh\nexec sleep 60", "#!/bin/sh\nexit 9", "no script"])
def test_a_driver_that_hangs_or_fails_does_not_stop_a_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """It reports nothing and does not fail."""
    monkeypatch.setattr(machine, "_TIMEOUT_S", 0.3)
    stand_in(tmp_path, script, monkeypatch)

    assert not [name for name in describe_environment() if "GPU" in name]


def test_clocks_are_read_where_linux_tells_them(tmp_path: Path) -> None:
    """The governor, and the limits in MHz from the kernel's kHz; nothing from an empty folder."""
    (tmp_path / "scaling_governor").write_text("powersave\n")
    (tmp_path / "cpuinfo_min_freq").write_text("800000\n")
    (tmp_path / "cpuinfo_max_freq").write_text("4700000\n")

    assert machine._clocks(tmp_path) == {"governor": "powersave", "clock": "800-4700 MHz"}
    assert machine._clocks(tmp_path / "none") == {}


def test_the_environment_is_described_without_importing_torch() -> None:
    """Versions come from the packages' metadata."""
    code = (
        "import sys; from msfnet_benchmarks.machine import describe_environment; "
        "describe_environment(); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'onnxruntime', 'tensorrt', 'plotly')))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
