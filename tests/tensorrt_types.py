"""What TensorRT makes of an ONNX file: the types of its strongly typed network."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

import pytest

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"
)


class Layer(NamedTuple):
    """One layer of a parsed network."""

    name: str
    type: str
    """``CONVOLUTION``, ``QUANTIZE`` and so on."""
    takes: tuple[str, ...]
    """Types of its inputs: ``FLOAT``, ``HALF``, ``INT8``."""
    gives: tuple[str, ...]
    """Types of its outputs."""
    quantized: bool
    """Its first input comes from a DEQUANTIZE layer, so that it can be computed in INT8."""


def read_layers(path: Path) -> list[Layer]:
    """Parse a file with TensorRT for RTX, strongly typed; a file it refuses fails the test."""
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path)), parser.get_error(0).desc()
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    dequantized = {
        layer.get_output(0).name for layer in layers if layer.type == trt.LayerType.DEQUANTIZE
    }
    found = []
    for layer in layers:
        takes = [layer.get_input(index) for index in range(layer.num_inputs)]
        gives = [layer.get_output(index) for index in range(layer.num_outputs)]
        found.append(
            Layer(
                layer.name,
                layer.type.name,
                tuple(tensor.dtype.name for tensor in takes if tensor is not None),
                tuple(tensor.dtype.name for tensor in gives),
                bool(takes) and takes[0] is not None and takes[0].name in dequantized,
            )
        )
    return found


def convolution_types(path: Path) -> set[str]:
    """Return the precisions of a file's convolutions: ``FLOAT``, ``HALF``, ``INT8+HALF``..."""
    return {
        ("INT8+" if layer.quantized else "") + layer.gives[0]
        for layer in read_layers(path)
        if layer.type == "CONVOLUTION"
    }
