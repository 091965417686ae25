"""Defines the spec inside every model file: the model's input, output and preprocessing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.picture_size import check_picture_size
from msfnet_runtime.precision_records import (
    CalibrationRecord,
    DepthChange,
    Fp32Island,
    SearchRecord,
)
from msfnet_runtime.schema1 import upgrade
from msfnet_runtime.typed import (
    build,
    check_name,
    check_range,
    check_sha256,
    check_values,
    parse_json,
    to_json,
)
from msfnet_runtime.words import shape_text

METADATA_KEY = "msfnet_spec"
"""The key of the spec's JSON in an ONNX file's ``metadata_props``."""

SCHEMA_VERSION = 2

NEAREST_M, FARTHEST_M = 1e-4, 1e6
"""Limits of the depth of any model, metres."""

LARGEST_TENSOR = 2**31
"""Values of an input or output, without symbolic dimensions."""

Graph = Literal["network", "deploy"]
DepthKind = Literal["metric", "inverse"]
Precision = Literal["fp64", "fp32", "bf16", "fp16", "fp8", "int8", "int4"]
"""Of weights. The program makes fp32, fp16 and int8; others make the rest."""
GraphLayout = Literal["any", "cpu"]
OutputRole = Literal["depth", "uncertainty", "validity"]
ResizePolicy = Literal["stretch", "fit", "crop"]
ScaleSource = Literal["trained", "focal", "calibrated", "assumed"]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model file."""

    name: str
    dtype: str
    """NumPy's name of the element type: ``float32``, ``uint8``."""
    shape: tuple[int | str, ...]
    """Dimensions; a string names a symbolic one."""
    role: OutputRole | None = None
    """Content of an output; None for inputs, and for outputs that msfnet does not read."""

    def __post_init__(self) -> None:
        """Refuse what no tensor can have, and sizes for which there is no memory."""
        if not self.name:
            raise MsfnetError("a tensor has no name")
        if not _is_number_type(self.dtype):
            raise MsfnetError(f"{self.name} must have a type like float32, not {self.dtype!r}")
        sizes = [size for size in self.shape if isinstance(size, int)]
        if min(sizes, default=1) < 1 or math.prod(sizes) > LARGEST_TENSOR:
            shape = shape_text(self.shape)
            raise MsfnetError(
                f"{self.name} must have sizes from 1, and at most {LARGEST_TENSOR:g} values, "
                f"not the shape {shape[:80]}"
            )


def _is_number_type(name: str) -> bool:
    """Return whether NumPy has a type of numbers of exactly this name."""
    try:
        found = np.dtype(name)
    except (TypeError, ValueError, SyntaxError):
        return False
    return found.kind in "biufc" and found.name == name


@dataclass(frozen=True)
class Resize:
    """The resizing of frames to the network's size: bilinear, half-pixel centres."""

    policy: ResizePolicy = "stretch"
    """``stretch`` changes the aspect; ``fit`` keeps it and pads; ``crop`` keeps it and cuts."""
    pad: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """RGB value of the padding, 0 to 1."""
    multiple: int = 1
    """Sides of the resized frame are multiples of it, pixels."""

    def __post_init__(self) -> None:
        """Refuse colours outside the range, and a multiple that no side has."""
        for value in self.pad:
            check_range("resize.pad", value, 0, 1)
        check_range("resize.multiple", self.multiple, 1, 4096)


@dataclass(frozen=True)
class NormalisedIntrinsics:
    """A pinhole camera, independent of the image's size in pixels."""

    fx: float
    """Focal length along x / image width."""
    fy: float
    """Focal length along y / image height."""
    cx: float
    """Principal point's column / image width."""
    cy: float
    """Principal point's row / image height."""

    def __post_init__(self) -> None:
        """Refuse focal lengths that are not positive."""
        values = (self.fx, self.fy, self.cx, self.cy)
        if not (min(self.fx, self.fy) > 0 and all(map(math.isfinite, values))):
            raise MsfnetError(f"camera intrinsics {values} need positive focal lengths")


