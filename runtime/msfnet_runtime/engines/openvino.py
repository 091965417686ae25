"""ONNX files through OpenVINO on the CPU, computed in FP32.

INT8 files give the depth their Q/DQ pairs say, without INT8's speed: OpenVINO's own INT8
transformations (2026.4) moved the depth of a light MSFNet by 2.6 % at the median and 13 % at the
99th percentile from ONNX Runtime's answer to the same file, seven times what INT8 itself does.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.engine import EngineBase
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.onnx_metadata import read_single_spec
from msfnet_runtime.spec import ModelSpec


class OpenVinoEngine(EngineBase):
    """One compiled model, which several threads may run at once: each has a request of its own.

    Args:
        path: an ONNX file made by msfnet.
        threads: worker threads; 0 leaves the choice to OpenVINO.
        profile: time every layer, for :meth:`layer_times`. It slows every run.
        spec: of a file that does not carry one.

    Raises:
        MsfnetError: OpenVINO is missing, or cannot read the file or run it as it is.
    """

    thread_safe = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int = 0,
        profile: bool = False,
        spec: ModelSpec | None = None,
    ) -> None:
        openvino = _library()
        super().__init__(spec or read_single_spec(path))
        # Left alone it computes in BF16 on processors that can.
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if self._spec.precision == "int8":
            settings["LP_TRANSFORMS_MODE"] = "NO"
        if profile:
            settings["PERF_COUNT"] = "YES"
        if threads:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            self._model = openvino.Core().compile_model(os.fspath(path), "CPU", settings)
        except RuntimeError as error:
            raise MsfnetError(
                f"OpenVINO cannot load {Path(path)}: {_last_line(error)}; run it with "
                "--provider cpu"
            ) from None
        kept = self._model.get_property("INFERENCE_PRECISION_HINT")
        if kept != openvino.Type.f32:
            raise MsfnetError(f"OpenVINO would compute in {kept}; run it with --provider cpu")
        self._requests = threading.local()
        self._version = str(openvino.__version__).partition("-")[0]

    def describe(self) -> str:
        """Name OpenVINO's version, the device, and how INT8 is computed."""
        how = " (INT8 values, computed in FP32)" if self._spec.precision == "int8" else ""
        return f"OpenVINO {self._version} CPU{how}"

    def layer_times(self, batch: NDArray[Any]) -> list[tuple[str, str, float]]:
        """Run one batch of an engine opened to profile; return (name, type, ms) of its layers.

        Raises:
            MsfnetError: as ``infer``.
        """
        self.infer(batch)
        return [
            (layer.node_name, layer.node_type, layer.real_time.total_seconds() * 1e3)
            for layer in self._requests.request.get_profiling_info()
            if layer.real_time
        ]

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        request = getattr(self._requests, "request", None)
        if request is None:
            request = self._requests.request = self._model.create_infer_request()
        request.infer([batch], share_inputs=True)
        return np.array(request.get_output_tensor(0).data)

    def _release(self) -> None:
        del self._model, self._requests


def _library() -> Any:
    try:
        import openvino
    except ImportError:
        raise MsfnetError(
            "OpenVINO is not installed; run `pip install 'msfnet[openvino]'`"
        ) from None
    return openvino


def _last_line(error: Exception) -> str:
    """Return where OpenVINO's chain of checks ends: its first lines name its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1]
