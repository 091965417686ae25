"""Finds out what is installed on this machine, what works, and what can be done here."""

from __future__ import annotations

import base64
import json
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Timer

from msfnet import needs
from msfnet_benchmarks.machine import library_versions, query_gpus
from msfnet_benchmarks.tables import format_pairs
from msfnet_runtime import MsfnetError
from msfnet_runtime.engines.tensorrt import MODULES
from msfnet_runtime.libraries import LIBRARIES, install_command, is_installed, why_not
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.typed import to_json

_BASE = ("msfnet", "numpy", "opencv-python-headless", "opencv-python")

_PACKAGES = {
    "av": ("av",),
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "timm": ("timm",),
    "lightning": ("lightning",),
    "tensorboard": ("tensorboard",),
    "onnx": ("onnx",),
    "onnx_ir": ("onnx-ir",),
    "onnxscript": ("onnxscript",),
    "onnxsim": ("onnxsim",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt-rtx",),
    "cuda.bindings": ("cuda-python", "cuda-bindings"),
    "pycuda": ("pycuda",),
    "matplotlib": ("matplotlib",),
    "plotly": ("plotly",),
    "h5py": ("h5py",),
    "scipy": ("scipy",),
    "starlette": ("starlette",),
    "uvicorn": ("uvicorn",),
    "websockets": ("websockets",),
    "prometheus_client": ("prometheus-client",),
    "rerun": ("rerun-sdk",),
}
"""The optional libraries that are tried, and the packages that contain each."""

_STAGES = {
    "train": needs.TRAIN,
    "export": needs.EXPORT,
    "calibrate": needs.CALIBRATE,
    "read and write video": needs.VIDEO,
    "draw figures": needs.FIGURES,
    "write reports": needs.REPORT,
    "serve the live page": needs.PAGE,
    "serve metrics": ("prometheus_client",),
    "record for Rerun": ("rerun",),
    "read NYU's labelled set": ("h5py", "scipy"),
}
"""What each stage imports."""

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

_LOAD_SECONDS = 120
"""For one library: PyTorch takes half a minute from a cold disk on a busy machine."""

_LOAD = """
import json, os, sys
report = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.path[:] = json.loads(sys.argv[1])
from msfnet.machine import load_and_ask
for module in sys.argv[2:]:
    print(json.dumps(load_and_ask(module)), file=report, flush=True)
"""
"""Runs in a separate process, which a broken library may end."""

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


@dataclass(frozen=True)
class _Trial:
    """What happened to an optional library when it was loaded."""

    problem: str = ""
    """Why it cannot be used; empty if it loads."""
    answers: tuple[str, ...] = ()
    """What it answers: the providers, devices or architectures that it knows."""


def describe_machine(*, progress: Progress = silent) -> Machine:
    """Find out what is installed and what works: libraries are loaded, providers run a model."""
    trials = _load_all(progress)
    providers = {name: _try(name) for name in trials["onnxruntime"].answers}
    binding = "pycuda" if _only("pycuda", "cuda.bindings") else "cuda.bindings"
    gpu = " ".join(trials[binding].answers) or f"none: {trials[binding].problem}"
    devices = ", ".join(trials["openvino"].answers)
    facts = (
        ("python", f"{platform.python_version()} on {sys.platform}-{platform.machine()}"),
        *_version_rows(trials),
        ("GPUs", _gpus()),
        (f"CUDA through {LIBRARIES[binding].name}", gpu),
        *((f"ONNX Runtime {name}", state) for name, state in providers.items()),
        ("OpenVINO devices", devices or "-"),
        ("trtexec", shutil.which("trtexec") or "-"),
        ("tensorrt_rtx", shutil.which("tensorrt_rtx") or "-"),
    )
    stages = tuple((stage, _stage(modules, trials)) for stage, modules in _STAGES.items())
    running = "; ".join(_running(trials, providers, gpu.startswith("sm")))
    building = "; ".join(_building(trials, gpu))
    last = (
        ("build engines", building or _stage(needs.RTX, trials)),
        ("run", running or _stage(("onnxruntime",), trials)),
    )
    return Machine(facts, (*stages, *last))


def load_and_ask(module: str) -> tuple[str, list[str]]:
    """Load an optional library and ask what it can do here.

    Returns:
        The reason why it cannot be used, empty if it can, and what it answers.
    """
    if problem := why_not(module):
        return str(problem), []
    try:
        return "", _QUESTIONS.get(module, list)()
    except Exception as error:  # noqa: BLE001 - a library can raise anything
        return f"{LIBRARIES[module].name} loads but fails: {' '.join(str(error).split())}", []


def _providers() -> list[str]:
    import onnxruntime

    return [str(name) for name in onnxruntime.get_available_providers()]


def _devices() -> list[str]:
    import openvino

    return [str(name) for name in openvino.Core().available_devices]


def _architectures() -> list[str]:
    from msfnet_export.build_engine import known_architectures

    return list(known_architectures())


def _gpu() -> list[str]:
    from msfnet_runtime.cuda.device import open_device

    try:
        device = open_device()
    except MsfnetError as error:
        return [f"none: {str(error).partition('; run the')[0]}"]
    device.close()
    return [device.architecture]


_QUESTIONS: Mapping[str, Callable[[], list[str]]] = {
    "onnxruntime": _providers,
    "openvino": _devices,
    "tensorrt_rtx": _architectures,
    "cuda.bindings": _gpu,
    "pycuda": _gpu,
}


def _load_all(progress: Progress) -> dict[str, _Trial]:
    """Load every library that is installed, in a process that goes on after one that ends it."""
    trials = {
        module: _Trial(str(why_not(module))) for module in _PACKAGES if not is_installed(module)
    }
    waiting = [module for module in _PACKAGES if module not in trials]
    count = len(waiting)
    while waiting:
        for found in _load(waiting):
            module = waiting.pop(0)
            trials[module] = found
            progress(count - len(waiting), count, module)
    return trials


def _load(modules: Sequence[str]) -> Iterator[_Trial]:
    """Yield what happens to libraries that a new process loads, up to one that ends it."""
    command = [sys.executable, "-c", _LOAD, json.dumps(sys.path), *modules]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        killed = []

        def kill() -> None:
            killed.append(True)
            process.kill()

        assert process.stdout is not None
        for module in modules:
            timer = Timer(_LOAD_SECONDS, kill)
            timer.start()
            line = process.stdout.readline()
            timer.cancel()
            if not line:
                yield _Trial(_ending(module, process.wait(), bool(killed)))
                return
            problem, answers = json.loads(line)
            yield _Trial(problem, tuple(answers))


def _ending(module: str, status: int, killed: bool) -> str:
    """Say how a library ended the process that loaded it."""
    name = LIBRARIES[module].name
    if killed:
        return f"{name} does not finish loading within {_LOAD_SECONDS} s"
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    return f"{name} ends the process that loads it ({how}); reinstall it"


def _version_rows(trials: Mapping[str, _Trial]) -> Iterator[tuple[str, str]]:
    """Yield a row for each package: its version, and why its library does not load."""
    names = [*_BASE, *(name for packages in _PACKAGES.values() for name in packages)]
    versions = library_versions(names)
    for name in _BASE:
        yield name, versions.get(name, "-")
    for module, packages in _PACKAGES.items():
        broken = trials[module].problem if is_installed(module) else ""
        for name in packages:
            version = versions.get(name, "-")
            blamed = broken and (name in versions or not any(p in versions for p in packages))
            yield name, f"{version}: {broken}" if blamed else version


def _stage(modules: Sequence[str], trials: Mapping[str, _Trial]) -> str:
    """Return ``yes``, or ``no`` with the command that changes it or the libraries to repair."""
    unusable = [module for module in modules if trials[module].problem]
    if not unusable:
        return "yes"
    absent = [module for module in unusable if not is_installed(module)]
    if absent:
        return f"no: {install_command(*absent)} ({', '.join(absent)})"
    return f"no: {', '.join(unusable)} cannot be loaded, see above"


def _only(module: str, other: str) -> bool:
    return is_installed(module) and not is_installed(other)


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


def _running(
    trials: Mapping[str, _Trial], providers: Mapping[str, str], gpu: bool
) -> Iterator[str]:
    works = [name for name, state in providers.items() if state == "runs"]
    if works:
        yield f"ONNX files by {', '.join(works)}"
    if trials["openvino"].answers:
        yield "ONNX files by OpenVINO"
    for flavour, module in MODULES.items():
        if gpu and not trials[module].problem:
            yield f"{flavour} engines"


def _building(trials: Mapping[str, _Trial], gpu: str) -> Iterator[str]:
    if known := trials["tensorrt_rtx"].answers:
        yield f"tensorrt-rtx: {', '.join(known)}"
    if not trials["tensorrt"].problem:
        yield f"tensorrt: {gpu}"
