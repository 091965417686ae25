"""Layers by the engines' own profilers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from msfnet_benchmarks.timing.layers import profile_layers
from msfnet_runtime import MsfnetError
from msfnet_runtime.spec import METADATA_KEY, Block
from tests.specs import network_spec

BATCH = np.random.default_rng(0).standard_normal((1, 3, 64, 128), dtype=np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a network of one wide and one narrow convolution; the spec names the first a block."""
    block = Block("wide", (), (1, 64, 32, 64), 1, 1, "fp32", {"Conv": 1})
    spec = network_spec(64, 128, blocks=(block,))
    rng = np.random.default_rng(1)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape, dtype=np.float32), name)

    nodes = [
        helper.make_node(
            "Conv", ["image", "w1"], ["wide.x"], "wide.conv", strides=[2, 2], pads=[1] * 4
        ),
        helper.make_node("Conv", ["wide.x", "w2"], ["prediction"], "narrow", pads=[0] * 4),
    ]
    ends = [
        helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.shape)
        for t in (*spec.inputs, *spec.outputs)
    ]
    graph = helper.make_graph(
        nodes, "g", ends[:1], ends[1:], [weights("w1", 64, 3, 3, 3), weights("w2", 1, 64, 1, 1)]
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(file, {METADATA_KEY: spec.to_json()})
    path = tmp_path / "model.onnx"
    onnx.save(file, path)
    return path


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_the_layer_with_the_work_takes_the_time(model: Path, provider: str) -> None:
    """Twenty-seven times the arithmetic comes first; shares add up; the block is the spec's."""
    layers = profile_layers(model, BATCH, provider=provider, threads=1, runs=5)

    convolutions = [layer for layer in layers if "conv" in layer.operator.lower()]
    assert [layer.block for layer in convolutions] == ["wide", ""]
    assert convolutions[0].ms > convolutions[1].ms > 0
    assert sum(layer.share for layer in layers) == pytest.approx(1)
    assert [layer.ms for layer in layers] == sorted((x.ms for x in layers), reverse=True)


def test_a_file_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    """The error names the file."""
    path = tmp_path / "no.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(MsfnetError, match=r"no\.onnx"):
        profile_layers(path, BATCH)
