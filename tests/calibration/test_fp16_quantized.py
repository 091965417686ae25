from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from msfnet_calibration import convert_fp16, quantize_int8
from msfnet_calibration.fp16 import kept_in_fp32, to_fp16
from msfnet_calibration.onnx_files import load_model, save_model
from msfnet_export import build_engine
from msfnet_export.build_options import BuildOptions
from msfnet_export.parity import random_image
from msfnet_runtime import Frame, open_engine
from msfnet_runtime.preprocess import prepare
from tests.networks import FRAME_SIZE, Exports
from tests.onnx_models import typed
from tests.tensorrt_types import convolution_types, needs_rtx, read_layers

SMALLEST_NORMAL = 2.0**-14
"""Of FP16; what is smaller has fewer digits."""


@pytest.fixture(scope="module")
def files(exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the light deploy graph in all four precisions."""
    folder = tmp_path_factory.mktemp("precisions")
    source = exports.deploy.artifact.path
    paths = {name: folder / f"{name}.onnx" for name in ("fp16", "int8", "int8+fp16")}
    frames = [Frame(random_image(FRAME_SIZE, seed)) for seed in range(8)]
    convert_fp16(source, paths["fp16"])
    artifact = quantize_int8(source, paths["int8"], frames, method="minmax")
    save_model(to_fp16(load_model(paths["int8"])), paths["int8+fp16"], artifact.spec)
    return {"fp32": source, **paths}


def lost(path: Path, precision: str) -> bool:
    """Tell whether a file's convolutions are others than its precision promises."""
    found = convolution_types(path)
    promised = {
        "fp32": found == {"FLOAT"},
        "fp16": found == {"HALF"},
        "int8": found == {"INT8+FLOAT", "FLOAT"},
        "int8+fp16": found == {"INT8+HALF", "HALF"},
    }
    return not promised[precision]


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8+fp16"])
def test_tensorrt_reads_the_types_that_were_promised(
    files: dict[str, Path], precision: str
) -> None:
    """Each file passes as its own precision and as no other: FP32 does not pass as FP16."""
    passes = {name for name, path in files.items() if not lost(path, precision)}

    assert passes == {precision}


@needs_rtx
def test_instance_normalisation_and_the_tail_are_fp32_in_tensorrt(files: dict[str, Path]) -> None:
    """Read back by layer: the norm's and the answer's types are FLOAT in an FP16 network."""
    layers = read_layers(files["fp16"])

    norms = [layer for layer in layers if layer.type.startswith("NORMALIZATION")]
    assert norms
    assert all(set(layer.takes) == set(layer.gives) == {"FLOAT"} for layer in norms)
    assert layers[-1].gives == ("FLOAT",)


@needs_rtx
def test_int8_within_fp16_builds(files: dict[str, Path], tmp_path: Path) -> None:
    """TensorRT for RTX takes the file as a strongly typed network."""
    artifact = build_engine(
        files["int8+fp16"], tmp_path / "model.engine", options=BuildOptions(architectures=("sm86",))
    )

    assert artifact.bytes > 10_000


def test_int8_within_fp16_is_valid_and_keeps_its_depth(files: dict[str, Path]) -> None:
    """The checker finds it well typed at opset 19; FP16 moves INT8's depth by less than 1 %."""
    model = onnx.load(files["int8+fp16"])
    onnx.checker.check_model(model, full_check=True)

    answers = []
    for name in ("int8", "int8+fp16"):
        with open_engine(files[name]) as engine:
            answers.append(engine.infer(prepare(random_image(FRAME_SIZE, seed=9), engine.spec)))
    assert {entry.version for entry in model.opset_import if not entry.domain} == {19}
    assert 0 < np.median(np.abs(answers[1] / answers[0] - 1)) < 0.01


@pytest.mark.parametrize("name", ["fp32", "int8"])
def test_a_model_means_the_same_in_the_next_opset(
    files: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """Raising the number alone, as the conversion does, leaves the answer as it is, bit by bit."""
    model = onnx.load(files[name])
    answers = []
    for version in (18, 19):
        next(entry for entry in model.opset_import if not entry.domain).version = version
        path = tmp_path / f"{version}.onnx"
        onnx.save(model, path)
        onnx.checker.check_model(path, full_check=True)
        with open_engine(path) as engine:
            answers.append(engine.infer(prepare(random_image(FRAME_SIZE, seed=9), engine.spec)))
    np.testing.assert_array_equal(answers[0], answers[1])


def quantized(scale: float, others: tuple[str, ...] = ()) -> onnx.ModelProto:
    """Return ``conv -> Q/DQ -> conv``, the second's weight int8 of one scale per channel.

    Args:
        scale: of the second channel's weights; the first's is 0.01.
        others: operators that take the dequantised activation, too.
    """
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], "first"),
        helper.make_node("QuantizeLinear", ["a", "s", "z"], ["aq"], "q"),
        helper.make_node("DequantizeLinear", ["aq", "s", "z"], ["ad"], "d"),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], "dw", axis=0),
        helper.make_node("Conv", ["ad", "wd"], ["b"], "second"),
        *(helper.make_node(name, ["ad"], [name], name) for name in others),
        helper.make_node("Concat", ["b", *others], ["c"], "join", axis=1),
        helper.make_node("Conv", ["c", "last"], ["prediction"], "third"),
    ]
    rng = np.random.default_rng(5)
    values: dict[str, NDArray[Any]] = {
        "w": rng.normal(size=(2, 3, 1, 1)).astype(np.float32),
        "s": np.array(0.03, np.float32),
        "z": np.array(0, np.int8),
        "wq": rng.integers(-127, 128, (2, 2, 1, 1)).astype(np.int8),
        "ws": np.array([0.01, scale], np.float32),
        "wz": np.zeros(2, np.int8),
        "last": np.ones((1, 2 + 2 * len(others), 1, 1), np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [1, 1, 8, 8])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Return the type of every named node's first input, inferred strictly."""
    onnx.checker.check_model(model, full_check=True)
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    infos = {info.name: info.type.tensor_type.elem_type for info in graph.value_info}
    infos |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    infos |= {value.name: value.type.tensor_type.elem_type for value in graph.input}
    return {node.name: infos[node.input[0]] for node in graph.node}


def answer(model: onnx.ModelProto) -> NDArray[np.float32]:
    """Compute the model with the onnx package's evaluator, which is FP16 where the model is."""
    image = np.random.default_rng(6).uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32)
    known = onnx.ModelProto()
    known.CopyFrom(model)
    known.opset_import[0].version = 19  # the evaluator's first with DequantizeLinear
    return np.asarray(ReferenceEvaluator(known).run(["prediction"], {"image": image})).squeeze(0)


