from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession, SessionOptions
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from msfnet_calibration import onnx_files, quantize_int8
from msfnet_calibration.calibration_options import METHODS, TARGETS
from msfnet_calibration.graph import count_operators
from msfnet_calibration.onnx_files import load_model
from msfnet_calibration.quantize import find_units, insert_pairs, tensors_beside
from msfnet_calibration.ranges import collect_ranges
from msfnet_export.parity import random_image
from msfnet_runtime import DepthEstimator, Frame, MsfnetError, open_engine, precision_records
from msfnet_runtime.onnx_metadata import read_onnx_spec
from msfnet_runtime.preprocess import prepare
from msfnet_runtime.spec import METADATA_KEY
from tests.networks import FRAME_SIZE, Exports
from tests.onnx_models import conv_model, quantized_conv_model
from tests.specs import network_spec


def weights() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return the weights of three 1x1 convolutions: 3 to 16, 16 to 16, 16 to 1 channels."""
    rng = np.random.default_rng(4)
    first, second, third = rng.normal(size=(16, 3)), rng.normal(size=(16, 16)), np.ones((1, 16))
    second *= np.logspace(-2, 0, 16)[:, None]
    return tuple(w.astype(np.float32)[..., None, None] for w in (first, second, third))  # type: ignore[return-value]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Write ``conv 3-16, conv 16-16, conv 16-1``, all strides 1 but the first."""
    names = ["image", "a", "b", "prediction"]
    nodes = [
        helper.make_node(
            "Conv",
            [names[i], f"w{i}"],
            [names[i + 1]],
            f"conv{i}",
            strides=[2, 2] if i == 0 else [1, 1],
        )
        for i in range(3)
    ]
    constants = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights())]
    return write_network(tmp_path / "fp32.onnx", nodes, constants)


def write_network(
    path: Path, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]
) -> Path:
    """Write nodes from ``image`` to ``prediction``, half its size, with a spec."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 64])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [1, 1, 16, 32])],
        constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(proto, {METADATA_KEY: network_spec().to_json()})
    onnx.save(proto, path)
    return path


@pytest.fixture
def frames(rng: np.random.Generator) -> list[Frame]:
    """Return eight noisy frames."""
    return [Frame(rng.integers(0, 256, (32, 64, 3), np.uint8), i) for i in range(8)]


def quantized_reference(
    batch: NDArray[np.float32], batches: list[NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Compute symmetric int8 in NumPy: one activation scale, one weight scale per channel."""
    w0, w1, w2 = (w[..., 0, 0].astype(np.float64) for w in weights())
    activations = [np.einsum("oc,nchw->nohw", w0, b[:, :, ::2, ::2]) for b in (batch, *batches)]
    scale = max(np.abs(a).max() for a in activations[1:]) / 127
    step = np.abs(w1).max(axis=1, keepdims=True) / 127
    x = np.clip(np.rint(activations[0] / scale), -128, 127) * scale
    w = np.clip(np.rint(w1 / step), -128, 127) * step
    return np.asarray(np.einsum("pq,qo,nohw->nphw", w2, w, x))


def test_the_answer_is_that_of_symmetric_int8(model: Path, frames: list[Frame]) -> None:
    """NumPy's own quantisation with min-max ranges is the reference; FP32's result differs."""
    spec = network_spec()
    batches = [prepare(frame.image, spec) for frame in frames]

    artifact = quantize_int8(model, model.with_name("int8.onnx"), frames, method="minmax")

    with open_engine(artifact.path) as engine:
        answer = engine.infer(batches[0])
    with open_engine(model) as engine:
        plain = engine.infer(batches[0])
    expected = quantized_reference(batches[0], batches)
    np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=2e-2)
    assert np.abs(plain - expected).max() > 0.1


@pytest.mark.parametrize(
    ("runs_on", "reduced_range"), [("tensorrt", False), ("cpu", False), ("cpu", True)]
)
def test_pairs_are_those_of_onnxruntimes_quantiser(
    model: Path,
    frames: list[Frame],
    runs_on: precision_records.CalibrationTarget,
    reduced_range: bool,
) -> None:
    """The same answer, bit by bit, and as many operators as its explicit quantisation inserts."""
    source = load_model(model)
    names = tensors_beside(source, ["conv1"], runs_on)
    ranges = collect_ranges(source, names, [prepare(f.image, network_spec()) for f in frames])
    signed = runs_on == "tensorrt"
    spans = {name: tuple(map(np.float32, ranges.span(name, "minmax"))) for name in names}
    reference = QDQQuantizer(
        onnx.load(model),
        per_channel=True,
        reduce_range=reduced_range,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if signed else QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, spans),
        nodes_to_quantize=["conv1"],
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv"],
        extra_options={
            "ActivationSymmetric": signed,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": False,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": ["Conv"] if signed else [],
        },
    )
    reference.quantize_model()

    ours = ir.to_proto(
        insert_pairs(source, ["conv1"], ranges, "minmax", runs_on, reduced_range=reduced_range)
    )

    models = ours, reference.model.model
    counts = [sorted(node.op_type for node in each.graph.node) for each in models]
    assert counts[0] == counts[1]
    batch = prepare(frames[0].image, network_spec())
    answers = [
        InferenceSession(each.SerializeToString()).run(None, {"image": batch})[0] for each in models
    ]
    np.testing.assert_array_equal(answers[0], answers[1])


