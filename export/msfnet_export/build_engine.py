"""Builds TensorRT engines from ONNX files, with either flavour and without torch or onnx.

Every network is strongly typed: the precision of the engine is the ONNX file's own. TensorRT for
RTX builds for a list of architectures without a GPU; TensorRT builds for the GPU at hand.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msfnet_runtime import EngineArtifact, ModelSpec, MsfnetError, OnnxArtifact
from msfnet_runtime.artifacts import Flavour
from msfnet_runtime.cuda import open_device
from msfnet_runtime.engines import ENGINE_SUFFIXES
from msfnet_runtime.engines.tensorrt import MODULES, load_tensorrt
from msfnet_runtime.files import atomic_path, sha256
from msfnet_runtime.preflight import this_platform
from msfnet_runtime.progress import Progress, silent

MAX_BATCH = 8
"""Images at once that an engine of dynamic batch takes."""

MIN_SIDE = 32
"""Pixels: the smallest side that an engine of dynamic size takes."""


def build_engine(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    flavour: Flavour = "tensorrt-rtx",
    architectures: Sequence[str] | None = None,
    workspace_mib: int | None = None,
    progress: Progress = silent,
) -> EngineArtifact:
    """Build an engine and write it with its manifest (``<out>.json``).

    A strongly typed network that mixes types, and every operator TensorRT does not know, is
    refused while it is parsed, by the name of its node and before the builder starts. An engine
    of a dynamic graph takes 1 to 8 images, and sides from 32 pixels to twice the spec's.

    Args:
        model: an ONNX file made by msfnet.
        out: the engine to write, ``.engine``, ``.plan`` or ``.trt``.
        flavour: ``tensorrt-rtx`` or ``tensorrt``.
        architectures: compute capabilities such as ``("sm86", "sm89")``. Left out: those of the
            GPU at hand, or, for ``tensorrt-rtx`` without a GPU, all it knows.
        workspace_mib: largest scratch memory an engine layer may use, MiB; no limit if left out.
        progress: called as TensorRT moves on.

    Raises:
        MsfnetError: no readable model, another suffix, the library is missing, an architecture
            it cannot build for, an operator it refuses, or the file cannot be written.
    """
    started = time.perf_counter()
    source, target = OnnxArtifact.read(model), _engine_path(out)
    trt = load_tensorrt(flavour)
    chosen = choose_architectures(flavour, architectures)
    logger = _make_logger(trt)
    # The builder's parts must outlive one another in this order.
    builder = trt.Builder(logger)
    network = _parse(trt, builder, source.path, logger)
    _check_precision(trt, network, source)
    config = _configure(trt, builder, flavour, chosen, workspace_mib)
    _add_profile(builder, config, source.spec)
    config.progress_monitor = _make_monitor(trt, progress)
    with atomic_path(target) as partial:
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise MsfnetError(f"{flavour} cannot build {source.path}: {logger.reason()}")
        partial.write_bytes(plan)
        artifact = EngineArtifact(
            path=target,
            spec=source.spec,
            flavour=flavour,
            version=str(trt.__version__),
            architectures=chosen,
            platform=this_platform(),
            onnx_sha256=source.sha256,
            engine_sha256=sha256(partial),
            bytes=partial.stat().st_size,
            build_seconds=round(time.perf_counter() - started, 3),
        )
        artifact.write()
    return artifact


def _engine_path(out: str | os.PathLike[str]) -> Path:
    target = Path(out)
    if target.suffix not in ENGINE_SUFFIXES:
        raise MsfnetError(f"{target} does not end in {', '.join(ENGINE_SUFFIXES)}; rename it")
    return target


def known_architectures() -> tuple[str, ...]:
    """Return the compute capabilities that TensorRT for RTX builds for.

    Raises:
        MsfnetError: it is not installed.
    """
    names = load_tensorrt("tensorrt-rtx").ComputeCapability.__members__
    return tuple(name.lower() for name in names if name.startswith("SM"))


def choose_architectures(flavour: Flavour, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the architectures to build for, once the flavour is known to manage them.

    Raises:
        MsfnetError: one is unknown, or TensorRT is asked for another than the GPU at hand.
    """
    if flavour not in MODULES:
        raise MsfnetError(f"unknown flavour {flavour!r}; choose one of {', '.join(MODULES)}")
    wanted = tuple(dict.fromkeys(name.strip().lower() for name in asked or ()))
    if flavour == "tensorrt":
        here = _architecture_here(f"{flavour} builds for the GPU it runs on")
        if set(wanted) - {here}:
            raise MsfnetError(
                f"tensorrt builds for the GPU at hand, {here}; leave out --arch, or use "
                "--flavour tensorrt-rtx"
            )
        return (here,)
    known = known_architectures()
    for name in wanted:
        if name not in known:
            raise MsfnetError(f"tensorrt-rtx cannot build for {name!r}; choose {', '.join(known)}")
    return wanted or _gpu_or_all(known)


