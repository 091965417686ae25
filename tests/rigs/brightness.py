"""The smallest model there is: depth made from brightness, as a deploy graph in an ONNX file."""

from __future__ import annotations

from pathlib import Path

from msfnet_runtime import ModelSpec, MsfnetError, TensorSpec
from msfnet_runtime.files import atomic_path
from msfnet_runtime.spec import METADATA_KEY

NEAR_M, FAR_M = 1.0, 80.0
"""Depth of white and of black."""


def write_brightness_model(path: Path, size: tuple[int, int]) -> None:
    """Write a model that takes dark for far, at next to no cost.

    Args:
        path: the ONNX file.
        size: (height, width) of its frames, (1, H, W, 3) uint8; depth is (1, 1, H, W) float32.

    Raises:
        MsfnetError: the onnx package is absent, or the file cannot be written.
    """
    try:
        import onnx
    except ImportError:
        raise MsfnetError(
            "making a model needs onnx; pip install 'msfnet[export]', or name a model"
        ) from None
    from onnx import TensorProto, helper

    height, width = size
    spec = ModelSpec(
        inputs=(TensorSpec("frame", "uint8", (1, height, width, 3)),),
        outputs=(TensorSpec("depth", "float32", (1, 1, height, width), "depth"),),
        graph="deploy",
        size=size,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        depth_kind="metric",
        depth_range_m=(NEAR_M, FAR_M),
        dataset="none",
        encoder="brightness",
    )
    constants = {"slope": (NEAR_M - FAR_M) / 255, "black": FAR_M}
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Cast", ["frame"], ["colours"], to=TensorProto.FLOAT),
            node("ReduceMean", ["colours", "axes"], ["grey"], keepdims=1),
            node("Transpose", ["grey"], ["plane"], perm=[0, 3, 1, 2]),
            node("Mul", ["plane", "slope"], ["nearer"]),
            node("Add", ["nearer", "black"], ["depth"]),
        ],
        "brightness",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, spec.inputs[0].shape)],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, spec.outputs[0].shape)],
        [
            helper.make_tensor("axes", TensorProto.INT64, [1], [3]),
            *(helper.make_tensor(k, TensorProto.FLOAT, [], [v]) for k, v in constants.items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    with atomic_path(path) as partial:
        onnx.save(model, partial)
