"""``msfnet doctor`` says what really answers here, and what brings the rest."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from msfnet import machine
from msfnet.__main__ import run
from msfnet_benchmarks.machine import library_versions
from msfnet_runtime.libraries import LIBRARIES


def test_the_doctor_knows_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """Libraries with versions, providers that were tried, and what engines can be built for."""
    assert run(["doctor", "--json", "-"]) == 0

    shown = json.loads(capsys.readouterr().out)
    assert shown["facts"]["numpy"] == np.__version__
    assert shown["facts"]["ONNX Runtime CPUExecutionProvider"] == "runs"
    assert shown["can"]["calibrate"] == "yes"
    assert shown["can"]["read and write video"] == "yes"
    assert "tensorrt-rtx: sm75, sm80" in shown["can"]["build engines"]
    assert "ONNX files by OpenVINO" in shown["can"]["run"]


def test_the_tried_model_is_a_model() -> None:
    """The bytes it carries pass ONNX's own checker."""
    onnx.checker.check_model(onnx.load_model_from_string(machine._MODEL), full_check=True)


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide every optional library."""
    for module, library in LIBRARIES.items():
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, library.module, None)


def install(
    monkeypatch: pytest.MonkeyPatch, folder: Path, packages: dict[str, str], *, hidden: bool = False
) -> None:
    """Install packages with this code, in place of those that are hidden or imported."""
    for module, code in packages.items():
        (folder / module).mkdir()
        (folder / module / "__init__.py").write_text(code)
        monkeypatch.delitem(sys.modules, module, raising=hidden)
        monkeypatch.delitem(sys.modules, LIBRARIES[module].module, raising=False)
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.usefixtures("nothing_installed")
def test_what_is_missing_names_what_brings_it() -> None:
    """Every stage that cannot run has its pip command."""
    can = dict(machine.describe_machine().abilities)

    assert can["train"].startswith("no: pip install 'msfnet[train,figures]' (torch, torchvision")
    assert can["calibrate"] == "no: pip install 'msfnet[export,ort]' (onnx, onnx_ir, onnxruntime)"
    assert can["read and write video"] == "no: pip install 'msfnet[video]' (av)"
    assert can["serve the live page"].startswith("no: pip install 'msfnet[web]' (starlette")
    assert can["build engines"] == "no: pip install 'msfnet[tensorrt-rtx]' (tensorrt_rtx)"
    assert can["run"] == "no: pip install 'msfnet[ort]' (onnxruntime)"


@pytest.mark.usefixtures("nothing_installed")
def test_what_does_not_load_is_listed_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing shared library, what a removed package left, a process that ends, a wrong call."""
    packages = {
        "torch": 'raise ImportError("libcudnn.so.9: cannot open shared object file")',
        "onnxruntime": "",
        "tensorrt_rtx": "import os; os.abort()",
        "openvino": """
class Core:
    @property
    def available_devices(self):
        raise RuntimeError("no plugins.xml")
""",
        "av": "print('noise')\ndef open(): pass",
        "h5py": "import sys; sys.exit(7)",
        "scipy": "raise OSError('libopenblas.so: wrong ELF class')",
    }
    install(monkeypatch, tmp_path, packages, hidden=True)

    assert run(["doctor", "--json", "-"]) == 0

    shown = json.loads(capsys.readouterr().out)
    facts, can = shown["facts"], shown["can"]
    assert "does not load: libcudnn.so.9: cannot open" in facts["torch"]
    assert f"{tmp_path / 'onnxruntime'}" in facts["onnxruntime-gpu"]
    assert "has no InferenceSession" in facts["onnxruntime-gpu"]
    assert "ends the process that loads it (signal SIGABRT)" in facts["tensorrt-rtx"]
    assert "loads but fails: no plugins.xml" in facts["openvino"]
    assert "ends the process that loads it (status 7)" in facts["h5py"]
    assert "wrong ELF class" in facts["scipy"]
    assert facts["timm"] == library_versions(["timm"])["timm"]
    assert can["read and write video"] == "yes"
    assert can["read NYU's labelled set"] == "no: h5py, scipy cannot be loaded, see above"
    assert can["run"] == "no: onnxruntime cannot be loaded, see above"


@pytest.mark.usefixtures("nothing_installed")
def test_a_library_that_never_finishes_loading_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is limited."""
    install(monkeypatch, tmp_path, {"av": "import time; time.sleep(600)"}, hidden=True)
    monkeypatch.setattr(machine, "_LOAD_SECONDS", 0.5)

    facts = dict(machine.describe_machine().facts)

    assert facts["av"].endswith("PyAV does not finish loading within 0.5 s")


def test_gpus_are_those_of_nvidias_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, compute capability, memory, driver; and a tool that finds none is no GPU."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho 'NVIDIA H200, 9.0, 580.95.05, 143771 MiB, 1980 MHz, 3201 MHz, 700 W'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert machine._gpus() == "NVIDIA H200, compute capability 9.0, 143771 MiB, driver 580.95.05"
    tool.write_text("#!/bin/sh\n")
    assert machine._gpus() == "none (nvidia-smi finds none)"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert machine._gpus() == "none (nvidia-smi does not answer)"


def test_a_provider_that_ends_its_process_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash is an answer too."""
    monkeypatch.setattr(machine, "_TRY", "import os; os.abort()")

    assert machine._try("CUDAExecutionProvider") == "does not load here"
