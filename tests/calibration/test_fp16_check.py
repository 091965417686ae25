from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from msfnet_calibration import convert_fp16
from msfnet_calibration.fp16 import to_fp16
from msfnet_calibration.fp16_check import (
    SUM_LIMIT,
    emulate_fp16,
    find_islands,
    float_values,
    probe_values,
)
from msfnet_calibration.onnx_files import load_model
from msfnet_calibration.ranges import open_probe
from msfnet_export.parity import random_image
from msfnet_runtime import Frame
from msfnet_runtime.preprocess import prepare, to_metres
from tests.networks import FRAME_SIZE, Exports
from tests.onnx_models import typed

SIDE = 32


def graph_model(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[Any]]) -> ir.Model:
    """Return a model from ``image`` (1, 3, 32, 32) to ``out``, of any shape."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return typed(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def conv(taken: str, given: str, weight: str) -> onnx.NodeProto:
    """Return a convolution named after its output."""
    return helper.make_node("Conv", [taken, weight], [given], given)


def between(*nodes: onnx.NodeProto, **constants: NDArray[Any]) -> ir.Model:
    """Return ``conv, nodes from a to b, conv``; both convolutions are the identity."""
    identity = np.eye(3, dtype=np.float32)[..., None, None]
    return graph_model(
        [conv("image", "a", "w"), *nodes, conv("b", "out", "w")], {"w": identity, **constants}
    )


def image(peak: float) -> NDArray[np.float32]:
    """Return an image whose largest value is ``peak``, all others smaller."""
    values = np.random.default_rng(3).uniform(0.5, 0.9, (1, 3, SIDE, SIDE)).astype(np.float32)
    values[0, 0, 0, 0] = 1
    return values * np.float32(peak)


def test_peaks_are_the_largest_absolute_values_and_answers_the_models_own() -> None:
    """Closed form: the middle is -4 times the image; its mean over columns is NumPy's."""
    model = between(
        helper.make_node("Mul", ["a", "k"], ["m"], "m"),
        helper.make_node("ReduceMean", ["m", "axes"], ["b"], "b"),
        k=np.array(-4, np.float32),
        axes=np.array([3]),
    )

    probe = probe_values(model, float_values(model), [image(1.0), image(2.5)])

    assert list(probe.peaks) == ["a", "m", "b", "out"]
    assert probe.peaks["a"] == pytest.approx(2.5)
    assert probe.peaks["m"] == pytest.approx(10)
    np.testing.assert_allclose(
        probe.answers[1], -4 * image(2.5).mean(axis=3, keepdims=True), rtol=1e-5
    )
    assert probe.first_not_finite() is None


def test_the_first_value_that_is_not_finite_is_named() -> None:
    """0 / 0 is NaN, and stays so downstream; what lies before is finite."""
    model = between(
        helper.make_node("Sub", ["a", "a"], ["zero"], "zero"),
        helper.make_node("Div", ["zero", "zero"], ["nan"], "nan"),
        helper.make_node("Relu", ["nan"], ["b"], "b"),
    )

    probe = probe_values(model, float_values(model), [image(1.0)])

    assert probe.first_not_finite() == "nan"


@pytest.mark.parametrize(
    ("op_type", "attributes", "count", "power"),
    [
        ("GlobalAveragePool", {}, SIDE * SIDE, 1),
        ("AveragePool", {"kernel_shape": [8, 4]}, 32, 1),
        ("ReduceMean", {}, SIDE, 1),
        ("ReduceSum", {}, SIDE, 1),
        ("ReduceL2", {}, SIDE, 2),
    ],
)
def test_a_sum_that_could_overflow_becomes_an_island(
    op_type: str, attributes: dict[str, Any], count: int, power: int
) -> None:
    """Closed form: so it does from a peak of (65504 / elements added) ^ (1 / power) on."""
    inputs = ["a", "axes"] if op_type.startswith("Reduce") else ["a"]
    node = helper.make_node(op_type, inputs, ["b"], "b", **attributes)
    model = between(node, axes=np.array([3]))
    limit = (65504 / count) ** (1 / power)

    found = [find_islands(model, {"a": limit * part}, (SIDE, SIDE)).sums for part in (0.999, 1.001)]

    assert SUM_LIMIT == 65504
    assert found == [frozenset(), {"b"}]


