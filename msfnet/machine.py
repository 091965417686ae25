"""Finds out what is installed on this machine, what works, and what can be done here."""

from __future__ import annotations

import base64
import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from msfnet_benchmarks.machine import library_versions, query_gpus
from msfnet_benchmarks.tables import format_pairs
from msfnet_runtime import MsfnetError
from msfnet_runtime.typed import to_json

_LIBRARIES = (
    *("msfnet", "numpy", "opencv-python-headless", "opencv-python", "av"),
    *("torch", "timm", "lightning", "onnx", "onnxscript", "onnxsim"),
    *("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx"),
    *("cuda-python", "cuda-bindings", "pycuda"),
)

_NEEDED = {
    "train": (("torch", "timm", "lightning"), "train"),
    "export": (("torch", "onnx", "onnxscript", "onnxruntime"), "export"),
    "calibrate": (("onnx", "onnxruntime"), "export"),
    "write video": (("av",), "video"),
    "serve the live page": (("starlette", "uvicorn"), "web"),
}
"""What each stage imports, and the extra that brings it."""

_TRY_SECONDS = 60

_TRY = """
import base64, sys, numpy, onnxruntime
onnxruntime.set_default_logger_severity(4)
session = onnxruntime.InferenceSession(
    base64.b64decode(sys.argv[2]), providers=[sys.argv[1]], enable_fallback=0
)
(answer,) = session.run(None, {"x": numpy.full((1, 1, 2, 2), 3, numpy.float32)})
sys.exit(0 if session.get_providers()[0] == sys.argv[1] and (answer == 6).all() else 3)
"""
"""Runs in a separate process, which an unsuitable provider may crash."""

_MODEL = base64.b64decode(
    "CAgSADpjCg8KAXgKAXcSAXkiBENvbnYSAWcqEwgBCAEIAQgBEAFCAXdKBAAAAEBaGwoBeBIWChQIARIQCgIIAQoCCAEK"
    "AggCCgIIAmIbCgF5EhYKFAgBEhAKAggBCgIIAQoCCAIKAggCQgQKABAS"
)
"""An ONNX file: y = 2 x by a convolution of one pixel, 1x1x2x2 float32, opset 18."""


@dataclass(frozen=True)
class Machine:
    """The libraries and devices of a machine, and what they allow."""

    facts: tuple[tuple[str, str], ...]
    """Libraries, GPUs, providers, by name."""
    abilities: tuple[tuple[str, str], ...]
    """What can be done: ``yes`` and how, or ``no`` and the command that changes it."""

    def text(self) -> str:
        """Return both as one table each."""
        return f"{format_pairs(self.facts)}\n\nThis machine can\n{format_pairs(self.abilities)}"

    def to_json(self) -> str:
        """Return both as one JSON object."""
        return to_json({"facts": dict(self.facts), "can": dict(self.abilities)})


def describe_machine() -> Machine:
    """Find out what is installed; providers are tried on a small model."""
    providers, gpu = dict(_providers()), _architecture()
    devices = _openvino_devices()
    versions = library_versions(_LIBRARIES)
    facts = (
        ("python", f"{platform.python_version()} on {sys.platform}-{platform.machine()}"),
        *((name, versions.get(name, "-")) for name in _LIBRARIES),
        ("GPUs", _gpus()),
        ("CUDA through " + _binding(), gpu),
        *((f"ONNX Runtime {name}", state) for name, state in providers.items()),
        ("OpenVINO devices", devices or "-"),
        ("trtexec", shutil.which("trtexec") or "-"),
        ("tensorrt_rtx", shutil.which("tensorrt_rtx") or "-"),
    )
    stages = tuple((stage, _stage(*needed)) for stage, needed in _NEEDED.items())
    running = "; ".join(_running(providers, devices, gpu.startswith("sm")))
    building = "; ".join(_building(gpu))
    last = (
        ("build engines", building or "no: pip install 'msfnet[tensorrt-rtx]'"),
        ("run", running or "no: pip install 'msfnet[ort]'"),
    )
    return Machine(facts, (*stages, *last))


def _stage(modules: tuple[str, ...], extra: str) -> str:
    missing = [name for name in modules if not _has(name)]
    return f"no: pip install 'msfnet[{extra}]' ({', '.join(missing)})" if missing else "yes"


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # made impossible to import
        return False


def _providers() -> Iterator[tuple[str, str]]:
    """Yield ONNX Runtime's providers, each tried on a model of one convolution."""
    if not _has("onnxruntime"):
        return
    import onnxruntime

    for name in onnxruntime.get_available_providers():
        yield str(name), _try(str(name))


def _try(provider: str) -> str:
    command = [sys.executable, "-c", _TRY, provider, base64.b64encode(_MODEL).decode()]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TRY_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"does not answer within {_TRY_SECONDS} s"
    return "runs" if done.returncode == 0 else "does not load here"


def _gpus() -> str:
    """Return names, compute capabilities, memory and driver."""
    gpus, reason = query_gpus()
    names = ("GPU", "GPU compute capability", "GPU memory", "GPU driver")
    line = "{}, compute capability {}, {}, driver {}"
    found = (line.format(*(gpu.get(name, "?") for name in names)) for gpu in gpus)
    return "; ".join(found) or f"none ({reason})"


def _binding() -> str:
    return "cuda-python" if _has("cuda") else "PyCUDA" if _has("pycuda") else "cuda-python"


def _architecture() -> str:
    from msfnet_runtime.cuda.device import open_device

    try:
        device = open_device()
    except MsfnetError as error:
        return f"none: {str(error).partition('; run the')[0]}"
    device.close()
    return device.architecture


def _openvino_devices() -> str:
    if not _has("openvino"):
        return ""
    import openvino

    return ", ".join(openvino.Core().available_devices)


def _running(providers: dict[str, str], devices: str, gpu: bool) -> Iterator[str]:
    works = [name for name, state in providers.items() if state == "runs"]
    if works:
        yield f"ONNX files by {', '.join(works)}"
    if devices:
        yield "ONNX files by OpenVINO"
    for flavour, module in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")):
        if gpu and _has(module):
            yield f"{flavour} engines"


def _building(gpu: str) -> Iterator[str]:
    if _has("tensorrt_rtx"):
        from msfnet_export.build_engine import known_architectures

        yield f"tensorrt-rtx: {', '.join(known_architectures())}"
    if _has("tensorrt"):
        yield f"tensorrt: {gpu}"