@dataclass(frozen=True)
class Scale:
    """The factor of the depth, and its origin."""

    factor: float = 1.0
    """The network's metres times this are the model's metres."""
    source: ScaleSource = "trained"
    """``trained``: as the network learnt them; ``focal``: from the camera's focal length;
    ``calibrated``: from measured distances; ``assumed``: unknown."""

    def __post_init__(self) -> None:
        """Refuse a factor that is not positive."""
        if not 0 < self.factor < math.inf:
            raise MsfnetError(f"scale.factor must be positive, not {self.factor}")


@dataclass(frozen=True)
class Block:
    """One part of a model that has a name: an encoder stage, EDA, a stage of the USF or decoder."""

    name: str
    inputs: tuple[str, ...]
    """Blocks whose values it uses, in order of first use; empty if it uses the model's input."""
    shape: tuple[int | str, ...]
    """Shape of its output."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products for one image of the spec's size."""
    parameters: int
    """Number of floating-point and quantised weights."""
    precision: str
    """Precision of its convolutions and matrix products, the largest share first: ``int8+fp32``;
    of its values if it has neither."""
    operators: Mapping[str, int]
    """Number of uses of each operator."""

    def __post_init__(self) -> None:
        """Refuse negative counts."""
        for count in (self.macs, self.parameters, *self.operators.values()):
            check_range(f"a count of block {self.name}", count, 0)


@dataclass(frozen=True)
class GoldenRecord:
    """Frames with the depth of the original network, by which a device checks the model."""

    file: str
    """Name of the file beside the model; empty where the model file itself holds them."""
    sha256: str
    tolerance: float
    """Largest median relative difference of depth that this precision was accepted with."""

    def __post_init__(self) -> None:
        """Refuse a file of another folder, and what is no hash."""
        if self.file:
            check_name("golden.file", self.file)
        check_sha256("golden.sha256", self.sha256)
        check_range("golden.tolerance", self.tolerance, 0)