def test_a_sum_that_overflows_in_fp16_is_right_as_an_island() -> None:
    """Upper and lower half nearly cancel, but adding up in FP16, as NumPy can, overflows midway."""
    model = between(
        helper.make_node("ReduceSum", ["a", "axes"], ["sum"], "sum"),
        helper.make_node("Mul", ["sum", "k"], ["b"], "b"),
        k=np.array(1 / 1024, np.float32),
        axes=np.array([2, 3]),
    )
    batch = image(200.0)
    batch[:, :, SIDE // 2 :] = -0.95 * batch[:, :, : SIDE // 2]
    probe = probe_values(model, float_values(model), [batch])
    islands = find_islands(model, probe.peaks, (SIDE, SIDE))

    half = to_fp16(model, islands.wide, keep_nodes=islands.sums)
    careful = np.asarray(
        ReferenceEvaluator(ir.to_proto(half)).run(["out"], {"image": batch})
    ).squeeze(0)
    with np.errstate(over="ignore"):
        one_by_one = np.add.accumulate(batch[0, 0].ravel(), dtype=np.float16)

    assert not np.isfinite(one_by_one[-1])
    assert islands.sums == {"sum"}
    assert not islands.wide
    np.testing.assert_allclose(careful, batch.mean(axis=(2, 3), keepdims=True), rtol=2e-3)


def test_an_island_of_sums_leaves_its_neighbours_in_fp16() -> None:
    """Only the pooling runs in FP32; the convolutions before and behind it do not."""
    model = between(helper.make_node("GlobalAveragePool", ["a"], ["b"], "b"))

    half = to_fp16(model, keep_nodes={"b"})

    graph = onnx.shape_inference.infer_shapes(
        ir.to_proto(half), check_type=True, strict_mode=True
    ).graph
    types = {info.name: info.type.tensor_type.elem_type for info in graph.value_info}
    inputs = {node.name: types[node.input[0]] for node in graph.node if node.op_type != "Cast"}
    assert inputs == {
        "a": TensorProto.FLOAT16,
        "b": TensorProto.FLOAT,
        "out": TensorProto.FLOAT16,
    }


def test_emulation_rounds_as_fp16_does() -> None:
    """The onnx package's evaluator computes in FP16 for real: equal bit by bit."""
    model = between(
        helper.make_node("Mul", ["a", "k"], ["m"], "m"),
        helper.make_node("Add", ["m", "c"], ["s"], "s"),
        helper.make_node("Sub", ["s", "c"], ["b"], "b"),
        k=np.array(0.1, np.float32),
        c=np.array(100, np.float32),
    )
    half, batch = to_fp16(model), image(3.0)

    answer = probe_values(emulate_fp16(half), (), [batch]).answers[0]

    expected = np.asarray(
        ReferenceEvaluator(ir.to_proto(half)).run(["out"], {"image": batch})
    ).squeeze(0)
    np.testing.assert_array_equal(answer, expected)
    assert np.abs(answer - 0.1 * batch).max() > 0.01


def test_emulation_overflows_as_fp16_does() -> None:
    """2.5 times 1e5 cannot be held; ONNX Runtime, given the FP16 file, computes finite values."""
    model = between(
        helper.make_node("Mul", ["a", "k"], ["m"], "m"),
        helper.make_node("Div", ["m", "k"], ["b"], "b"),
        k=np.array(3e4, np.float32),
    )
    half, batch = to_fp16(model), image(2.5)

    probe = probe_values(emulate_fp16(half), float_values(model), [batch])

    assert probe.first_not_finite() == "m"
    given = probe_values(half, (), [batch]).answers[0]
    assert np.isfinite(given).all()


def test_emulation_of_a_network_rounds_every_value(exports: Exports) -> None:
    """All values between the convolutions are FP16's, and differ from FP32's; names are kept."""
    model = load_model(exports.deploy.artifact.path)
    batch = prepare(random_image(FRAME_SIZE, seed=3), exports.deploy.artifact.spec)
    names = [name for name in float_values(model) if name.startswith("decoder.stage")]

    with open_probe(emulate_fp16(to_fp16(model)), names) as run:
        values = run(batch)
    with open_probe(model, names) as run:
        plain = run(batch)

    assert len(names) > 10
    for name in names:
        np.testing.assert_array_equal(values[name], values[name].astype(np.float16), err_msg=name)
        assert not np.array_equal(values[name], plain[name])


def test_the_recorded_change_is_that_of_fp16_arithmetic(
    exports: Exports, tmp_path: Path, real_data: Path
) -> None:
    """On a real frame, against the onnx package's evaluator, which adds up in FP16, too."""
    path = min((real_data / "nyu_mini").rglob("*.jpg"))
    image = np.asarray(cv2.imread(str(path)), np.uint8)
    source = exports.plain.artifact

    artifact = convert_fp16(source.path, tmp_path / "fp16.onnx", frames=[Frame(image)])

    batch = prepare(image, source.spec)
    new, old = (
        to_metres(np.asarray(ReferenceEvaluator(m).run(None, {"image": batch}))[0], source.spec)
        for m in (onnx.load(artifact.path), onnx.load(source.path))
    )
    assert artifact.spec.change is not None
    assert artifact.spec.change.median == pytest.approx(np.median(np.abs(new / old - 1)), rel=0.5)
