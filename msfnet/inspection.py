"""Describes a model file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msfnet.models import CHECKPOINT_SUFFIXES
from msfnet_benchmarks.tables import format_pairs, format_table
from msfnet_runtime import Block, EngineArtifact, ModelSpec, MsfnetError, OnnxArtifact
from msfnet_runtime.engines import ENGINE_SUFFIXES
from msfnet_runtime.files import existing_file
from msfnet_runtime.libraries import why_not
from msfnet_runtime.preflight import check_files
from msfnet_runtime.typed import to_json, to_plain
from msfnet_runtime.words import shape_text


@dataclass(frozen=True)
class Description:
    """The contents of a model file."""

    rows: tuple[tuple[str, str], ...]
    """Facts by name, as shown."""
    spec: ModelSpec
    """Its blocks are empty for checkpoints, and for files that record none."""

    def text(self) -> str:
        """Return the facts, and a table of the blocks."""
        table = [_blocks_table(self.spec.blocks)] if self.spec.blocks else []
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

        if not self.spec.blocks:
            raise MsfnetError(
                f"{self.rows[0][1]} holds no list of blocks; use a file made by `msfnet export`"
            )
        draw_blocks(self.spec.blocks, path, f"{Path(self.rows[0][1]).name}: {self.spec.encoder}")


def describe_model(path: Path) -> Description:
    """Describe a checkpoint, an ONNX file or an engine.

    Raises:
        MsfnetError: missing or unreadable file, or none of the three.
    """
    file = existing_file(path, "model")
    rows: list[tuple[str, str]] = []
    size = file.stat().st_size
    if file.suffix in CHECKPOINT_SUFFIXES:
        from msfnet_train import load_checkpoint

        kind, spec = "checkpoint", load_checkpoint(file).spec
    elif file.suffix in ENGINE_SUFFIXES:
        engine = EngineArtifact.read(file)
        check_files(engine)
        kind, spec, rows = "engine", engine.spec, _engine_rows(engine)
    else:
        artifact = OnnxArtifact.read(file)
        kind, rows, size = "ONNX file", [("sha256", artifact.sha256)], artifact.bytes
        spec, facts = _read_graph(file, artifact.spec)
        rows += facts
    named = [(kind, str(file)), ("size on disk", f"{size / 1e6:.2f} MB")]
    return Description((*named, *rows, *_spec_rows(spec), *_block_sums(spec.blocks)), spec)


def _engine_rows(artifact: EngineArtifact) -> list[tuple[str, str]]:
    profiles = (":".join(map(shape_text, profile)) for profile in artifact.profiles)
    asked = {**artifact.options, "profiles": ", ".join(profiles)}
    return [
        ("built by", f"{artifact.flavour} {artifact.version} on {artifact.platform}"),
        ("architectures", ", ".join(artifact.architectures)),
        ("built", f"{artifact.built}, in {artifact.build_seconds:.1f} s"),
        ("from ONNX file", artifact.onnx_file),
        ("from ONNX sha256", artifact.onnx_sha256),
        ("engine sha256", artifact.engine_sha256),
        ("values by type", ", ".join(f"{name} {n}" for name, n in artifact.types.items())),
        *((name.replace("_", " "), str(value)) for name, value in asked.items() if value),
    ]


def _spec_rows(spec: ModelSpec) -> list[tuple[str, str]]:
    tensors = [
        (f"{kind} {t.name}", f"{shape_text(t.shape)} {t.dtype} {t.role or ''}".rstrip())
        for kind, group in (("input", spec.inputs), ("output", spec.outputs))
        for t in group
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
    camera = spec.camera and "fx {:.3f}, fy {:.3f}, cx {:.3f}, cy {:.3f} of 1".format(
        *(getattr(spec.camera, name) for name in ("fx", "fy", "cx", "cy"))
    )
    return [
        ("graph", spec.graph),
        ("precision", spec.precision),
        *tensors,
        ("network size", f"{shape_text(spec.size)} ({spec.resize.policy})"),
        ("mean, std", f"{spec.mean}, {spec.std}"),
        ("depth", f"{spec.depth_kind}, {low:g} to {high:g} m"),
        ("trained for camera", camera or "unknown"),
        ("scale", f"{spec.scale.factor:g} ({spec.scale.source})"),
        ("encoder", spec.encoder),
        ("dataset", spec.dataset),
        ("checkpoint sha256", spec.checkpoint_sha256 or "-"),
        ("git revision", spec.git_revision or "-"),
        *((name, str(value)) for name, value in optional.items() if value),
    ]


def _block_sums(blocks: Sequence[Block]) -> list[tuple[str, str]]:
    """Return the sums over the blocks; nothing where the spec has none."""
    if not blocks:
        return []
    operators: Counter[str] = Counter()
    for block in blocks:
        operators.update(block.operators)
    return [
        ("parameters", f"{sum(b.parameters for b in blocks) / 1e6:.2f} M"),
        ("work", f"{sum(b.macs for b in blocks) / 1e9:.3f} GMAC for one image"),
        ("operators", ", ".join(f"{name} {count}" for name, count in operators.most_common())),
    ]


def _blocks_table(blocks: Sequence[Block]) -> str:
    total = sum(block.macs for block in blocks) or 1
    rows = [
        (
            block.name,
            shape_text(block.shape),
            f"{block.macs / 1e6:.2f}",
            f"{block.macs / total:.1%}",
            f"{block.parameters / 1e3:.1f}",
            block.precision,
        )
        for block in blocks
    ]
    return format_table(("block", "output", "MMAC", "share", "k parameters", "precision"), rows)


def _read_graph(file: Path, spec: ModelSpec) -> tuple[ModelSpec, list[tuple[str, str]]]:
    """Return the spec with the blocks that the graph has, and facts about its weights.

    Where the onnx packages do not load, the blocks are those that the file records, and the fact
    says so.

    Raises:
        MsfnetError: the file is not a valid model.
    """
    if problem := why_not("onnx") or why_not("onnx_ir"):
        return spec, [("graph checked", f"no: {problem}")]
    from msfnet_calibration.blocks import find_blocks
    from msfnet_calibration.graph import count_weights
    from msfnet_calibration.onnx_files import load_model

    model = load_model(file)
    weights = ", ".join(f"{kind} {size / 1e3:.1f} k" for kind, size in count_weights(model).items())
    return replace(spec, blocks=find_blocks(model, spec)), [("weights by type", weights)]
