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


def test_the_doctor_knows_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """Libraries with versions, providers that were tried, and what engines can be built for."""
    assert run(["doctor", "--json", "-"]) == 0

    shown = json.loads(capsys.readouterr().out)
    assert shown["facts"]["numpy"] == np.__version__
    assert shown["facts"]["ONNX Runtime CPUExecutionProvider"] == "runs"
    assert shown["can"]["calibrate"] == "yes"
    assert shown["can"]["write video"] == "yes"
    assert "tensorrt-rtx: sm75, sm80" in shown["can"]["build engines"]
    assert "ONNX files by OpenVINO" in shown["can"]["run"]


def test_the_tried_model_is_a_model() -> None:
    """The bytes it carries pass ONNX's own checker."""
    onnx.checker.check_model(onnx.load_model_from_string(machine._MODEL), full_check=True)


def test_what_is_missing_names_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage that cannot run has its pip command."""
    for module in ("torch", "onnxruntime", "openvino", "tensorrt_rtx", "starlette", "av"):
        monkeypatch.setitem(sys.modules, module, None)

    can = dict(machine.describe_machine().abilities)

    assert can["train"] == "no: pip install 'msfnet[train]' (torch)"
    assert can["export"] == "no: pip install 'msfnet[export]' (torch, onnxruntime)"
    assert can["write video"] == "no: pip install 'msfnet[video]' (av)"
    assert can["serve the live page"] == "no: pip install 'msfnet[web]' (starlette)"
    assert can["build engines"] == "no: pip install 'msfnet[tensorrt-rtx]'"
    assert can["run"] == "no: pip install 'msfnet[ort]'"


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
