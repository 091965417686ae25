"""A model by its blocks, as its spec tells: multiplications, parameters and precision of each.

A block is a part of the network that has a name of its own: an encoder stage, EDA, a stage of the
USF, a block of the decoder. The list travels in the spec, so that a TensorRT engine's manifest
holds it, too, and it can be read on devices without the onnx package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.spec import ModelSpec

NOTE = "blocks"
"""The spec's note that holds the blocks."""


@dataclass(frozen=True)
class Block:
    """One part of a model."""

    name: str
    takes: tuple[str, ...]
    """Blocks whose values it takes, in order of first use; empty where it takes the input."""
    shape: tuple[int | str, ...]
    """Of the value it gives."""
    macs: int
    """Multiplications of convolutions and matrix products for one image at the spec's size."""
    parameters: int
    """Floating-point and quantised weights."""
    precision: str
    """Of its convolutions and matrix products, by falling share: ``int8+fp32``; of its values
    where there is none."""
    operators: Mapping[str, int]
    """How often it uses each operator."""


def read_blocks(spec: ModelSpec) -> tuple[Block, ...]:
    """Return the blocks a spec tells of; empty where it tells of none.

    Raises:
        MsfnetError: the note cannot be read.
    """
    try:
        return tuple(
            Block(**{**fields, "takes": tuple(fields["takes"]), "shape": tuple(fields["shape"])})
            for fields in json.loads(spec.notes.get(NOTE, "[]"))
        )
    except (ValueError, KeyError, TypeError) as error:
        raise MsfnetError(
            f"the model's list of blocks cannot be read ({error}); export it again"
        ) from None
