from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from msfnet_calibration import convert_fp16, onnx_files
from msfnet_calibration.fp16 import to_fp16
from msfnet_calibration.fp16_check import float_values, probe_values
from msfnet_calibration.onnx_files import load_model, save_model
from msfnet_export.parity import random_image
from msfnet_runtime import DepthEstimator, Frame, MsfnetError, OnnxArtifact, open_engine
from msfnet_runtime.precision_records import Fp32Island
from msfnet_runtime.preprocess import prepare
from msfnet_runtime.spec import METADATA_KEY
from tests.networks import FRAME_SIZE, Exports
from tests.onnx_models import conv_model, quantized_conv_model, typed
from tests.specs import network_spec


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Return every tensor's element type, inferred strictly: mixed types are an error there."""
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    infos = (*graph.input, *graph.output, *graph.value_info)
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def peaks(model: ir.Model, batch: NDArray[np.float32]) -> dict[str, float]:
    """Return the largest absolute value of every tensor that the model's nodes make."""
    return probe_values(model, float_values(model), [batch]).peaks


def chain(
    *steps: tuple[str, str, tuple[str, ...]], **constants: float | NDArray[np.float32]
) -> onnx.ModelProto:
    """Return ``encoder.conv -> steps -> decoder.head``, a network graph that carries a spec.

    The first convolution is a mean over 12 values, the last adds 5 to half of what it takes.

    Args:
        steps: operator, name, what it takes besides the step before it.
        constants: what they take.
    """
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["encoder"], "encoder.conv", strides=[2, 2]),
    ]
    for op_type, name, others in steps:
        nodes.append(helper.make_node(op_type, [nodes[-1].output[0], *others], [name], name))
    last = [nodes[-1].output[0], "w2", "bias"]
    nodes.append(helper.make_node("Conv", last, ["prediction"], "decoder.head"))
    values = {
        "w1": np.full((1, 3, 2, 2), 1 / 12, np.float32),
        "w2": np.full((1, 1, 1, 1), 0.5, np.float32),
        "bias": np.array([5.0], np.float32),
        **constants,
    }
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 64])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [1, 1, 16, 32])],
        [numpy_helper.from_array(np.asarray(v, np.float32), name) for name, v in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: network_spec().to_json()})
    return model


def test_fp16_weights_are_the_rounded_fp32_ones_and_inputs_stay(tmp_path: Path) -> None:
    """NumPy's rounding is the reference; the file's own input and output are float32."""
    onnx.save(conv_model(network_spec()), tmp_path / "fp32.onnx")

    artifact = convert_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")

    model = onnx.load(artifact.path)
    (weight,) = (
        numpy_helper.to_array(t) for t in model.graph.initializer if t.name.startswith("weight")
    )
    (expected,) = (
        numpy_helper.to_array(t)
        for t in onnx.load(tmp_path / "fp32.onnx").graph.initializer
        if t.name == "weight"
    )
    assert weight.dtype == np.float16
    np.testing.assert_array_equal(weight, expected.astype(np.float16))
    assert types_of(model)["image"] == types_of(model)["prediction"] == TensorProto.FLOAT
    assert artifact.spec.precision == "fp16"


def test_a_whole_network_is_valid_under_strong_typing(exports: Exports, tmp_path: Path) -> None:
    """Strict inference finds no mixed types; convolutions run in FP16, InstanceNorm in FP32."""
    artifact = convert_fp16(exports.deploy.artifact.path, tmp_path / "fp16.onnx")

    model, types = onnx.load(artifact.path), types_of(onnx.load(artifact.path))
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


