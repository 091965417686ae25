"""Builds TensorRT engines from ONNX files, with either flavour and without torch or onnx.

Every network is strongly typed: the precision of the engine is the ONNX file's own. TensorRT for
RTX builds for a list of architectures without a GPU; TensorRT builds for the GPU at hand.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from msfnet_export.build_options import DEFAULTS, BuildOptions
from msfnet_export.builder import add_profiles, configure, make_logger, run_builder, timing_cache
from msfnet_runtime import EngineArtifact, MsfnetError, OnnxArtifact
from msfnet_runtime.artifacts import Flavour, refuse_cpu_layout
from msfnet_runtime.cuda.device import open_device
from msfnet_runtime.engines import ENGINE_SUFFIXES
from msfnet_runtime.engines.tensorrt import MODULES, load_tensorrt
from msfnet_runtime.files import atomic_path, check_outputs, sha256
from msfnet_runtime.libraries import text_path
from msfnet_runtime.preflight import this_platform
from msfnet_runtime.progress import Progress, silent

_log = logging.getLogger(__name__)


def build_engine(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    flavour: Flavour = "tensorrt-rtx",
    options: BuildOptions = DEFAULTS,
    progress: Progress = silent,
) -> EngineArtifact:
    """Build an engine and write it with its manifest (``<out>.json``).

    A strongly typed network that mixes types, and an operator that TensorRT does not support, are
    refused by the name of the node while the file is parsed, before the builder starts.

    Args:
        model: an ONNX file made by msfnet.
        out: the engine to write, ``.engine``, ``.plan`` or ``.trt``.
        flavour: ``tensorrt-rtx`` or ``tensorrt``.
        options: of the builder.
        progress: called as TensorRT proceeds, with its phase and the phase's time.

    Raises:
        MsfnetError: no readable model, another suffix, the library is missing, an option or an
            architecture that the flavour does not support, INT8 for CPUs, a profile that does not
            fit the model, an operator that it refuses, or the file cannot be written.
    """
    started = time.perf_counter()
    target, chosen = check_request(out, flavour, options)
    check_outputs(
        [target, EngineArtifact.sidecar(target)], inputs=[model, options.timing_cache], force=True
    )
    source = OnnxArtifact.read(model)
    refuse_cpu_layout(source.spec, model)
    _refuse_cpu_pairs(source)
    profiles = options.shapes(source.spec)
    trt = load_tensorrt(flavour)
    logger = make_logger(trt, options.verbose)
    # The builder's parts must outlive one another in this order.
    builder = trt.Builder(logger)
    network = _parse(trt, builder, source.path, logger)
    types = _count_types(network)
    if not options.architectures:
        chosen = _leave_out_turing(trt, network, source, chosen)
    config = configure(trt, builder, flavour, chosen, options)
    add_profiles(builder, config, source.spec.inputs[0].name, profiles)
    with atomic_path(target) as partial, timing_cache(config, options):
        plan = run_builder(trt, builder, network, config, progress)
        if plan is None:
            raise MsfnetError(
                f"{flavour} cannot build {source.path}: {logger.reason()}; "
                f"{_way_out(logger.reason(), chosen)}"
            )
        partial.write_bytes(plan)
        artifact = EngineArtifact(
            path=target,
            spec=source.spec,
            flavour=flavour,
            version=str(trt.__version__),
            architectures=chosen,
            platform=this_platform(),
            onnx_file=source.path.name,
            onnx_sha256=source.sha256,
            engine_sha256=sha256(partial),
            bytes=partial.stat().st_size,
            build_seconds=round(time.perf_counter() - started, 3),
            built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            options=options.recorded(),
            profiles=profiles,
            types=types,
            blocks={block.name: block.precision for block in source.spec.blocks},
        )
        artifact.write()
    return artifact


def check_request(
    out: str | os.PathLike[str], flavour: Flavour, options: BuildOptions
) -> tuple[Path, tuple[str, ...]]:
    """Return the engine to write and its architectures, before any file is read.

    Raises:
        MsfnetError: another suffix, an unknown flavour, the library is missing, or an option or an
            architecture that the flavour does not support.
    """
    target = _engine_path(out)
    _check_flavour(flavour)
    options.check(flavour)
    load_tensorrt(flavour)
    chosen = choose_architectures(flavour, options.architectures)
    _check_refit(flavour, options, chosen)
    return target, chosen


def _refuse_cpu_pairs(source: OnnxArtifact) -> None:
    """Refuse Q/DQ pairs with zero points, which TensorRT does not have.

    Raises:
        MsfnetError: the model has them.
    """
    calibration = source.spec.calibration
    if calibration is not None and calibration.activations == "uint8":
        raise MsfnetError(
            f"{source.path} was calibrated for CPUs, with zero points that TensorRT does not have; "
            "calibrate the FP32 model for the target tensorrt"
        )


def _leave_out_turing(
    trt: Any, network: Any, source: OnnxArtifact, architectures: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the default architectures that a network can be built for, and report the others.

    TensorRT for RTX 1.7 has no FP32 matrix products for Turing, which pooling of uneven ratio
    becomes.
    """
    products = (
        layer
        for layer in (network.get_layer(i) for i in range(network.num_layers))
        if layer.type == trt.LayerType.MATRIX_MULTIPLY
    )
    others = tuple(name for name in architectures if name != "sm75")
    if not others or others == architectures:
        return architectures
    if all(product.get_output(0).dtype != trt.float32 for product in products):
        return architectures
    _log.warning(
        "%s has FP32 matrix products, which TensorRT for RTX does not build for sm75 (Turing); "
        "the engine is for the other architectures. In FP16 the model builds for all",
        source.path,
    )
    return others


