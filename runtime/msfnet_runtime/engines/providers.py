"""What can run an ONNX file, and the options it takes: ``cuda:device_id=1,prefer_nhwc=1``.

Precision is the file's own, so options that lower it are set from the spec or refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.spec import ModelSpec

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINO",
}
"""What the user calls it, and what its library does."""

_CUDA = (
    "device_id",
    "gpu_mem_limit",
    "arena_extend_strategy",
    "cudnn_conv_algo_search",
    "cudnn_conv_use_max_workspace",
    "do_copy_in_default_stream",
    "enable_cuda_graph",
    "prefer_nhwc",
    "use_tf32",
)

_TENSORRT = (
    "device_id",
    "trt_auxiliary_streams",
    "trt_build_heuristics_enable",
    "trt_builder_optimization_level",
    "trt_context_memory_sharing_enable",
    "trt_cuda_graph_enable",
    "trt_detailed_build_log",
    "trt_engine_cache_enable",
    "trt_engine_cache_path",
    "trt_engine_cache_prefix",
    "trt_engine_hw_compatible",
    "trt_force_sequential_engine_build",
    "trt_layer_norm_fp32_fallback",
    "trt_max_partition_iterations",
    "trt_max_workspace_size",
    "trt_min_subgraph_size",
    "trt_profile_max_shapes",
    "trt_profile_min_shapes",
    "trt_profile_opt_shapes",
    "trt_timing_cache_enable",
    "trt_timing_cache_path",
)

_OPTIONS = {"cpu": (), "cuda": _CUDA, "tensorrt": _TENSORRT, "openvino": ()}

_PRECISION = ("trt_fp16_enable", "trt_bf16_enable", "trt_int8_enable", "trt_sparsity_enable")


@dataclass(frozen=True)
class Provider:
    """One of :data:`PROVIDERS` with options of its library."""

    name: str = "cpu"
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Provider:
        """Read ``NAME`` or ``NAME:OPTION=VALUE,…``.

        The options are ONNX Runtime's for its CUDA and TensorRT providers, by their own names.
        Values hold no commas; shapes of profiles are for files that name one tensor.

        Raises:
            MsfnetError: an unknown name or option, one without a value, or one that would lower
                the precision.
        """
        name, _, listed = text.partition(":")
        if name not in PROVIDERS:
            raise MsfnetError(f"unknown provider {name!r}; choose one of {', '.join(PROVIDERS)}")
        options: dict[str, str] = {}
        for part in filter(None, listed.split(",")):
            key, _, value = (piece.strip() for piece in part.partition("="))
            if not (key and value):
                raise MsfnetError(
                    f"provider option {part!r} is not NAME=VALUE; write for instance "
                    "cuda:device_id=1"
                )
            if name == "tensorrt" and key in _PRECISION:
                raise MsfnetError(
                    f"{key} would change the precision behind the file's back; leave it out, and "
                    "convert or calibrate the file instead"
                )
            if key not in _OPTIONS[name]:
                known = ", ".join(_OPTIONS[name]) or "it takes none"
                raise MsfnetError(f"{name} has no option {key!r}; known: {known}")
            options[key] = value
        return cls(name, options)

    def library_options(self, spec: ModelSpec) -> dict[str, str]:
        """Return the options as the library takes them for this file, precision settled.

        ONNX Runtime lets CUDA round FP32 products to TF32 unless told otherwise, and TensorRT
        compute FP16 and INT8 files only where that is allowed.
        """
        if self.name == "cuda":
            return {"use_tf32": "0", **self.options}
        if self.name == "tensorrt":
            return {
                "trt_fp16_enable": str(int(spec.precision == "fp16")),
                "trt_int8_enable": str(int(spec.precision == "int8")),
                **self.options,
            }
        return dict(self.options)