def _architecture_here(need: str) -> str:
    try:
        device = open_device()
    except MsfnetError as error:
        raise MsfnetError(f"{need}: {error}") from None
    device.close()
    return device.architecture


def _gpu_or_all(known: tuple[str, ...]) -> tuple[str, ...]:
    try:
        here = _architecture_here("")
    except MsfnetError:
        return known
    return (here,) if here in known else known


def _make_logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps errors for our own line and prints nothing."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Take one message from TensorRT."""
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

        def reason(self) -> str:
            """Return the first error; the later ones follow from it."""
            return self.errors[0][:300] if self.errors else "it gives no reason"

    return Logger()


def _make_monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Passes TensorRT's phases on; Ctrl-C stops the build at the next step."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            """Note how long a phase is; only those that are no part of another are shown."""
            if not parent:
                self._steps[phase] = steps

        def step_complete(self, phase: str, step: int) -> bool:
            """Report a step; returning False would cancel the build."""
            try:
                if phase in self._steps:
                    progress(step + 1, self._steps[phase], phase)
            except KeyboardInterrupt:
                return False
            return True

        def phase_finish(self, phase: str) -> None:
            """Forget the phase."""
            self._steps.pop(phase, None)

    return Monitor()


def _parse(trt: Any, builder: Any, path: Path, logger: Any) -> Any:
    # TensorRT 11 knows strongly typed networks only, and may have no flag for them.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(os.fspath(path)):  # weights may lie beside it
        error = parser.get_error(0)
        reason = " ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}".split())
        raise MsfnetError(f"TensorRT cannot read {path}: {reason[:300]}")
    return network


def _check_precision(trt: Any, network: Any, source: OnnxArtifact) -> None:
    """Hold the parsed layers against the spec: a file that says FP16 must not build FP32.

    Raises:
        MsfnetError: the network has no layer of the precision its spec claims.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    types = Counter(layer.get_output(i).dtype for layer in layers for i in range(layer.num_outputs))
    held = {
        "fp32": True,
        "fp16": types[trt.float16] > 0,
        "int8": any(layer.type == trt.LayerType.QUANTIZE for layer in layers),
    }
    if not held[source.spec.precision]:
        raise MsfnetError(
            f"{source.path} says {source.spec.precision} but holds no such layer; "
            "convert or calibrate it again"
        )


def _configure(
    trt: Any,
    builder: Any,
    flavour: Flavour,
    architectures: Sequence[str],
    workspace_mib: int | None,
) -> Any:
    config = builder.create_builder_config()
    if workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    if flavour == "tensorrt-rtx":
        config.num_compute_capabilities = len(architectures)
        for index, name in enumerate(architectures):
            config.set_compute_capability(getattr(trt.ComputeCapability, name.upper()), index)
    return config


def _add_profile(builder: Any, config: Any, spec: ModelSpec) -> None:
    """Say which shapes a dynamic engine is for; the spec's own is what it is tuned for."""
    tensor = spec.inputs[0]
    if all(isinstance(side, int) for side in tensor.shape):
        return
    height, width = spec.size
    ranges = {
        "batch": (1, 1, MAX_BATCH),
        "height": (MIN_SIDE, height, 2 * height),
        "width": (MIN_SIDE, width, 2 * width),
    }
    sides = [ranges[s] if isinstance(s, str) else (s, s, s) for s in tensor.shape]
    profile = builder.create_optimization_profile()
    profile.set_shape(tensor.name, *zip(*sides, strict=True))
    config.add_optimization_profile(profile)