def _way_out(reason: str, architectures: Sequence[str]) -> str:
    """Return what to do when the builder refuses."""
    if "Turing" in reason and len(architectures) > 1:
        others = ",".join(name for name in architectures if name != "sm75")
        return f"leave Turing out (build for {others} only), or convert the model to FP16"
    return "ask for verbose messages to see all of TensorRT's own"


def _check_flavour(flavour: str) -> None:
    if flavour not in MODULES:
        raise MsfnetError(f"unknown flavour {flavour!r}; choose one of {', '.join(MODULES)}")


def _engine_path(out: str | os.PathLike[str]) -> Path:
    target = Path(out)
    if target.suffix not in ENGINE_SUFFIXES:
        raise MsfnetError(f"{target} does not end in {', '.join(ENGINE_SUFFIXES)}; rename it")
    return target


def known_architectures() -> tuple[str, ...]:
    """Return the compute capabilities that TensorRT for RTX builds for, such as ``sm86``.

    Raises:
        MsfnetError: it is not installed.
    """
    names = load_tensorrt("tensorrt-rtx").ComputeCapability.__members__
    return tuple(name.lower() for name in names if name.startswith("SM"))


def choose_architectures(flavour: Flavour, asked: Sequence[str]) -> tuple[str, ...]:
    """Return the architectures to build for.

    Raises:
        MsfnetError: one is unknown, or is not this machine's GPU and the flavour is ``tensorrt``.
    """
    wanted = tuple(dict.fromkeys(name.strip().lower() for name in asked))
    if flavour == "tensorrt":
        here = _architecture_here(f"{flavour} builds for the GPU it runs on")
        if set(wanted) - {here}:
            raise MsfnetError(
                f"tensorrt builds for this machine's GPU, {here}; leave the architectures out, or "
                "use flavour tensorrt-rtx",
                parameter="architectures",
            )
        return (here,)
    known = known_architectures()
    for name in wanted:
        if name not in known:
            raise MsfnetError(
                f"tensorrt-rtx cannot build for {name!r}; choose from {', '.join(known)}",
                parameter="architectures",
            )
    return wanted or _gpu_or_all(known)


def _architecture_here(need: str) -> str:
    try:
        device = open_device()
    except MsfnetError as error:
        raise MsfnetError(f"{need} ({str(error).partition(';')[0]})") from None
    device.close()
    return device.architecture


def _gpu_or_all(known: tuple[str, ...]) -> tuple[str, ...]:
    try:
        here = _architecture_here("")
    except MsfnetError:
        return known
    return (here,) if here in known else known


def _parse(trt: Any, builder: Any, path: Path, logger: Any) -> Any:
    # TensorRT 11 knows strongly typed networks only, and may have no flag for them.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(text_path(path, "TensorRT")):  # weights may lie beside it
        error = parser.get_error(0)
        reason = " ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}".split())
        raise MsfnetError(f"TensorRT cannot read {path}: {reason[:300]}")
    return network


def _check_refit(flavour: Flavour, options: BuildOptions, architectures: Sequence[str]) -> None:
    """Refuse refitting where TensorRT for RTX 1.7 fails.

    It compiles refittable code with the CUDA driver, and for ``REFIT`` one architecture at a time.

    Raises:
        MsfnetError: several architectures, or no GPU here.
    """
    if flavour != "tensorrt-rtx" or not (options.refit or options.strip_weights):
        return
    if options.refit and len(architectures) > 1:
        raise MsfnetError(
            "tensorrt-rtx builds engines that can be refitted for one architecture only, not for "
            f"{', '.join(architectures)}; name one",
            parameter="architectures",
        )
    kind = "that can be refitted" if options.refit else "without weights"
    _architecture_here(f"tensorrt-rtx builds engines {kind} on a GPU only; build a plain engine")


def _count_types(network: Any) -> dict[str, int]:
    """Count the values of each type that the parsed layers compute, with NumPy's names of types."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    types = Counter(layer.get_output(i).dtype for layer in layers for i in range(layer.num_outputs))
    names = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
    return {names.get(kind.name, kind.name.lower()): count for kind, count in types.most_common()}
