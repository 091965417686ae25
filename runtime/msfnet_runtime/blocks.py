"""One block of a model: its work, parameters and precision.

A block is a part of the network that has a name of its own: an encoder stage, EDA, a stage of the
USF, a block of the decoder. The list of them is in the spec, so that a TensorRT engine's manifest
holds it too, and devices read it without the onnx package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """One part of a model."""

    name: str
    inputs: tuple[str, ...]
    """Blocks whose values it uses, in order of first use; empty where it uses the model's input."""
    shape: tuple[int | str, ...]
    """Of its output."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products for one image of the spec's size."""
    parameters: int
    """Floating-point and quantised weights."""
    precision: str
    """Of its convolutions and matrix products, the largest share first: ``int8+fp32``; of its
    values where it has neither."""
    operators: Mapping[str, int]
    """How often it uses each operator."""
