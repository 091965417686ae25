"""What travels inside every model file: all that is needed to feed it and to read its answer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, cast

from msfnet_runtime.errors import MsfnetError

METADATA_KEY = "msfnet_spec"
"""The key of the spec's JSON in an ONNX file's ``metadata_props``."""

SCHEMA_VERSION = 1

Graph = Literal["network", "deploy"]
DepthKind = Literal["metric", "inverse"]
Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model file."""

    name: str
    dtype: str
    """NumPy's name of the element type: ``float32``, ``uint8``."""
    shape: tuple[int | str, ...]
    """Dimensions; a string names a symbolic one."""


@dataclass(frozen=True)
class ModelSpec:
    """The contract between a model file and whoever runs it.

    ``network`` graphs take normalised float32 (N, 3, h, w) and give the raw prediction
    (N, 1, ceil(h/2), ceil(w/2)); ``deploy`` graphs take a uint8 RGB frame (1, H, W, 3) and give
    metric depth float32 (1, 1, H, W).
    """

    graph: Graph
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    size: tuple[int, int]
    """(height, width) of the network's input, pixels."""
    mean: tuple[float, float, float]
    """RGB mean of images scaled to 0..1."""
    std: tuple[float, float, float]
    """RGB standard deviation of images scaled to 0..1."""
    depth_kind: DepthKind
    """What the network predicts: metres, or ``inverse_scale`` / metres."""
    depth_range_m: tuple[float, float]
    """Smallest and largest depth the model answers, metres."""
    dataset: str
    """What the model was trained on."""
    encoder: str
    """The timm name of the encoder."""
    precision: Precision = "fp32"
    inverse_scale: float = 1.0
    """For inverse depth: prediction = inverse_scale / metres. DenseDepth's convention is 10."""
    checkpoint_sha256: str = ""
    git_revision: str = ""
    resize: Literal["stretch"] = "stretch"
    """How a frame of another size is brought to ``size``: bilinear, half-pixel centres."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Facts a stage adds for the reader: calibration frames, FP32 islands, builder options."""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Refuse values no runtime could act on."""
        low, high = self.depth_range_m
        if not (0 < low < high and math.isfinite(high)):
            raise MsfnetError(
                f"depth range {low} to {high} m is not a range; give 0 < min < max in metres"
            )
        if self.inverse_scale <= 0:
            raise MsfnetError(f"inverse_scale must be positive, not {self.inverse_scale}")

    @property
    def prediction_range(self) -> tuple[float, float]:
        """Smallest and largest raw prediction that stands for a depth within the range."""
        low, high = self.depth_range_m
        if self.depth_kind == "metric":
            return low, high
        return self.inverse_scale / high, self.inverse_scale / low

    def with_note(self, key: str, value: str) -> ModelSpec:
        """Return a copy with one more note."""
        return replace(self, notes={**self.notes, key: value})

    def to_json(self) -> str:
        """Return the spec as one JSON object."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read a spec written by :meth:`to_json`.

        Raises:
            MsfnetError: not a spec, or one of a newer schema.
        """
        try:
            fields = cast(dict[str, Any], json.loads(text))
            version = fields["schema_version"]
            if version != SCHEMA_VERSION:
                raise MsfnetError(
                    f"the model's spec has schema version {version}, this msfnet reads "
                    f"{SCHEMA_VERSION}; export the model again or update msfnet"
                )
            for key in ("inputs", "outputs"):
                fields[key] = tuple(
                    TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in fields[key]
                )
            for key in ("size", "mean", "std", "depth_range_m"):
                fields[key] = tuple(fields[key])
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MsfnetError(
                f"the model's spec cannot be read ({error}); export the model again"
            ) from None