@pytest.mark.parametrize(
    ("scale", "wanted"),
    [
        (1.01 * SMALLEST_NORMAL, TensorProto.FLOAT16),
        (0.99 * SMALLEST_NORMAL, TensorProto.FLOAT),
        (1e-9, TensorProto.FLOAT),
    ],
)
def test_weights_whose_scale_fp16_cannot_hold_stay_fp32(scale: float, wanted: int) -> None:
    """Their convolution does too: no Cast comes between DequantizeLinear and it."""
    model = quantized(scale)

    half = ir.to_proto(to_fp16(typed(model)))

    types = types_of(half)
    assert types["second"] == wanted
    assert types["third"] == TensorProto.FLOAT16
    assert {node.op_type for node in half.graph.node for name in node.output if name == "wd"} == {
        "DequantizeLinear"
    }
    kept = {node.name: reason for node, reason in kept_in_fp32(typed(model), ()).items()}
    assert kept == ({} if wanted == TensorProto.FLOAT16 else {"second": "small scales"})
    np.testing.assert_allclose(answer(half), answer(model), rtol=5e-3, atol=5e-3)


def test_an_activation_for_both_precisions_is_dequantised_twice() -> None:
    """Once for each; neither convolution nor normalisation has a Cast behind its Q/DQ pair."""
    model = quantized(0.01, others=("Relu", "Sigmoid"))

    half = ir.to_proto(to_fp16(typed(model), keep={"Sigmoid"}))

    types = types_of(half)
    makers = {name: node.op_type for node in half.graph.node for name in node.output}
    takers = {n.name: n for n in half.graph.node if n.name in ("second", "Relu", "Sigmoid")}
    assert {makers[node.input[0]] for node in takers.values()} == {"DequantizeLinear"}
    assert types["second"] == types["Relu"] == TensorProto.FLOAT16
    assert types["Sigmoid"] == TensorProto.FLOAT
    # Rounded to FP16, a value may fall to the next of INT8's steps of 0.03.
    np.testing.assert_allclose(answer(half), answer(model), atol=0.06)


def test_the_float_input_of_a_quantised_convolution_is_kept_too() -> None:
    """A tensor to keep, seen on the FP32 model, keeps the convolution behind its Q/DQ pair."""
    half = ir.to_proto(to_fp16(typed(quantized(0.01)), keep={"a"}))

    types = types_of(half)
    assert types["first"] == types["second"] == types["q"] == TensorProto.FLOAT
    assert types["third"] == TensorProto.FLOAT16
    assert {e.version for e in half.opset_import} == {18}