@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_a_processor_computes_convolution_and_relu_in_int8(
    tmp_path: Path, frames: list[Frame], activation: str
) -> None:
    """ONNX Runtime runs both convolutions in INT8 and drops the activation between them, whose
    range begins at the zero point."""
    w = weights()
    limits = ["zero", "six"] if activation == "Clip" else []
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["a"], "conv0", strides=[2, 2]),
        helper.make_node(activation, ["a", *limits], ["b"], "activation"),
        helper.make_node("Conv", ["b", "w1"], ["c"], "conv1"),
        helper.make_node("Conv", ["c", "w2"], ["prediction"], "conv2"),
    ]
    constants = [numpy_helper.from_array(each, f"w{i}") for i, each in enumerate(w)]
    ends = [("zero", 0.0), ("six", 6.0)] if activation == "Clip" else []
    constants += [
        numpy_helper.from_array(np.array(value, np.float32), name) for name, value in ends
    ]
    path = write_network(tmp_path / "fp32.onnx", nodes, constants)
    source = load_model(path)
    chosen = ["conv0", "conv1"]
    names = tensors_beside(source, chosen, "cpu")
    assert names == ["image", "b", "c"]
    batches = [prepare(frame.image, network_spec()) for frame in frames]
    ranges = collect_ranges(source, names, batches)

    model = ir.to_proto(insert_pairs(source, chosen, ranges, "minmax", "cpu"))

    options = SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    session = InferenceSession(model.SerializeToString(), options)
    operators = count_operators(ir.load(tmp_path / "optimised.onnx"))
    assert operators["QLinearConv"] == 2
    assert activation not in operators
    answer = session.run(None, {"image": batches[0]})[0]
    plain = InferenceSession(path).run(None, {"image": batches[0]})[0]
    np.testing.assert_allclose(answer, plain, atol=0.02 * np.abs(plain).max())


@pytest.mark.parametrize(
    ("flags", "machine", "exact"),
    [
        ("fpu avx2 avx512_vnni", "x86_64", True),
        ("fpu avx2 avx_vnni", "AMD64", True),
        ("fpu avx2 avx512f", "x86_64", False),
        ("", "x86_64", False),
        ("", "aarch64", True),
    ],
)
def test_weights_keep_to_7_bits_where_products_saturate(
    model: Path,
    frames: list[Frame],
    monkeypatch: pytest.MonkeyPatch,
    flags: str,
    machine: str,
    exact: bool,
) -> None:
    """By the instructions that Linux lists; the spec records it, and TensorRT never needs it."""
    monkeypatch.setattr("platform.machine", lambda: machine)
    text = f"flags\t\t: {flags}\n" if flags else ""
    monkeypatch.setattr("msfnet_benchmarks.machine._read", lambda path: text)

    stored = {}
    for runs_on in TARGETS:
        artifact = quantize_int8(model, model.with_name("int8.onnx"), frames, runs_on=runs_on)
        record = artifact.spec.calibration
        assert record is not None
        weight = next(
            numpy_helper.to_array(tensor)
            for tensor in onnx.load(artifact.path).graph.initializer
            if tensor.name == "w1.int8"
        )
        stored[runs_on] = (record.activations, record.reduced_range, int(np.abs(weight).max()))

    assert stored["tensorrt"] == ("int8", False, 127)
    assert stored["cpu"] == ("uint8", not exact, 127 if exact else 64)


def test_a_reduced_range_is_for_processors(model: Path, frames: list[Frame]) -> None:
    """TensorRT's products do not saturate."""
    with pytest.raises(MsfnetError, match="TensorRT"):
        quantize_int8(model, model.with_name("int8.onnx"), frames, reduced_range=True)


