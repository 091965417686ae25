"""Passes over the exported graph, compared with the onnx package's own evaluator."""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from msfnet_calibration.graph import dimensions, infer_shapes
from msfnet_export.graph_passes import (
    cast_constants,
    fold_batch_norm,
    name_all,
    simplify,
    split_at_once,
)
from msfnet_runtime import MsfnetError
from tests.onnx_models import typed


def conv_and_norm(dtype: type[np.floating], *, tapped: bool = False) -> onnx.ModelProto:
    """Return ``batch norm (conv (image))``; with ``tapped``, the convolution is an output too."""
    rng = np.random.default_rng(6)
    number = TensorProto.DOUBLE if dtype is np.float64 else TensorProto.FLOAT
    constants = {
        "weight": rng.normal(size=(4, 3, 3, 3)),
        "bias": rng.normal(size=4),
        "scale": rng.normal(size=4),
        "shift": rng.normal(size=4),
        "mean": rng.normal(size=4),
        "variance": rng.uniform(0.1, 2, 4),
    }
    names = list(constants)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", *names[:2]], ["a"], "eda.0:1", pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", ["a", *names[2:]], ["b"], "eda.1:2"),
        ],
        "norm",
        [helper.make_tensor_value_info("image", number, [1, 3, 5, 7])],
        [
            helper.make_tensor_value_info(output, number, [1, 4, 5, 7])
            for output in (["b", "a"] if tapped else ["b"])
        ],
        [numpy_helper.from_array(v.astype(dtype), name) for name, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def answer(model: onnx.ModelProto, image: NDArray[np.floating]) -> NDArray[np.floating]:
    """Run a model in the onnx package's evaluator."""
    name = model.graph.output[0].name
    return np.asarray(ReferenceEvaluator(model).run([name], {"image": image})).squeeze(0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_batch_norm_folds_into_the_convolution_before_it(
    dtype: type[np.floating], tolerance: float
) -> None:
    """One convolution of the same type is left, with equal results."""
    model = conv_and_norm(dtype)
    image = np.random.default_rng(7).normal(size=(1, 3, 5, 7)).astype(dtype)
    expected = answer(model, image)

    passed = fold_batch_norm(typed(model))

    assert passed.modified
    folded = ir.to_proto(passed.model)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    assert len(folded.graph.initializer) == 2
    np.testing.assert_allclose(answer(folded, image), expected, atol=tolerance, rtol=tolerance)


def test_batch_norm_stays_where_the_convolutions_own_value_is_needed() -> None:
    """It cannot be recovered from the folded one."""
    passed = fold_batch_norm(typed(conv_and_norm(np.float32, tapped=True)))

    assert not passed.modified
    assert [node.op_type for node in passed.model.graph] == ["Conv", "BatchNormalization"]


def test_names_come_from_modules_operators_and_roles() -> None:
    """A module's only node has its name, several differ, constants name their consumer."""
    model = conv_and_norm(np.float32)
    model.graph.node[1].name = "eda.0:2"

    model = ir.to_proto(name_all(typed(model), {"image", "b"}).model)

    assert [node.name for node in model.graph.node] == ["eda.0.conv", "eda.0.batchnormalization"]
    assert list(model.graph.node[0].input) == ["image", "eda.0.conv.weight", "eda.0.conv.bias"]
    assert list(model.graph.node[1].output) == ["b"]
    onnx.checker.check_model(model, full_check=True)


def test_constants_that_depend_on_the_inputs_type_are_folded() -> None:
    """PyTorch's exporter writes them as a constant that is cast, expanded and added."""
    graph = helper.make_graph(
        [
            helper.make_node("CastLike", ["half", "image"], ["cast"], "a:1"),
            helper.make_node("Expand", ["cast", "shape"], ["spread"], "a:2"),
            helper.make_node("Add", ["image", "spread"], ["sum"], "a:3"),
        ],
        "cast",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1, 3])],
        [
            numpy_helper.from_array(np.array(0.5), "half"),
            numpy_helper.from_array(np.array([1, 3]), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    image = np.array([[1, 2, 4]], np.float32)

    model = ir.to_proto(simplify(cast_constants(ir.from_proto(model)).model).model)

    assert [node.op_type for node in model.graph.node] == ["Add"]
    np.testing.assert_array_equal(answer(model, image), image + 0.5)


def resized(kind: str) -> onnx.ModelProto:
    """Return an image of open size, enlarged by a factor or to a size that is another input."""
    inputs = ["image", "", "scales"] if kind == "factor" else ["image", "", "", "sizes"]
    graph = helper.make_graph(
        [
            helper.make_node("Resize", inputs, ["large"], "resize", mode="linear"),
            helper.make_node(
                "AveragePool", ["large"], ["small"], kernel_shape=[8, 8], strides=[8, 8]
            ),
        ],
        "resized",
        [
            helper.make_tensor_value_info(
                "image", TensorProto.FLOAT, ["batch", 3, "height", "width"]
            ),
            *(
                [helper.make_tensor_value_info("sizes", TensorProto.INT64, [4])]
                if kind == "size"
                else []
            ),
        ],
        [helper.make_tensor_value_info("small", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_shapes_of_open_size_are_fractions_of_the_inputs() -> None:
    """Doubled, then pooled by eight."""
    large, small = (node.outputs[0] for node in typed(resized("factor")).graph)

    assert dimensions(large) == ("batch", 3, "2*height", "2*width")
    assert dimensions(small) == ("batch", 3, "height/4", "width/4")


def test_a_shape_that_is_known_only_at_run_time_is_refused_by_name() -> None:
    """The size is an input."""
    with pytest.raises(MsfnetError, match="the shape of large cannot be known"):
        infer_shapes(ir.from_proto(resized("size")))


@pytest.mark.parametrize("split", [np.array(2), np.array([1, 3, 1])])
def test_a_sequence_of_slices_becomes_one_split(split: NDArray[np.integer]) -> None:
    """Five channels in steps of two, or by sizes; the second and last slices are used."""
    graph = helper.make_graph(
        [
            helper.make_node("SplitToSequence", ["image", "split"], ["all"], axis=1),
            helper.make_node("SequenceAt", ["all", "one"], ["b"], "eda.0:1"),
            helper.make_node("SequenceAt", ["all", "two"], ["c"], "eda.0:2"),
            helper.make_node("ReduceMax", ["c"], ["d"], "eda.0:3"),
            helper.make_node("Sub", ["b", "d"], ["e"], "eda.0:4"),
        ],
        "sequence",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 5, 3, 2])],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.asarray(values, np.int64), name)
            for name, values in (("split", split), ("one", 1), ("two", 2))
        ],
    )
    model = ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    )
    image = np.random.default_rng(8).normal(size=(1, 5, 3, 2)).astype(np.float32)
    before = answer(ir.to_proto(model), image)

    assert split_at_once(model).modified

    assert [node.op_type for node in model.graph] == ["Split", "ReduceMax", "Sub"]
    np.testing.assert_array_equal(answer(ir.to_proto(model), image), before)


def test_what_a_library_prints_does_not_reach_the_user(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its compiled part writes to the descriptors; afterwards they are as they were."""
    import onnxsim

    def warn(model: onnx.ModelProto, **_: object) -> tuple[onnx.ModelProto, bool]:
        os.write(1, b"noise")
        os.write(2, b"warning")
        return model, True

    monkeypatch.setattr(onnxsim, "simplify", warn)
    simplify(typed(conv_and_norm(np.float32)))
    os.write(1, b"result")

    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("result", "")
