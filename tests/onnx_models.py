"""The smallest ONNX files that are real models: one strided convolution that carries a spec."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from msfnet_calibration.graph import infer_shapes
from msfnet_runtime import ModelSpec
from msfnet_runtime.spec import METADATA_KEY


def typed(model: onnx.ModelProto) -> ir.Model:
    """Return a model as passes take it: every value's type and shape is known."""
    result = ir.from_proto(model)
    infer_shapes(result)
    return result


def conv_weights() -> NDArray[np.float32]:
    """Return (1, 3, 2, 2) float32 weights, all different."""
    return ((np.arange(12).reshape(1, 3, 2, 2) - 4) / 10).astype(np.float32)


def conv_model(spec: ModelSpec) -> onnx.ModelProto:
    """Return ``prediction = conv2x2(image, stride 2) + 5`` as a network graph with even sides."""
    image, prediction = spec.inputs[0], spec.outputs[0]
    graph = helper.make_graph(
        [
            helper.make_node(
                "Conv", [image.name, "weight", "bias"], [prediction.name], strides=[2, 2]
            )
        ],
        "conv",
        [helper.make_tensor_value_info(image.name, TensorProto.FLOAT, image.shape)],
        [helper.make_tensor_value_info(prediction.name, TensorProto.FLOAT, prediction.shape)],
        [
            numpy_helper.from_array(conv_weights(), "weight"),
            numpy_helper.from_array(np.array([5.0], np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    return model


def quantized_conv_model(spec: ModelSpec) -> onnx.ModelProto:
    """Return :func:`conv_model` with its weights in INT8, in steps of 0.1."""
    model = conv_model(spec)
    model.graph.node[0].input[1] = "weight.dequantized"
    node = helper.make_node("DequantizeLinear", ["weight", "scale"], ["weight.dequantized"])
    model.graph.node.insert(0, node)
    steps = np.rint(conv_weights() * 10).astype(np.int8)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(steps, "weight"))
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "scale")
    model.graph.initializer.append(scale)
    return model


def conv_reference(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the same in NumPy: (1, 3, H, W) to (1, 1, H/2, W/2), float32."""
    _, _, height, width = batch.shape
    cells = batch.reshape(1, 3, height // 2, 2, width // 2, 2)
    result = np.einsum("nchiwj,ocij->nohw", cells, conv_weights()) + 5
    return np.asarray(result, np.float32)
