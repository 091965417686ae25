"""Tests the options of providers: none can override the precision of the file."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from msfnet_calibration import convert_fp16, quantize_int8
from msfnet_runtime import DepthEstimator, Frame, MsfnetError, open_engine
from msfnet_runtime.engines.providers import Provider
from msfnet_runtime.sources import open_source
from tests.networks import Exports
from tests.onnx_models import conv_model
from tests.specs import network_spec


def test_options_have_the_librarys_own_names() -> None:
    """The text is the name of a provider, a colon, and pairs."""
    wanted = Provider.parse("tensorrt:trt_engine_cache_enable=1, device_id=2")

    assert (wanted.name, wanted.options) == (
        "tensorrt",
        {"trt_engine_cache_enable": "1", "device_id": "2"},
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gpu", "'gpu'.* cpu, cuda, tensorrt, openvino"),
        ("cuda:device_id", r"'device_id' .*NAME=VALUE.*cuda:device_id=1"),
        ("cuda:trt_cuda_graph_enable=1", "cuda .*'trt_cuda_graph_enable'.*: device_id, "),
        ("cpu:device_id=1", "cpu .*'device_id'.* takes no options"),
        ("tensorrt:trt_fp16_enable=1", "trt_fp16_enable .*precision"),
    ],
)
def test_unknown_options_and_those_that_change_the_precision_are_refused(
    text: str, words: str
) -> None:
    """The message names the option, and those that are known."""
    with pytest.raises(MsfnetError, match=words):
        Provider.parse(text)


def test_precision_comes_from_the_spec() -> None:
    """TF32 is off by default; TensorRT computes FP16 and INT8 only for files of that precision."""
    spec = network_spec()
    tensorrt = Provider.parse("tensorrt:device_id=1")

    assert Provider("cuda").library_options(spec) == {"use_tf32": "0"}
    assert Provider.parse("cuda:use_tf32=1").library_options(spec) == {"use_tf32": "1"}
    assert tensorrt.library_options(replace(spec, precision="fp16")) == {
        "trt_fp16_enable": "1",
        "trt_int8_enable": "0",
        "device_id": "1",
    }


class Session:
    """Imitates ONNX Runtime on a GPU, with some nodes on the CPU."""

    left: tuple[str, ...] = ()

    def __init__(self, path: str, options: object, **settings: object) -> None:
        self.settings = settings

    def get_providers(self) -> list[str]:
        """Return the providers of a session for CUDA."""
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[SimpleNamespace]:
        """Return two parts: five nodes for CUDA, the rest for the CPU."""
        nodes = [SimpleNamespace(op_type=kind, name=f"usf.{kind.lower()}") for kind in self.left]
        conv = [SimpleNamespace(op_type="Conv", name="conv")] * 5
        return [
            SimpleNamespace(ep_name="CUDAExecutionProvider", get_nodes=lambda: conv),
            SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: nodes),
        ]


def test_costly_nodes_left_to_the_cpu_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scalars can stay there, and are reported."""
    onnx.save(conv_model(network_spec()), tmp_path / "model.onnx")
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])

    monkeypatch.setattr(Session, "left", ("Shape", "Gather"))
    described = open_engine(tmp_path / "model.onnx", provider="cuda").describe()
    assert described.endswith("CUDAExecutionProvider (2 nodes by CPUExecutionProvider)")

    monkeypatch.setattr(Session, "left", ("Shape", "MatMul"))
    with pytest.raises(MsfnetError, match=r"MatMul usf\.matmul on the CPU.*msfnet build"):
        open_engine(tmp_path / "model.onnx", provider="cuda")


@pytest.mark.parametrize(
    ("provider", "module", "extra"),
    [("cpu", "onnxruntime", "ort"), ("openvino", "openvino", "openvino")],
)
def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str, module: str, extra: str
) -> None:
    """The message contains the command that installs it."""
    onnx.save(conv_model(network_spec()), tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(MsfnetError, match=rf"pip install 'msfnet\[{extra}\]'"):
        open_engine(tmp_path / "model.onnx", provider=provider)


@pytest.fixture(scope="module")
def rooms(real_data: Path) -> list[Frame]:
    """Return twelve real rooms."""
    with open_source(str(real_data / "nyu_mini/data/nyu2_val.csv")) as source:
        return list(islice(source, 0, None, 17))[:12]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_openvino_answers_as_onnx_runtime_does(
    tmp_path: Path, exports: Exports, rooms: list[Frame], precision: str
) -> None:
    """Both agree on real rooms, in every precision."""
    model = exports.deploy.artifact.path
    if precision == "fp16":
        model = convert_fp16(model, tmp_path / "fp16.onnx", frames=rooms[:2]).path
    if precision == "int8":
        model = quantize_int8(model, tmp_path / "int8.onnx", rooms, runs_on="cpu").path
    with (
        DepthEstimator.open(model, provider="openvino", threads=2) as openvino,
        DepthEstimator.open(model, threads=2) as ort,
    ):
        found, wanted = (
            np.stack([one(frame).values for frame in rooms[:4]]) for one in (openvino, ort)
        )
        assert ("computed in FP32" in openvino.engine.describe()) == (precision == "int8")

    change = np.abs(found - wanted) / wanted
    limits = {"fp32": 1e-5, "fp16": 2e-3, "int8": 5e-3}
    assert np.median(change) < limits[precision]
    assert found.std() > 0