def test_a_tensor_beyond_fp16s_range_becomes_an_island(tmp_path: Path) -> None:
    """Without the probe the result is infinite; with the probe it is correct.

    The onnx package's evaluator computes in FP16 for real; ONNX Runtime's CPU provider does not.
    """
    model = chain(("Mul", "usf.up", ("scale",)), ("Div", "usf.down", ("scale",)), scale=1e5)
    onnx.save(model, tmp_path / "fp32.onnx")
    batch = np.random.default_rng(1).uniform(1, 2, (1, 3, 32, 64)).astype(np.float32)

    artifact = convert_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")

    expected, blind, careful = (
        np.asarray(ReferenceEvaluator(m).run(["prediction"], {"image": batch})).squeeze(0)
        for m in (model, ir.to_proto(to_fp16(typed(model))), onnx.load(artifact.path))
    )
    assert np.isinf(blind).all()
    np.testing.assert_allclose(careful, expected, rtol=1e-2)
    assert types_of(onnx.load(artifact.path))["usf.up"] == TensorProto.FLOAT


def test_weights_beside_the_file_are_converted_too(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 2 GB limit is lowered; the probe's ranges, the weights and the output stay the same."""
    whole = exports.plain.artifact
    batch = prepare(random_image(FRAME_SIZE, seed=2), whole.spec)
    ranges = peaks(load_model(whole.path), batch)
    convert_fp16(whole.path, tmp_path / "whole.onnx")
    monkeypatch.setattr(onnx_files, "EXTERNAL_BYTES", 1000)
    save_model(load_model(whole.path), tmp_path / "fp32.onnx", whole.spec)
    source = OnnxArtifact.read(tmp_path / "fp32.onnx")

    artifact = convert_fp16(source.path, tmp_path / "fp16.onnx")

    assert peaks(load_model(source.path), batch) == ranges
    assert len(list(tmp_path.glob("fp16.*.data"))) == 1
    assert artifact.path.stat().st_size < 200_000 < artifact.bytes
    answers = []
    for path in (tmp_path / "whole.onnx", artifact.path):
        with open_engine(path) as engine:
            answers.append(engine.infer(batch))
    np.testing.assert_array_equal(answers[0], answers[1])


def test_only_fp32_models_are_converted(tmp_path: Path) -> None:
    """The error names the file to convert instead; the target is untouched."""
    onnx.save(quantized_conv_model(network_spec()), tmp_path / "int8.onnx")

    with pytest.raises(MsfnetError, match="convert the fp32 model"):
        convert_fp16(tmp_path / "int8.onnx", tmp_path / "fp16.onnx")
    assert not (tmp_path / "fp16.onnx").exists()


def refused(model: onnx.ModelProto, folder: Path, **options: object) -> str:
    """Convert a model that must be refused, with nothing written; return the one-line reason."""
    onnx.save(model, folder / "fp32.onnx")
    frames = [Frame(random_image((32, 64), seed)) for seed in range(2)]
    with pytest.raises(MsfnetError) as error:
        convert_fp16(folder / "fp32.onnx", folder / "fp16.onnx", frames=frames, **options)  # type: ignore[arg-type]
    assert [path.name for path in folder.iterdir()] == ["fp32.onnx"]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_values_that_are_not_finite_in_fp32_are_refused_by_block(tmp_path: Path) -> None:
    """The block of the division by zero is named, not those behind it that inherit its NaN."""
    model = chain(
        ("Mul", "usf.stage1.mul", ("zero",)),
        ("Div", "usf.stage2.div", ("zero",)),
        ("Relu", "usf.fuse.relu", ()),
        zero=0.0,
    )

    assert "usf.stage2 gives NaN or Inf on 2 images in fp32" in refused(model, tmp_path)


def test_values_that_are_not_finite_in_fp16_alone_are_refused_by_block(tmp_path: Path) -> None:
    """A divisor of 1e-8 is 0 in FP16: FP32 gives mild values there, FP16 infinite ones."""
    model = chain(
        ("Mul", "usf.stage1.mul", ("tiny",)),
        ("Div", "usf.stage2.div", ("tiny",)),
        ("Relu", "usf.fuse.relu", ()),
        tiny=1e-8,
    )
    batch = np.ones((1, 3, 32, 64), np.float32)
    assert max(peaks(typed(model), batch).values()) < 10

    assert "usf.stage2 gives NaN or Inf on 2 images in fp16" in refused(model, tmp_path)


@pytest.mark.parametrize("guilty", ["usf.stage1", "usf.stage2"])
def test_depth_that_moves_too_far_is_refused_by_the_block_that_moves_it(
    tmp_path: Path, guilty: str
) -> None:
    """Around 5000 FP16 has steps of 4; values of about 1 go there and back in one block."""
    offsets = {"usf.stage1": 0.0, "usf.stage2": 0.0, guilty: 5000.0}
    model = chain(
        ("Add", "usf.stage1.add", ("first",)),
        ("Sub", "usf.stage1.sub", ("first",)),
        ("Add", "usf.stage2.add", ("second",)),
        ("Sub", "usf.stage2.sub", ("second",)),
        first=offsets["usf.stage1"],
        second=offsets["usf.stage2"],
    )

    reason = refused(model, tmp_path)

    assert "(1 % is allowed)" in reason
    assert f"most of it in {guilty} (" in reason


def test_a_weight_beyond_fp16s_range_is_refused_by_its_block(tmp_path: Path) -> None:
    """1e6 saturates at 65504, so that what it multiplies comes out 15 times too small."""
    model = chain(
        ("Mul", "usf.stage1.mul", ("small",)),
        ("Conv", "usf.stage2.conv", ("large",)),
        small=1e-4,
        large=np.full((1, 1, 1, 1), 1e6, np.float32),
    )

    assert "most of it in usf.stage2 (" in refused(model, tmp_path)


def test_how_far_depth_may_move_can_be_chosen(exports: Exports, tmp_path: Path) -> None:
    """A change within 1 % is refused at 0.0001 %; a limit of 0 is refused."""
    source, target = exports.plain.artifact.path, tmp_path / "fp16.onnx"

    for allowed, message in (
        (1e-6, r"0\.0001 % is allowed\), most of it in \w+"),
        (0.0, r"allowed change .*0\.0"),
    ):
        with pytest.raises(MsfnetError, match=message):
            convert_fp16(source, target, max_change=allowed)
    assert not target.exists()
    convert_fp16(source, target, max_change=0.01)
    assert target.exists()


def test_the_spec_says_what_was_measured_and_what_stays_fp32(tmp_path: Path) -> None:
    """Images, change of depth, and islands with reason and block; precision per block besides."""
    model = chain(
        ("Mul", "usf.stage1.mul", ("scale",)),
        ("Div", "usf.stage1.div", ("scale",)),
        ("InstanceNormalization", "usf.rdr.norm", ("one", "one")),
        ("GlobalAveragePool", "eda.pool", ()),
        ("Add", "usf.fuse.add", ("usf.rdr.norm",)),
        ("Mul", "usf.fuse.mul", ("tenth",)),
        scale=1e5,
        tenth=0.1,
        one=np.full(1, 100.0, np.float32),
    )
    onnx.save(model, tmp_path / "fp32.onnx")
    frames = [Frame(random_image((32, 64), seed)) for seed in range(3)]

    artifact = convert_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx", frames=frames)

    change = artifact.spec.change
    assert change is not None
    assert (change.images, change.random) == (3, False)
    assert 0 < change.median < change.p99 < 0.01
    assert artifact.spec.islands == (
        Fp32Island("wide values", ("usf.stage1",)),
        Fp32Island("InstanceNormalization", ("usf.rdr",)),
        Fp32Island("sums that could overflow", ("eda",)),
    )
    precisions = {block.name: block.precision for block in artifact.spec.blocks}
    assert precisions["encoder"] == precisions["decoder.head"] == "fp16"


def test_only_the_named_blocks_become_fp16(exports: Exports) -> None:
    """Their convolutions take FP16, all others FP32; valid under strict typing."""
    blocks = {"decoder.stage1", "usf.fuse"}

    half = ir.to_proto(to_fp16(load_model(exports.deploy.artifact.path), blocks=blocks))

    types = types_of(half)
    found = {node.name: types[node.input[0]] for node in half.graph.node if node.op_type == "Conv"}
    assert {name for name, kind in found.items() if kind == TensorProto.FLOAT16} == {
        name for name in found if name.startswith(("decoder.stage1.", "usf.fuse."))
    }
    assert len(set(found.values())) == 2
