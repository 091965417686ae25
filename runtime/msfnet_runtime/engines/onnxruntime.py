"""ONNX files through ONNX Runtime: on the CPU, or on a GPU where its provider really loads."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.engine import EngineBase
from msfnet_runtime.engines.providers import PROVIDERS, Provider
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.onnx_metadata import read_single_spec
from msfnet_runtime.spec import ModelSpec

_SILENT = 4
"""Log fatal errors only: what goes wrong is an exception, and said in our own line."""

_COSTLY = ("Conv", "FusedConv", "MatMul", "Gemm", "InstanceNormalization", "Resize")
"""What a GPU's provider must not leave to the CPU; scalars and shapes may be."""


_GPU_NEEDS = "install the CUDA, cuDNN and, for tensorrt, TensorRT it needs, or ask for cpu"


class OnnxRuntimeEngine(EngineBase):
    """One ONNX Runtime session, which several threads may run at once.

    Args:
        path: an ONNX file made by msfnet.
        provider: ``cpu``, ``cuda`` or ``tensorrt``, the latter two with ONNX Runtime's options
            (:meth:`~msfnet_runtime.engines.providers.Provider.parse`). What TensorRT leaves,
            CUDA runs.
        threads: worker threads of the CPU provider; 0 leaves the choice to ONNX Runtime.
        profile: where ONNX Runtime's profile is written when the engine is closed; the name
            begins so. It slows every run.
        spec: of a file that does not carry one.

    Raises:
        MsfnetError: ONNX Runtime is missing, the file cannot be loaded, or the provider asked
            for does not load here or leaves the CPU work that costs time (there is no silent
            fall-back).
    """

    thread_safe = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        provider: str = "cpu",
        threads: int = 0,
        profile: Path | None = None,
        spec: ModelSpec | None = None,
    ) -> None:
        ort = _library()
        ort.set_default_logger_severity(_SILENT)
        super().__init__(spec or read_single_spec(path))
        wanted = Provider.parse(provider)
        name = PROVIDERS[wanted.name]
        _require(name, ort.get_available_providers())
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _SILENT
        self._profiled = profile is not None
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, os.fspath(profile)
        # Threads that spin while they wait slow whatever else runs: the video encoder, the reader,
        # and in a comparison the other models (PyTorch took 36 ms instead of 16).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            self._session = ort.InferenceSession(
                os.fspath(path),
                options,
                providers=_chain(wanted, self._spec),
                enable_fallback=0,  # which would print, and try the others
            )
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no base class
            raise MsfnetError(
                f"ONNX Runtime cannot load {Path(path)}: {_first_line(error)}; "
                + ("export it again" if wanted.name == "cpu" else _GPU_NEEDS)
            ) from None
        self._provider = self._session.get_providers()[0]
        if self._provider != name:
            raise MsfnetError(
                f"ONNX Runtime could not start {name} here and fell back to {self._provider}; "
                f"{_GPU_NEEDS}"
            )
        self._elsewhere = "" if wanted.name == "cpu" else _elsewhere(self._session, name)
        self._version: str = ort.__version__

    def describe(self) -> str:
        """Name ONNX Runtime's version and the provider in use."""
        return f"ONNX Runtime {self._version} {self._provider}{self._elsewhere}"

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        name = self._spec.inputs[0].name
        return np.asarray(self._session.run([self._spec.outputs[0].name], {name: batch})[0])

    def _release(self) -> None:
        if self._profiled:
            self._session.end_profiling()
        del self._session


def _library() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MsfnetError(
            "ONNX Runtime is not installed; run `pip install 'msfnet[ort]'`"
        ) from None
    return onnxruntime


def _require(name: str, available: list[str]) -> None:
    if name not in available:
        raise MsfnetError(
            f"this ONNX Runtime has no {name}; run `pip install onnxruntime-gpu`, or ask for cpu"
        )


def _chain(wanted: Provider, spec: ModelSpec) -> list[Any]:
    """Return the providers ONNX Runtime may use, first choice first, with their options."""
    cuda = Provider("cuda", {k: v for k, v in wanted.options.items() if k == "device_id"})
    names = {"cpu": [], "cuda": [wanted], "tensorrt": [wanted, cuda]}[wanted.name]
    return [*((PROVIDERS[p.name], p.library_options(spec)) for p in names), PROVIDERS["cpu"]]


def _elsewhere(session: Any, name: str) -> str:
    """Say how many of the graph's nodes another provider runs.

    Raises:
        MsfnetError: one that costs time is left to the CPU.
    """
    placed: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        placed[part.ep_name] += len(part.get_nodes())
        for node in part.get_nodes() if part.ep_name == PROVIDERS["cpu"] else ():
            if node.op_type in _COSTLY:
                raise MsfnetError(
                    f"ONNX Runtime would run {node.op_type} {node.name} on the CPU; build an "
                    "engine with `msfnet build` instead, or ask for cpu"
                )
    others = [f"{count} nodes by {other}" for other, count in placed.items() if other != name]
    return f" ({', '.join(others)})" if others else ""


def _first_line(error: Exception) -> str:
    """Return what went wrong, without the C++ function that says so."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.rpartition("&) ")[2]
