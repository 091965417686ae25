"""Runs ONNX files with ONNX Runtime, on the CPU or on a GPU."""

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
from msfnet_runtime.libraries import require, text_path
from msfnet_runtime.onnx_metadata import read_single_spec
from msfnet_runtime.spec import ModelSpec

_SILENT = 4
"""Log fatal errors only: other errors are raised, and reported in one line."""

_COSTLY = ("Conv", "FusedConv", "MatMul", "Gemm", "InstanceNormalization", "Resize")
"""Operators that a GPU provider must not leave to the CPU; scalars and shapes can be."""

_GPU_NEEDS = "install CUDA, cuDNN and, for tensorrt, TensorRT, or choose the provider cpu"


class OnnxRuntimeEngine(EngineBase):
    """One ONNX Runtime session, which several threads can run at once.

    Args:
        path: an ONNX file made by msfnet.
        provider: ``cpu``, ``cuda`` or ``tensorrt`` with its options. CUDA runs the nodes that
            TensorRT cannot.
        threads: worker threads of the CPU provider; 0 lets ONNX Runtime choose.
        profile: prefix of the profile that ONNX Runtime writes when the engine is closed.
            Profiling slows every run.
        spec: the spec of a file that contains none.

    Raises:
        MsfnetError: ONNX Runtime is missing, the file cannot be loaded, or the provider does not
            load here or leaves slow work to the CPU (there is no silent fall-back).
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
        require("onnxruntime")
        import onnxruntime as ort

        file = text_path(path, "ONNX Runtime")
        ort.set_default_logger_severity(_SILENT)
        super().__init__(spec or read_single_spec(path))
        chosen = Provider.parse(provider)
        name = PROVIDERS[chosen.name].label
        if name not in ort.get_available_providers():
            raise MsfnetError(
                f"this ONNX Runtime has no {name}; run `pip install onnxruntime-gpu`, or choose "
                "the provider cpu"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _SILENT
        self._profiled = profile is not None
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, os.fspath(profile)
        # Threads that spin while they wait slow everything else: the video encoder, the reader,
        # and in a benchmark the other models (PyTorch took 36 ms instead of 16).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            self._session = ort.InferenceSession(
                file,
                options,
                providers=_chain(chosen, self._spec),
                enable_fallback=0,  # it would print, and try other providers
            )
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no base class
            raise MsfnetError(
                f"ONNX Runtime cannot load {Path(path)}: {_first_line(error)}; "
                + ("export it again" if chosen.name == "cpu" else _GPU_NEEDS)
            ) from None
        self._provider = self._session.get_providers()[0]
        if self._provider != name:
            raise MsfnetError(
                f"ONNX Runtime could not start {name} here and fell back to {self._provider}; "
                f"{_GPU_NEEDS}"
            )
        self._elsewhere = "" if chosen.name == "cpu" else _elsewhere(self._session, name)
        self._version: str = ort.__version__

    def describe(self) -> str:
        """Name ONNX Runtime's version and the provider in use."""
        return f"ONNX Runtime {self._version} {self._provider}{self._elsewhere}"

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        name = self._spec.inputs[0].name
        try:
            return np.asarray(self._session.run([self._spec.outputs[0].name], {name: batch})[0])
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no base class
            raise MsfnetError(
                f"ONNX Runtime cannot run the model: {_first_line(error)}; export it again"
            ) from None

    def _release(self) -> None:
        if self._profiled:
            self._session.end_profiling()
        del self._session


def _chain(chosen: Provider, spec: ModelSpec) -> list[Any]:
    """Return the providers that ONNX Runtime can use, by priority, with their options."""
    cuda = Provider("cuda", {k: v for k, v in chosen.options.items() if k == "device_id"})
    names = {"cpu": [], "cuda": [chosen], "tensorrt": [chosen, cuda]}[chosen.name]
    return [
        *((PROVIDERS[p.name].label, p.library_options(spec)) for p in names),
        PROVIDERS["cpu"].label,
    ]


def _elsewhere(session: Any, name: str) -> str:
    """Return how many of the graph's nodes other providers run, as text.

    Raises:
        MsfnetError: a slow node is left to the CPU.
    """
    placed: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        placed[part.ep_name] += len(part.get_nodes())
        for node in part.get_nodes() if part.ep_name == PROVIDERS["cpu"].label else ():
            if node.op_type in _COSTLY:
                raise MsfnetError(
                    f"ONNX Runtime would run {node.op_type} {node.name} on the CPU; build an "
                    "engine with `msfnet build` instead, or choose the provider cpu"
                )
    others = [f"{count} nodes by {other}" for other, count in placed.items() if other != name]
    return f" ({', '.join(others)})" if others else ""


def _first_line(error: Exception) -> str:
    """Return the first line of the message, without the name of the C++ function."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.rpartition("&) ")[2]
