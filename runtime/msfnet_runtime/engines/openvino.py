"""Runs ONNX files with OpenVINO on the CPU, computed in FP32.

INT8 files produce the depth that their Q/DQ pairs define, but without the speed of INT8: OpenVINO's
own INT8 transformations (2026.4) changed the depth of a light MSFNet by 2.6 % at the median and
13 % at the 99th percentile from ONNX Runtime's output, seven times the effect of INT8 itself.
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
from msfnet_runtime.libraries import require
from msfnet_runtime.onnx_metadata import read_single_spec
from msfnet_runtime.spec import ModelSpec


class OpenVinoEngine(EngineBase):
    """One compiled model, which several threads can run at once: each has its own request.

    Args:
        path: an ONNX file made by msfnet.
        threads: worker threads; 0 lets OpenVINO choose.
        profile: time every layer, for :meth:`layer_times`. Profiling slows every run.
        spec: the spec of a file that contains none.

    Raises:
        MsfnetError: OpenVINO is missing, or cannot read the file or run it in FP32.
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
        require("openvino")
        import openvino

        super().__init__(spec or read_single_spec(path))
        # By default it computes in BF16 on processors that can.
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
                f"OpenVINO cannot load {Path(path)}: {_last_line(error)}; choose the provider cpu"
            ) from None
        kept = self._model.get_property("INFERENCE_PRECISION_HINT")
        if kept != openvino.Type.f32:
            raise MsfnetError(f"OpenVINO would compute in {kept}; choose the provider cpu")
        self._requests = threading.local()
        self._version = str(openvino.__version__).partition("-")[0]

    def describe(self) -> str:
        """Return OpenVINO's version, the device, and how INT8 is computed."""
        how = " (INT8 values, computed in FP32)" if self._spec.precision == "int8" else ""
        return f"OpenVINO {self._version} CPU{how}"

    def layer_times(self, batch: NDArray[Any]) -> list[tuple[str, str, float]]:
        """Run one batch; return (name, type, ms) of its layers. Needs ``profile``.

        Raises:
            MsfnetError: as for ``infer``.
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
        try:
            request.infer([batch], share_inputs=True)
            return np.array(request.get_output_tensor(0).data)
        except RuntimeError as error:
            raise MsfnetError(
                f"OpenVINO cannot run the model: {_last_line(error)}; choose the provider cpu"
            ) from None

    def _release(self) -> None:
        del self._model, self._requests


def _last_line(error: Exception) -> str:
    """Return the last line of the message: the first ones name OpenVINO's source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1]
