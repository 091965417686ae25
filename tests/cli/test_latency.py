"""``msfnet latency`` as a user types it: an engine of known times, a real ONNX model."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from msfnet.__main__ import run
from msfnet_benchmarks.candidates import open_timed
from msfnet_runtime.engine import Timings
from msfnet_runtime.engines import tensorrt
from msfnet_runtime.engines.fake import FakeEngine
from tests.benchmarks.timing.test_trtexec import exported, install
from tests.manifests import write_engine
from tests.onnx_models import conv_model
from tests.runtime.fake_cuda import FakeDevice
from tests.runtime.fake_tensorrt import FakeTensorRT
from tests.specs import network_spec


class KnownEngine(FakeEngine):
    """Answers nothing; its n-th run computes for n milliseconds."""

    def __init__(self) -> None:
        spec = network_spec()
        super().__init__(spec, lambda batch: np.ones((1, 1, 16, 32), np.float32))
        self.calls = count(1)

    def timed(
        self, batch: NDArray[Any], *, cuda_graph: bool | None = None, transfers: bool = True
    ) -> Timings:
        """Return the times of one run."""
        assert batch.shape == (1, 3, 32, 64)
        copies = (0.5, 0.25) if transfers else (0.0, 0.0)
        enqueue = 0.01 if cuda_graph else 0.1
        compute = float(next(self.calls))
        return Timings(copies[0], compute, copies[1], enqueue, sum(copies) + compute + 1)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with an engine and a model; opening the engine gives known times."""
    write_engine(tmp_path)
    onnx.save(conv_model(network_spec()), tmp_path / "good.onnx")
    monkeypatch.setattr(
        "msfnet_benchmarks.candidates.open_timed", lambda path, cuda_graph: KnownEngine()
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def row(printed: str, name: str) -> list[float]:
    """Return the numbers of the first row of that name."""
    line = next(line for line in printed.splitlines() if line.startswith(name))
    return [float(cell) for cell in line.removeprefix(name).split()]


def test_an_engine_is_measured_stage_by_stage(capsys: pytest.CaptureFixture[str]) -> None:
    """Runs 31 to 40: a device that is slower at every run is warmed up by 30; settings are said."""
    assert run(shlex.split("latency model.engine --iterations 10")) == 0

    printed = capsys.readouterr().out
    compute = np.arange(31, 41)
    expected = [compute.mean(), *np.percentile(compute, (50, 90, 95, 99))]
    assert row(printed, "GPU compute") == pytest.approx(expected, abs=5e-4)
    assert row(printed, "latency") == pytest.approx(np.add(expected, 0.75), abs=5e-4)
    assert row(printed, "enqueue")[0] == 0.01
    assert "with CUDA graph, with transfers, 10 runs" in printed


def test_settings_reach_the_engine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without copies and graph; the JSON says so, too."""
    command = "latency model.engine --no-cuda-graph --no-transfers --iterations 3 --json out.json"
    assert run(shlex.split(command)) == 0

    printed = capsys.readouterr().out
    (stored,) = json.loads((folder / "out.json").read_text())["rows"]
    assert "without CUDA graph, without transfers, 3 runs" in printed
    assert row(printed, "enqueue")[0] == 0.1
    assert "H2D" not in stored["stages"]
    assert stored["stages"]["latency"]["p50_ms"] == 32.0
    assert stored["device_run"] == {"cuda_graph": False, "transfers": False, "overlapped": False}


def test_trtexecs_figures_stand_beside_ours(
    folder: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The flavour's tool is run on the same engine; ratios are ours over theirs."""
    runs = exported(rng, 9)
    install(folder, monkeypatch, "rtx", runs)
    assert run(shlex.split("latency model.engine --trtexec --iterations 9 --json out.json")) == 0

    printed = capsys.readouterr().out
    ours, theirs = json.loads((folder / "out.json").read_text())["rows"]
    expected = np.median([run["computeMs"] for run in runs])
    assert theirs["stages"]["GPU compute"]["p50_ms"] == pytest.approx(expected)
    assert ours["stages"]["GPU compute"]["p50_ms"] == 35.0
    assert f"{35 / expected:.2f}" in printed
    assert "tensorrt_rtx 1.7.1: with CUDA graph, with transfers, 9 runs, 412.5 runs/s" in printed


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_the_engine_itself_is_timed(
    cuda_graph: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a GPU of NumPy, which computes for 3 ms and gives back all it lent."""
    library = FakeTensorRT(FakeDevice())
    monkeypatch.setattr("msfnet_benchmarks.candidates.open_timed", open_timed)
    monkeypatch.setattr(tensorrt, "load_tensorrt", lambda _: library)
    monkeypatch.setattr(tensorrt, "open_device", lambda: library.device)
    flag = "--cuda-graph" if cuda_graph else "--no-cuda-graph"
    assert run(["latency", "model.engine", "--iterations", "4", flag]) == 0

    printed = capsys.readouterr().out
    assert row(printed, "GPU compute") == [3.0] * 5
    assert row(printed, "H2D")[0] > row(printed, "D2H")[0] > 0
    assert f"{'with' if cuda_graph else 'without'} CUDA graph, with transfers" in printed
    assert library.device.live == {}


def test_other_models_are_measured_as_a_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """And it is said that the device's stages exist for engines only."""
    assert run(shlex.split("latency good.onnx --iterations 5")) == 0

    printed = capsys.readouterr().out
    mean, p50, *_, p99 = row(printed, "end to end")
    assert 0 < p50 <= p99
    assert mean > 0
    assert "TensorRT engines only" in printed
    assert "ONNX Runtime" in printed


def test_a_batch_of_four_is_four_images_a_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs and images are two rates."""
    fixed = network_spec()
    spec = replace(
        fixed,
        inputs=(replace(fixed.inputs[0], shape=(4, *fixed.inputs[0].shape[1:])),),
        outputs=(replace(fixed.outputs[0], shape=(4, *fixed.outputs[0].shape[1:])),),
    )
    onnx.save(conv_model(spec), folder / "four.onnx")

    assert run(shlex.split("latency four.onnx --iterations 7 --json four.json")) == 0

    (stored,) = json.loads((folder / "four.json").read_text())["rows"]
    (rate,) = stored["throughput"]
    whole = stored["engine_latency"]
    assert stored["batch"] == rate["batch"] == 4
    assert rate["images_per_s"] == pytest.approx(4 * whole["calls_per_s"])
    printed = capsys.readouterr().out
    assert f"7 runs of 4 images, {whole['calls_per_s']:.1f} runs/s one by one" in printed
    assert f"{rate['images_per_s']:.1f} images/s" in printed


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("latency none.engine", "none.engine"),
        ("latency good.onnx --trtexec", "is not an engine"),
        ("latency good.onnx --no-transfers", "is not an engine"),
        ("latency good.onnx --json good.onnx/out.json", "good.onnx/out.json"),
        ("latency good.onnx --provider tpu", "tpu"),
        ("latency model.engine --trtexec", "tensorrt_rtx is not on the PATH"),
    ],
)
def test_bad_input_is_one_line(
    command: str, words: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before anything is timed, and nothing is written; an unknown provider is bad usage."""
    before = sorted(folder.rglob("*"))

    assert run(shlex.split(command)) == (2 if "--provider" in command else 1)

    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert "fault in msfnet" not in printed.err
    assert sorted(folder.rglob("*")) == before