def test_only_convolutions_with_enough_channels_get_pairs(model: Path, frames: list[Frame]) -> None:
    """The middle one of three gets a pair on its input, and a weight stored in INT8; zero points
    are all 0."""
    assert find_units(load_model(model)) == {"conv1": ["conv1"]}

    artifact = quantize_int8(model, model.with_name("int8.onnx"), frames, method="minmax")

    quantized = onnx.load(artifact.path)
    assert count_operators(load_model(artifact.path)) == {
        "Conv": 3,
        "QuantizeLinear": 1,
        "DequantizeLinear": 2,
    }
    values = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
    for node in quantized.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert values[node.input[2]].dtype == np.int8
            assert not values[node.input[2]].any()
    scales = [values[n.input[1]] for n in quantized.graph.node if n.op_type == "DequantizeLinear"]
    assert sorted(s.size for s in scales) == [1, 16]


def test_the_spec_records_the_calibration(model: Path, frames: list[Frame]) -> None:
    """Precision, method and number of frames travel with the file."""
    artifact = quantize_int8(model, model.with_name("int8.onnx"), frames, method="percentile")

    assert artifact.spec.precision == "int8"
    calibration, change = artifact.spec.calibration, artifact.spec.change
    assert calibration is not None
    assert calibration.text() == (
        "percentile, 8 frames, 1 convolution, for tensorrt, int8 activations"
    )
    assert calibration.summary is not None
    assert calibration.summary.count == 8
    assert change is not None
    assert (change.images, change.random) == (8, False)
    assert 0 <= change.median < change.p99 < 1


@pytest.mark.parametrize("method", METHODS)
def test_a_network_keeps_its_depth(
    exports: Exports, tmp_path: Path, method: precision_records.CalibrationMethod
) -> None:
    """On a frame that was not calibrated on, depth moves by less than 5 % at the median."""
    frames = [Frame(random_image(FRAME_SIZE, seed)) for seed in range(8)]
    source = exports.deploy.artifact.path

    artifact = quantize_int8(source, tmp_path / "int8.onnx", frames, method=method)

    frame = Frame(random_image(FRAME_SIZE, seed=9))
    with DepthEstimator.open(source) as full, DepthEstimator.open(artifact.path) as small:
        change = np.abs(small(frame).values / full(frame).values - 1)
    assert 0 < np.median(change) < 0.05


def test_progress_counts_the_frames(model: Path, frames: list[Frame]) -> None:
    """One call a frame."""
    calls: list[tuple[int, int]] = []

    quantize_int8(
        model,
        model.with_name("int8.onnx"),
        frames,
        method="minmax",
        progress=lambda done, total, what: calls.append((done, total)),
    )

    assert calls == [(done, 8) for done in range(1, 9)]


def test_what_cannot_be_quantised_is_refused_and_nothing_is_written(
    model: Path, frames: list[Frame], tmp_path: Path
) -> None:
    """A model without wide convolutions, one quantised before, no frames, an unknown method."""
    onnx.save(conv_model(network_spec()), tmp_path / "narrow.onnx")
    onnx.save(quantized_conv_model(network_spec()), tmp_path / "done.onnx")
    target = tmp_path / "int8.onnx"

    for source, shown, method, message in (
        (tmp_path / "narrow.onnx", frames, "minmax", "no convolution of 16 channels"),
        (tmp_path / "done.onnx", frames, "minmax", "calibrate the fp32 model"),
        (model, [], "minmax", "no frames to calibrate on"),
        (model, frames[:3], "minmax", "3 frames are too few to calibrate on; give at least 4"),
        (model, frames, "median", "choose entropy, minmax or percentile"),
        (tmp_path / "none.onnx", frames, "minmax", "none.onnx"),
    ):
        with pytest.raises(MsfnetError, match=message):
            quantize_int8(source, target, shown, method=method)  # type: ignore[arg-type]
    assert not target.exists()
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".onnx"] * 3


@pytest.mark.parametrize("method", METHODS)
def test_weights_beside_the_file_are_calibrated_too(
    exports: Exports,
    frames: list[Frame],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: precision_records.CalibrationMethod,
) -> None:
    """The 2 GB limit is lowered; the output is that of one file, and no file is left over."""
    source = exports.plain.artifact.path
    quantize_int8(source, tmp_path / "whole.onnx", frames, method=method)
    monkeypatch.setattr(onnx_files, "EXTERNAL_BYTES", 1000)
    model, spec = onnx_files.load_model(source), read_onnx_spec(source)
    onnx_files.save_model(model, tmp_path / "fp32.onnx", spec)

    quantize_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", frames, method=method)

    assert len(list(tmp_path.glob("int8.*.data"))) == 1
    assert {file.suffix for file in tmp_path.iterdir()} == {".onnx", ".data"}
    answers = []
    for name in ("whole.onnx", "int8.onnx"):
        with open_engine(tmp_path / name) as engine:
            answers.append(engine.infer(prepare(frames[0].image, engine.spec)))
    np.testing.assert_array_equal(answers[0], answers[1])
