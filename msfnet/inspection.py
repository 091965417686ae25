"""What a model file holds, and what this machine can do with it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from msfnet.models import CHECKPOINT_SUFFIXES
from msfnet_runtime import EngineArtifact, ModelSpec, MsfnetError, OnnxArtifact
from msfnet_runtime.engines import ENGINE_SUFFIXES
from msfnet_runtime.onnx_metadata import existing_file


def describe_model(path: Path) -> str:
    """Return a readable description of a checkpoint, an ONNX file or an engine.

    Raises:
        MsfnetError: missing or unreadable file, or none of the three.
    """
    file = existing_file(path, "model")
    if file.suffix in CHECKPOINT_SUFFIXES:
        from msfnet_train import load_checkpoint

        return _table([*_file_rows(file, "checkpoint"), *_spec_rows(load_checkpoint(file).spec)])
    if file.suffix in ENGINE_SUFFIXES:
        return _table([*_file_rows(file, "engine"), *_engine_rows(EngineArtifact.read(file))])
    artifact = OnnxArtifact.read(file)
    rows = [*_file_rows(file, "ONNX file"), ("sha256", artifact.sha256)]
    return _table([*rows, *_spec_rows(artifact.spec), *_graph_rows(file)])


def describe_machine() -> str:
    """Return what is installed here, which providers and GPUs really answer, and what follows."""
    rows = [
        ("python", f"{platform.python_version()} on {sys.platform}-{platform.machine()}"),
        *((name, _version(name)) for name in _LIBRARIES),
        ("ONNX Runtime providers", ", ".join(_providers()) or "none"),
        ("GPU", _gpu()),
        ("builds engines for", ", ".join(_buildable()) or "nothing: install tensorrt-rtx"),
    ]
    return _table(rows)


_LIBRARIES = (
    "msfnet",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "av",
    "torch",
    "timm",
    "lightning",
    "onnx",
    "onnxscript",
    "onnxsim",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-python",
    "cuda-bindings",
    "pycuda",
)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def _providers() -> list[str]:
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    import onnxruntime

    return [str(name) for name in onnxruntime.get_available_providers()]


def _gpu() -> str:
    from msfnet_runtime.cuda import open_device

    try:
        device = open_device()
    except MsfnetError as error:
        return f"none ({str(error).partition(';')[0]})"
    device.close()
    return device.architecture


def _buildable() -> Iterator[str]:
    if importlib.util.find_spec("tensorrt_rtx"):
        from msfnet_export.build_engine import known_architectures

        yield f"tensorrt-rtx: {', '.join(known_architectures())}"
    if importlib.util.find_spec("tensorrt"):
        yield "tensorrt: the GPU at hand"


def _file_rows(file: Path, kind: str) -> list[tuple[str, str]]:
    return [(kind, str(file)), ("size on disk", f"{file.stat().st_size / 1e6:.2f} MB")]


def _engine_rows(artifact: EngineArtifact) -> list[tuple[str, str]]:
    return [
        ("built by", f"{artifact.flavour} {artifact.version} on {artifact.platform}"),
        ("architectures", ", ".join(artifact.architectures)),
        ("build time", f"{artifact.build_seconds:.1f} s"),
        ("from ONNX sha256", artifact.onnx_sha256),
        ("engine sha256", artifact.engine_sha256),
        *_spec_rows(artifact.spec),
    ]


def _spec_rows(spec: ModelSpec) -> list[tuple[str, str]]:
    tensors = [
        (f"{kind} {tensor.name}", f"{'x'.join(map(str, tensor.shape))} {tensor.dtype}")
        for kind, group in (("input", spec.inputs), ("output", spec.outputs))
        for tensor in group
    ]
    low, high = spec.depth_range_m
    return [
        ("graph", spec.graph),
        ("precision", spec.precision),
        *tensors,
        ("network size", f"{spec.size[0]}x{spec.size[1]} ({spec.resize})"),
        ("mean, std", f"{spec.mean}, {spec.std}"),
        ("depth", f"{spec.depth_kind}, {low:g} to {high:g} m"),
        ("encoder", spec.encoder),
        ("dataset", spec.dataset),
        ("checkpoint sha256", spec.checkpoint_sha256 or "-"),
        ("git revision", spec.git_revision or "-"),
        *spec.notes.items(),
    ]


def _graph_rows(file: Path) -> list[tuple[str, str]]:
    """Count operators and parameters where the onnx package is at hand."""
    if importlib.util.find_spec("onnx") is None:
        return []
    from msfnet_calibration.onnx_files import count_operators, count_parameters, load_model

    model = load_model(file)
    operators = ", ".join(f"{name} {count}" for name, count in count_operators(model).items())
    return [("parameters", f"{count_parameters(model) / 1e6:.2f} M"), ("operators", operators)]


def _table(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
