from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from msfnet_calibration import convert_fp16, onnx_files
from msfnet_calibration.half import probe_ranges, to_fp16
from msfnet_calibration.onnx_files import load_model, save_model
from msfnet_export.parity import random_image
from msfnet_runtime import DepthEstimator, Frame, ModelSpec, MsfnetError, open_engine
from msfnet_runtime.preprocess import prepare
from msfnet_runtime.spec import METADATA_KEY
from tests.networks import FRAME_SIZE, Exports
from tests.onnx_models import conv_model
from tests.specs import network_spec


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Return every tensor's element type, inferred strictly: mixed types are an error there."""
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    infos = (*graph.input, *graph.output, *graph.value_info)
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def scaled_model(spec: ModelSpec, scale: float) -> onnx.ModelProto:
    """Return ``conv -> x scale -> / scale -> conv``: a peak in the middle, a mild answer."""
    conv = np.full((1, 3, 2, 2), 0.1, np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w1"], ["a"], "first", strides=[2, 2]),
            helper.make_node("Mul", ["a", "scale"], ["wide"], "up"),
            helper.make_node("Div", ["wide", "scale"], ["b"], "down"),
            helper.make_node("Conv", ["b", "w2", "bias"], ["prediction"], "last"),
        ],
        "scaled",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 64])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [1, 1, 16, 32])],
        [
            numpy_helper.from_array(conv, "w1"),
            numpy_helper.from_array(np.array(scale, np.float32), "scale"),
            numpy_helper.from_array(np.full((1, 1, 1, 1), 0.5, np.float32), "w2"),
            numpy_helper.from_array(np.array([5.0], np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    return model


def test_fp16_weights_are_the_rounded_fp32_ones_and_inputs_stay(tmp_path: Path) -> None:
    """NumPy's rounding is the reference; the file's own input and output are float32."""
    onnx.save(conv_model(network_spec()), tmp_path / "fp32.onnx")

    artifact = convert_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")

    model = load_model(artifact.path)
    (weight,) = (
        numpy_helper.to_array(t) for t in model.graph.initializer if t.name.startswith("weight")
    )
    (expected,) = (
        numpy_helper.to_array(t)
        for t in load_model(tmp_path / "fp32.onnx").graph.initializer
        if t.name == "weight"
    )
    assert weight.dtype == np.float16
    np.testing.assert_array_equal(weight, expected.astype(np.float16))
    assert types_of(model)["image"] == types_of(model)["prediction"] == TensorProto.FLOAT
    assert artifact.spec.precision == "fp16"


def test_a_whole_network_is_valid_under_strong_typing(exports: Exports, tmp_path: Path) -> None:
    """Strict inference finds no mixed types; convolutions run in FP16, InstanceNorm in FP32."""
    artifact = convert_fp16(exports.deploy.artifact.path, tmp_path / "fp16.onnx")

    model, types = load_model(artifact.path), types_of(load_model(artifact.path))
    for node in model.graph.node:
        wanted = TensorProto.FLOAT16
        if node.op_type == "InstanceNormalization":
            wanted = TensorProto.FLOAT
        if node.op_type in ("Conv", "InstanceNormalization", "DepthToSpace", "Concat"):
            assert {types[name] for name in node.input} == {wanted}, node.name
    assert types["depth"] == TensorProto.FLOAT
    assert artifact.bytes < 0.6 * exports.deploy.artifact.bytes


def test_depth_changes_by_less_than_fp16s_own_steps_allow(exports: Exports, tmp_path: Path) -> None:
    """On a frame the conversion has not seen: 1 % at every pixel, and not equal to FP32."""
    artifact = convert_fp16(exports.deploy.artifact.path, tmp_path / "fp16.onnx")
    frame = Frame(random_image(FRAME_SIZE, seed=5))

    with DepthEstimator.open(exports.deploy.artifact.path) as full:
        expected = full(frame).values
    with DepthEstimator.open(artifact.path) as half:
        answer = half(frame).values

    np.testing.assert_allclose(answer, expected, rtol=1e-2)
    assert not np.array_equal(answer, expected)


def test_ranges_are_the_largest_absolute_values(tmp_path: Path) -> None:
    """Closed form: the convolution of ones is 1.2, and the middle is that times the scale."""
    batch = np.ones((1, 3, 32, 64), np.float32)

    peaks = probe_ranges(scaled_model(network_spec(), 1e5), [batch, -2 * batch])

    assert peaks["a"] == pytest.approx(2.4, rel=1e-5)
    assert peaks["wide"] == pytest.approx(2.4e5, rel=1e-5)


def test_a_tensor_beyond_fp16s_range_becomes_an_island(tmp_path: Path) -> None:
    """Converted blindly the answer is infinite; converted with the probe it is right.

    The onnx package's evaluator computes in FP16 for real; ONNX Runtime's CPU provider does not.
    """
    model = scaled_model(network_spec(), 1e5)
    onnx.save(model, tmp_path / "fp32.onnx")
    batch = np.random.default_rng(1).uniform(1, 2, (1, 3, 32, 64)).astype(np.float32)

    artifact = convert_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")

    expected, blind, careful = (
        np.asarray(ReferenceEvaluator(m).run(["prediction"], {"image": batch})).squeeze(0)
        for m in (model, to_fp16(model), load_model(artifact.path))
    )
    assert np.isinf(blind).all()
    np.testing.assert_allclose(careful, expected, rtol=1e-2)
    assert types_of(load_model(artifact.path))["wide"] == TensorProto.FLOAT


def test_weights_beside_the_file_are_converted_too(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the 2 GB limit lowered: the probe's ranges, the weights and the answer stay the same."""
    whole = exports.plain.artifact
    batch = prepare(random_image(FRAME_SIZE, seed=2), whole.spec)
    ranges = probe_ranges(load_model(whole.path), [batch])
    convert_fp16(whole.path, tmp_path / "whole.onnx")
    monkeypatch.setattr(onnx_files, "EXTERNAL_BYTES", 1000)
    source = save_model(load_model(whole.path), tmp_path / "fp32.onnx", whole.spec)

    artifact = convert_fp16(source.path, tmp_path / "fp16.onnx")

    assert probe_ranges(load_model(source.path), [batch]) == ranges
    assert len(list(tmp_path.glob("fp16.*.data"))) == 1
    assert artifact.path.stat().st_size < 200_000 < artifact.bytes
    answers = []
    for path in (tmp_path / "whole.onnx", artifact.path):
        with open_engine(path) as engine:
            answers.append(engine.infer(batch))
    np.testing.assert_array_equal(answers[0], answers[1])


def test_only_fp32_models_are_converted(tmp_path: Path) -> None:
    """One line says what to convert instead; the target is untouched."""
    onnx.save(conv_model(network_spec(precision="int8")), tmp_path / "int8.onnx")

    with pytest.raises(MsfnetError, match="convert the fp32 model"):
        convert_fp16(tmp_path / "int8.onnx", tmp_path / "fp16.onnx")
    assert not (tmp_path / "fp16.onnx").exists()