@dataclass(frozen=True)
class ModelSpec:
    """The contract between a model file and the program that runs it.

    ``network`` graphs map normalised float32 (N, 3, h, w) to the raw prediction
    (N, 1, ceil(h/2), ceil(w/2)); ``deploy`` graphs map a uint8 RGB frame (1, H, W, 3) to
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
    """Smallest and largest depth of the model's output, metres."""
    dataset: str
    """What the model was trained on."""
    encoder: str
    """The timm name of the encoder; ``unknown`` for a network of another project."""
    origin: str = ""
    """The project that a network comes from, if not msfnet."""
    licence: str = ""
    """The licence of the weights."""
    recipe: str = ""
    """The recipe of the training."""
    ablation: str = ""
    """The row of the paper's Table III that the network was trained for."""
    checkpoint_sha256: str = ""
    git_revision: str = ""
    inverse_scale: float = 1.0
    """For inverse depth: prediction = inverse_scale / metres. DenseDepth's convention is 10."""
    resize: Resize = Resize()
    camera: NormalisedIntrinsics | None = None
    """The camera of the view that the network was trained on; None where it is unknown."""
    scale: Scale = Scale()
    opset: int | None = None
    """The version of ONNX's operators."""
    layout: GraphLayout = "any"
    """``cpu``: operators are laid out for processors; such a graph is neither calibrated nor
    built into an engine."""
    weights_file: str = ""
    """Name of the file beside an ONNX file that holds its weights; empty where it holds them."""
    blocks: tuple[Block, ...] = ()
    """Parts of the model, in the order of their first node in the graph."""
    precision: Precision = "fp32"
    """The lowest precision in it."""
    calibration: CalibrationRecord | None = None
    """The calibration of an INT8 model."""
    change: DepthChange | None = None
    """Change of depth between FP32 and this precision."""
    islands: tuple[Fp32Island, ...] = ()
    """Parts of an FP16 model that stay in FP32."""
    search: SearchRecord | None = None
    """Measurements of the precision search."""
    golden: GoldenRecord | None = None
    unproved: bool = False
    """Whether the model was never compared with the program that it comes from."""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Refuse values that no runtime can use."""
        check_values(self)
        check_picture_size(*self.size, "the size of the network's input")
        low, high = self.depth_range_m
        if not NEAREST_M <= low < high <= FARTHEST_M:
            raise MsfnetError(
                f"depth range {low} to {high} m is not a range; use min < max in metres, from "
                f"{NEAREST_M:g} to {FARTHEST_M:g}"
            )
        check_range("inverse_scale", self.inverse_scale, 1e-6, 1e6)
        for name in ("mean", "std"):
            for value in getattr(self, name):
                check_range(name, value, 1e-6 if name == "std" else -1e6, 1e6)
        if self.outputs and [output.role for output in self.outputs].count("depth") != 1:
            raise MsfnetError("exactly one output must have the role depth")
        if self.weights_file:
            check_name("weights_file", self.weights_file)
        if self.checkpoint_sha256:
            check_sha256("checkpoint_sha256", self.checkpoint_sha256)
        if self.opset is not None:
            check_range("opset", self.opset, 1, 1000)

    @property
    def prediction_range(self) -> tuple[float, float]:
        """Smallest and largest raw prediction that stands for a depth within the range."""
        low, high = self.depth_range_m
        if self.depth_kind == "metric":
            return low, high
        return self.inverse_scale / high, self.inverse_scale / low

    def check_supported(self) -> None:
        """Refuse features of later versions that this version cannot execute.

        Raises:
            MsfnetError: frames are not stretched, or depth is scaled after the network.
        """
        if self.resize.policy != "stretch":
            raise MsfnetError(
                f"the model resizes frames by {self.resize.policy}, and this msfnet only by "
                "stretch; update msfnet"
            )
        if self.scale.factor != 1:
            raise MsfnetError(
                f"the model scales depth by {self.scale.factor:g}, which this msfnet does not; "
                "update msfnet"
            )

    def check_runnable(self) -> None:
        """Refuse a model that no engine can feed with frames.

        Raises:
            MsfnetError: it has several inputs or outputs, or an input that its graph does not have.
        """
        if len(self.inputs) != 1 or len(self.outputs) != 1:
            raise MsfnetError("a depth model has one input and one output; export the model again")
        shape = self.inputs[0].shape
        channels = 1 if self.graph == "network" else 3
        frame = shape[1:3] if self.graph == "deploy" else ()
        if len(shape) != 4 or shape[channels] != 3 or any(isinstance(s, str) for s in frame):
            wanted = "Nx3xHxW" if self.graph == "network" else "NxHxWx3 of fixed height and width"
            raise MsfnetError(
                f"the input of a {self.graph} graph is {wanted}, not {shape_text(shape)[:80]}; "
                "export the model again"
            )
        if frame:
            check_picture_size(int(frame[0]), int(frame[1]), "the model's frame")

    def precision_facts(self) -> dict[str, str]:
        """Return what is recorded about the model's precision, as text by name."""
        islands = "; ".join(island.text() for island in self.islands)
        facts = {
            "calibration": self.calibration and self.calibration.text(),
            "depth change": self.change and self.change.text(),
            "kept in FP32": islands or ("nothing" if self.precision == "fp16" else ""),
            "precision search": self.search and self.search.text(),
        }
        return {name: text for name, text in facts.items() if text}

    def to_json(self) -> str:
        """Return the spec as one JSON object on one line."""
        return to_json(self, indent=None)

    @classmethod
    def from_json(cls, text: str, source: str = "the model's spec") -> ModelSpec:
        """Read a spec written by :meth:`to_json`, of this schema or of schema 1.

        Args:
            text: the JSON.
            source: where it comes from, for messages.

        Raises:
            MsfnetError: not a spec, or one of a newer schema.
        """
        try:
            values = parse_json(text, dict[str, Any], source)
            return build(cls, current_schema(values, source), source)
        except MsfnetError as error:
            raise MsfnetError(f"{error}; export the model again") from None


def current_schema(values: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Return a spec's plain values in today's schema; ``source`` is named in messages.

    Raises:
        MsfnetError: the schema is newer, or the values of an older one cannot be read.
    """
    version = build(int, values.get("schema_version"), source, "schema_version")
    if version == 1:
        return upgrade(values)
    if version != SCHEMA_VERSION:
        raise MsfnetError(
            f"{source} has schema version {version}, this msfnet reads 1 and "
            f"{SCHEMA_VERSION}; update msfnet"
        )
    return values
