"""Writes a model into a model repository of Triton Inference Server."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from msfnet_benchmarks.timing.generated import generated_batch, usual_shape
from msfnet_export.triton_config import (
    DEFAULT_MAX_BATCH,
    FILE_NAMES,
    Platform,
    Served,
    TritonOptions,
    check_batch,
    check_options,
    config_text,
    has_open_batch,
)
from msfnet_export.triton_readme import TITLE, model_section, repository_readme
from msfnet_runtime import EngineArtifact, ModelSpec, MsfnetError, OnnxArtifact
from msfnet_runtime.artifacts import model_files
from msfnet_runtime.engines import ENGINE_SUFFIXES
from msfnet_runtime.files import atomic_path, disk_full, existing_file, locked, temporary_folder
from msfnet_runtime.preflight import check_files

README = "README.md"


@dataclass(frozen=True)
class TritonModel:
    """A model in a model repository."""

    path: Path
    """The model's folder in the repository."""
    name: str
    platform: Platform
    max_batch_size: int
    """0: the batch is fixed."""

    def text(self) -> str:
        """Return what was written in one line."""
        batch = f"batches of up to {self.max_batch_size}" if self.max_batch_size else "fixed batch"
        return f"{self.path}: {self.platform}, {batch}; {self.path.parent / README} starts a server"


@dataclass(frozen=True)
class _Source:
    """A model file with its description."""

    platform: Platform
    spec: ModelSpec
    files: dict[str, Path]
    """Files to copy into the version's folder, by their names there."""
    engine: EngineArtifact | None = None


def write_triton_model(
    model: str | os.PathLike[str],
    repository: str | os.PathLike[str],
    *,
    options: TritonOptions | None = None,
    force: bool = False,
) -> TritonModel:
    """Add a model to a repository; its folder is written whole or not at all.

    Other models of the repository stay as they are; its README is written again for all of them.

    Args:
        model: an ONNX file made by msfnet, or an engine of flavour ``tensorrt`` with its manifest.
        repository: folder of models; made if it is missing.
        options: how the server runs the model; the defaults if None.
        force: replace a model of the same name, all of its versions.

    Raises:
        MsfnetError: a model the server cannot load, options it cannot follow, a model of that
            name without ``force``, something else in its place, or a folder that cannot be
            written.
    """
    options = options or TritonOptions()
    file = existing_file(model, "model")
    source = _read(file)
    source.spec.check_runnable()
    check_options(source.spec, options, source.platform)
    served = _serve(_name(options.name or file.stem), source, options)
    check_batch(served, options)
    text = config_text(served, options)
    target = Path(repository) / served.name
    _check_target(target, force)
    with locked(target), disk_full(target), temporary_folder(target) as folder:
        (folder / "config.pbtxt").write_text(text, encoding="utf-8")
        (folder / README).write_text(model_section(served, source.engine), encoding="utf-8")
        version = folder / str(options.version)
        version.mkdir()
        for name, path in source.files.items():
            shutil.copyfile(path, version / name)
        if options.warmup:
            (folder / "warmup").mkdir()
            batch = generated_batch(served.spec, served.warmup_shape)
            batch.tofile(folder / "warmup" / served.warmup_file)
        _swap(folder, target)
    _write_readme(Path(repository))
    return TritonModel(target, served.name, served.platform, served.max_batch_size)


def _read(file: Path) -> _Source:
    """Describe a model that the server can load."""
    if file.suffix == ".onnx":
        onnx = OnnxArtifact.read(file)
        names = (FILE_NAMES["onnxruntime_onnx"], onnx.spec.weights_file)
        files = dict(zip(names, model_files(file, onnx.spec), strict=False))
        return _Source("onnxruntime_onnx", onnx.spec, files)
    if file.suffix not in ENGINE_SUFFIXES:
        raise MsfnetError(f"{file} is not a model for Triton; name a .onnx or .engine file")
    engine = EngineArtifact.read(file)
    if engine.flavour != "tensorrt":
        raise MsfnetError(
            f"{file} was built by {engine.flavour}, whose engines Triton's TensorRT backend does "
            "not load; use the ONNX file, or build it with flavour tensorrt"
        )
    if engine.options.get("strip_weights"):
        raise MsfnetError(
            f"{file} holds no weights, and Triton does not put them back; build it again with "
            "its weights"
        )
    check_files(engine)
    return _Source("tensorrt_plan", engine.spec, {FILE_NAMES["tensorrt_plan"]: file}, engine)


def _name(name: str) -> str:
    """Return a model's name once it can be a folder and a part of a URL."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise MsfnetError(
            f"model name {name!r} cannot be used in a URL; use letters, digits, '_', '-' and '.'",
            parameter="name",
        )
    return name


def _serve(name: str, source: _Source, options: TritonOptions) -> Served:
    """Choose the largest batch and the shape of the warm-up frame."""
    spec, engine = source.spec, source.engine
    profiles = engine.profiles if engine else ()
    largest = options.max_batch_size or DEFAULT_MAX_BATCH
    if profiles and has_open_batch(spec):
        smallest, limit = (
            pick(profile[place][0] for profile in profiles) for pick, place in ((min, 0), (max, 2))
        )
        if smallest > 1 or (options.max_batch_size or 1) > limit:
            raise MsfnetError(
                f"the engine takes batches of {smallest} to {limit}, the server asks for 1 to "
                f"{options.max_batch_size or limit}; build it with another profile"
            )
        largest = options.max_batch_size or limit
    return Served(
        name,
        source.platform,
        spec,
        max_batch_size=largest if has_open_batch(spec) else 0,
        warmup_shape=usual_shape(spec, profiles),
        profiles=len(profiles),
    )


def _check_target(target: Path, force: bool) -> None:
    """Keep what is not a model, a model without ``force``, and a README of another project.

    Raises:
        MsfnetError: one of them is in the way.
    """
    if target.exists() and not (target / "config.pbtxt").is_file():
        raise MsfnetError(
            f"{target} already exists and is not a Triton model; choose another name",
            parameter="name",
        )
    if target.exists() and not force:
        raise MsfnetError(
            f"{target} exists already; replace it, or choose another name", parameter="force"
        )
    readme = target.with_name(README)
    if readme.exists() and not readme.read_bytes().startswith(TITLE.encode()):
        raise MsfnetError(f"{readme} was not written by msfnet; choose another folder for models")


def _swap(staged: Path, target: Path) -> None:
    """Put a folder in the place of another, which is removed afterwards."""
    with temporary_folder(target) as attic:
        old = attic / target.name
        if target.exists():
            target.rename(old)
        try:
            staged.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise


def _write_readme(repository: Path) -> None:
    """Write the repository's README from the sections of its models."""
    folders = sorted(path.parent for path in repository.glob("[!.]*/config.pbtxt"))
    sections = [(path / README) for path in folders if (path / README).exists()]
    configs = [(path / "config.pbtxt").read_text(encoding="utf-8") for path in folders]
    text = repository_readme(
        [path.read_text(encoding="utf-8") for path in sections],
        gpu=any("KIND_GPU" in config for config in configs),
    )
    with atomic_path(repository / README) as partial:
        partial.write_text(text, encoding="utf-8")
