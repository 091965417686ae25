"""Tests the errors of models that cannot be opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from msfnet_runtime import MsfnetError, open_engine
from tests.onnx_models import conv_model
from tests.specs import network_spec


def test_an_engine_without_its_manifest_is_refused(tmp_path: Path) -> None:
    """The message names the missing manifest."""
    (tmp_path / "bare.engine").write_bytes(b"plan")

    with pytest.raises(MsfnetError, match=r"no manifest bare\.engine\.json"):
        open_engine(tmp_path / "bare.engine")


def test_an_unknown_kind_of_file_is_refused(tmp_path: Path) -> None:
    """The message lists the known suffixes."""
    (tmp_path / "model.tflite").write_bytes(b"x")

    with pytest.raises(MsfnetError, match=r"\.tflite .*\.onnx .*\.engine"):
        open_engine(tmp_path / "model.tflite")


def test_an_unknown_or_absent_provider_is_refused(tmp_path: Path) -> None:
    """The message lists the providers."""
    onnx.save(conv_model(network_spec()), tmp_path / "model.onnx")

    with pytest.raises(MsfnetError, match=r"'gpu'.*cpu, cuda, tensorrt, openvino"):
        open_engine(tmp_path / "model.onnx", provider="gpu")


def test_a_provider_that_does_not_load_is_never_replaced_silently(tmp_path: Path) -> None:
    """Without a GPU, CUDA is an error, not a slower result."""
    onnx.save(conv_model(network_spec()), tmp_path / "model.onnx")
    try:
        engine = open_engine(tmp_path / "model.onnx", provider="cuda")
    except MsfnetError as error:
        assert "CUDAExecutionProvider" in str(error)
        return
    with engine:
        assert "CUDAExecutionProvider" in engine.describe()


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_graph_that_cannot_be_computed_is_an_error_of_one_line(
    tmp_path: Path, provider: str
) -> None:
    """It reserves 4 petabytes, as it is loaded or as it runs."""
    model = conv_model(network_spec())
    node, name = onnx.helper.make_node, model.graph.output[0].name
    model.graph.node[0].output[0] = "convolved"
    one = onnx.numpy_helper.from_array(np.ones(1, np.float32))
    model.graph.node.extend(
        [
            node("ConstantOfShape", ["many"], ["ones"], value=one),
            node("ReduceMean", ["ones"], ["one"], keepdims=0),
            node("Mul", ["convolved", "one"], [name]),
        ]
    )
    many = onnx.numpy_helper.from_array(np.array([10**15], np.int64), "many")
    model.graph.initializer.append(many)
    onnx.save(model, tmp_path / "model.onnx")

    def run() -> None:
        with open_engine(tmp_path / "model.onnx", provider=provider) as engine:
            engine.infer(np.zeros((1, 3, 32, 64), np.float32))

    with pytest.raises(MsfnetError, match=r"(ONNX Runtime|OpenVINO) cannot (load|run)"):
        run()
