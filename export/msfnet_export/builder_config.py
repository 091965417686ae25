"""Turns options into the configuration of TensorRT's builder, as far as this version has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msfnet_export.build_options import BuildOptions
from msfnet_runtime import MsfnetError
from msfnet_runtime.artifacts import Flavour, ShapeRange
from msfnet_runtime.files import atomic_path


def configure(
    trt: Any,
    builder: Any,
    flavour: Flavour,
    architectures: Sequence[str],
    options: BuildOptions,
) -> Any:
    """Return the builder's configuration, profiles and timing cache apart.

    Raises:
        MsfnetError: this version of the flavour lacks something that is asked.
    """
    config = builder.create_builder_config()
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.hardware_compatibility is not None:
        name = options.hardware_compatibility.replace("-", "_").upper()
        config.hardware_compatibility_level = _feature(trt, "HardwareCompatibilityLevel", name)
    for name, asked in _flags(options).items():
        if asked:
            config.set_flag(_feature(trt, "BuilderFlag", name))
    if flavour == "tensorrt-rtx":
        config.num_compute_capabilities = len(architectures)
        for index, name in enumerate(architectures):
            config.set_compute_capability(getattr(trt.ComputeCapability, name.upper()), index)
    return config


def _flags(options: BuildOptions) -> Mapping[str, bool]:
    return {
        "VERSION_COMPATIBLE": options.version_compatible,
        "REFIT": options.refit,
        "STRIP_PLAN": options.strip_weights,
    }


def _feature(trt: Any, kind: str, name: str) -> Any:
    """Return a member of one of TensorRT's enumerations.

    Raises:
        MsfnetError: this version has no such member.
    """
    value = getattr(getattr(trt, kind, None), name, None)
    if value is None:
        raise MsfnetError(f"TensorRT {trt.__version__} has no {kind}.{name}; leave the option out")
    return value


@contextmanager
def timing_cache(config: Any, options: BuildOptions) -> Iterator[None]:
    """Let the builder use the timing cache of a file, and extend it once the engine is written.

    Raises:
        MsfnetError: the file is none, or of another machine or version.
    """
    if options.timing_cache is None:
        yield
        return
    path = Path(options.timing_cache)
    known = path.read_bytes() if path.exists() else b""
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise MsfnetError(
            f"{path} is no timing cache for this machine and TensorRT; remove it or name another"
        )
    yield
    with atomic_path(path) as partial:
        partial.write_bytes(config.get_timing_cache().serialize())


def add_profiles(builder: Any, config: Any, name: str, profiles: Sequence[ShapeRange]) -> None:
    """Say which shapes of its input a dynamic engine is for.

    Raises:
        MsfnetError: TensorRT refuses one.
    """
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        profile.set_shape(name, *shapes)
        if config.add_optimization_profile(profile) < 0:
            raise MsfnetError(f"TensorRT refuses the profile {shapes} of {name}; give another")
