"""What a model file holds."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msfnet.models import CHECKPOINT_SUFFIXES
from msfnet_benchmarks.tables import format_pairs, format_table
from msfnet_runtime import (
    Block,
    EngineArtifact,
    ModelSpec,
    MsfnetError,
    NormalisedIntrinsics,
    OnnxArtifact,
)
from msfnet_runtime.artifacts import ShapeRange
from msfnet_runtime.engines import ENGINE_SUFFIXES
from msfnet_runtime.onnx_metadata import existing_file
from msfnet_runtime.preflight import check_files
from msfnet_runtime.typed import to_json, to_plain


@dataclass(frozen=True)
class Description:
    """What a model file holds."""

    rows: tuple[tuple[str, str], ...]
    """Facts by name, as shown."""
    spec: ModelSpec

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The model's blocks; empty for checkpoints, and for files that record none."""
        return self.spec.blocks

    def text(self) -> str:
        """Return the facts, and a table of the blocks."""
        table = [_blocks_table(self.blocks)] if self.blocks else []
        return "\n\n".join([format_pairs(self.rows), *table])

    def to_json(self) -> str:
        """Return facts, spec and blocks as one JSON object."""
        spec = to_plain(self.spec)
        blocks = spec.pop("blocks")
        return to_json({"facts": dict(self.rows), "spec": spec, "blocks": blocks})

    def plot(self, path: Path) -> None:
        """Draw the blocks as a PNG.

        Raises:
            MsfnetError: there are none, matplotlib is missing, or the file cannot be written.
        """
        from msfnet_benchmarks.report.block_picture import draw_blocks

        if not self.blocks:
            raise MsfnetError(
                f"{self.rows[0][1]} holds no list of blocks; give a file made by `msfnet export`"
            )
        draw_blocks(self.blocks, path, f"{Path(self.rows[0][1]).name}: {self.spec.encoder}")


def describe_model(path: Path) -> Description:
    """Describe a checkpoint, an ONNX file or an engine.

    Raises:
        MsfnetError: missing or unreadable file, or none of the three.
    """
    file = existing_file(path, "model")
    if file.suffix in CHECKPOINT_SUFFIXES:
        from msfnet_train import load_checkpoint

        spec = load_checkpoint(file).spec
        size = file.stat().st_size
        return Description((*_file_rows(file, "checkpoint", size), *_spec_rows(spec)), spec)
    if file.suffix in ENGINE_SUFFIXES:
        engine = EngineArtifact.read(file)
        check_files(engine)
        rows = [*_file_rows(file, "engine", file.stat().st_size), *_engine_rows(engine)]
        return Description(tuple(rows), engine.spec)
    artifact = OnnxArtifact.read(file)
    _check_graph(file)
    rows = [*_file_rows(file, "ONNX file", artifact.bytes), ("sha256", artifact.sha256)]
    return Description((*rows, *_spec_rows(artifact.spec)), artifact.spec)


def _block_sums(blocks: Sequence[Block]) -> list[tuple[str, str]]:
    """Return the sums over the blocks; nothing where the spec has none."""
    operators: Counter[str] = Counter()
    for block in blocks:
        operators.update(block.operators)
    sums = [
        ("parameters", f"{sum(b.parameters for b in blocks) / 1e6:.2f} M"),
        ("work", f"{sum(b.macs for b in blocks) / 1e9:.3f} GMAC for one image"),
        ("operators", ", ".join(f"{name} {count}" for name, count in operators.most_common())),
    ]
    return sums if blocks else []


def _blocks_table(blocks: Sequence[Block]) -> str:
    total = sum(block.macs for block in blocks) or 1
    rows = [
        (
            block.name,
            "x".join(map(str, block.shape)),
            f"{block.macs / 1e6:.2f}",
            f"{block.macs / total:.1%}",
            f"{block.parameters / 1e3:.1f}",
            block.precision,
        )
        for block in blocks
    ]
    header = ("block", "output", "MMAC", "share", "k parameters", "precision")
    return format_table(header, rows)


def _file_rows(file: Path, kind: str, size: int) -> list[tuple[str, str]]:
    return [(kind, str(file)), ("size on disk", f"{size / 1e6:.2f} MB")]


def _engine_rows(artifact: EngineArtifact) -> list[tuple[str, str]]:
    asked = {
        **{name: value for name, value in artifact.options.items() if value not in (None, False)},
        "profiles": ", ".join(map(_shapes, artifact.profiles)),
    }
    return [
        ("built by", f"{artifact.flavour} {artifact.version} on {artifact.platform}"),
        ("architectures", ", ".join(artifact.architectures)),
        ("built", f"{artifact.built}, in {artifact.build_seconds:.1f} s"),
        ("from ONNX file", artifact.onnx_file),
        ("from ONNX sha256", artifact.onnx_sha256),
        ("engine sha256", artifact.engine_sha256),
        ("values by type", ", ".join(f"{name} {n}" for name, n in artifact.types.items())),
        *((name.replace("_", " "), str(value)) for name, value in asked.items() if value),
        *_spec_rows(artifact.spec),
    ]


def _shapes(profile: ShapeRange) -> str:
    return ":".join("x".join(map(str, shape)) for shape in profile)


def _spec_rows(spec: ModelSpec) -> list[tuple[str, str]]:
    tensors = [
        (
            f"{kind} {tensor.name}",
            " ".join(("x".join(map(str, tensor.shape)), tensor.dtype, tensor.role or "")).rstrip(),
        )
        for kind, group in (("input", spec.inputs), ("output", spec.outputs))
        for tensor in group
    ]
    low, high = spec.depth_range_m
    optional = {
        "recipe": spec.recipe,
        "ablation": spec.ablation,
        "origin": spec.origin,
        "licence": spec.licence,
        "opset": spec.opset,
        "laid out for": "CPUs" if spec.layout == "cpu" else "",
        "weights file": spec.weights_file,
        **spec.precision_facts(),
        "golden frames": spec.golden and (spec.golden.file or "in the model"),
        "compared with its origin": "no" if spec.unproved else "",
    }
    return [
        ("graph", spec.graph),
        ("precision", spec.precision),
        *tensors,
        ("network size", f"{spec.size[0]}x{spec.size[1]} ({spec.resize.policy})"),
        ("mean, std", f"{spec.mean}, {spec.std}"),
        ("depth", f"{spec.depth_kind}, {low:g} to {high:g} m"),
        ("trained for camera", _camera(spec.camera)),
        ("scale", f"{spec.scale.factor:g} ({spec.scale.source})"),
        ("encoder", spec.encoder),
        ("dataset", spec.dataset),
        ("checkpoint sha256", spec.checkpoint_sha256 or "-"),
        ("git revision", spec.git_revision or "-"),
        *((name, str(value)) for name, value in optional.items() if value),
        *_block_sums(spec.blocks),
    ]


def _camera(camera: NormalisedIntrinsics | None) -> str:
    if camera is None:
        return "unknown"
    return f"fx {camera.fx:.3f}, fy {camera.fy:.3f}, cx {camera.cx:.3f}, cy {camera.cy:.3f} of 1"


def _check_graph(file: Path) -> None:
    """Refuse a damaged graph, where the onnx package is at hand.

    Raises:
        MsfnetError: the file is no valid model.
    """
    if importlib.util.find_spec("onnx") is not None:
        from msfnet_calibration.onnx_files import load_model

        load_model(file)
