"""Lists what can run an ONNX file, and the options it accepts: ``cuda:device_id=1``.

The file determines the precision, so options that change it are set from the spec or refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.spec import ModelSpec

_CUDA = """
    device_id gpu_mem_limit arena_extend_strategy cudnn_conv_algo_search
    cudnn_conv_use_max_workspace do_copy_in_default_stream enable_cuda_graph prefer_nhwc use_tf32
"""

_TENSORRT = """
    device_id trt_auxiliary_streams trt_build_heuristics_enable trt_builder_optimization_level
    trt_context_memory_sharing_enable trt_cuda_graph_enable trt_detailed_build_log
    trt_engine_cache_enable trt_engine_cache_path trt_engine_cache_prefix trt_engine_hw_compatible
    trt_force_sequential_engine_build trt_layer_norm_fp32_fallback trt_max_partition_iterations
    trt_max_workspace_size trt_min_subgraph_size trt_profile_max_shapes trt_profile_min_shapes
    trt_profile_opt_shapes trt_timing_cache_enable trt_timing_cache_path
"""

_PRECISION = ("trt_fp16_enable", "trt_bf16_enable", "trt_int8_enable", "trt_sparsity_enable")


@dataclass(frozen=True)
class _Kind:
    """A provider: its name in its library, and its options."""

    label: str
    options: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    """Options that would change the precision."""


@dataclass(frozen=True)
class Provider:
    """One of :data:`PROVIDERS` with options of its library."""

    name: str = "cpu"
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Provider:
        """Read ``NAME`` or ``NAME:OPTION=VALUE,…``.

        The options are those of ONNX Runtime's CUDA and TensorRT providers. A value contains no
        comma; shapes of profiles are possible for files with a single named tensor.

        Raises:
            MsfnetError: an unknown name or option, an option without a value, or one that would
                change the precision.
        """
        name, _, listed = text.partition(":")
        if name not in PROVIDERS:
            known = ", ".join(PROVIDERS)
            raise MsfnetError(
                f"unknown provider {name!r}; choose one of {known}", parameter="provider"
            )
        kind = PROVIDERS[name]
        options: dict[str, str] = {}
        for part in filter(None, listed.split(",")):
            key, _, value = (piece.strip() for piece in part.partition("="))
            if not (key and value):
                raise MsfnetError(
                    f"provider option {part!r} is not NAME=VALUE; write for example "
                    "cuda:device_id=1"
                )
            if key in kind.refused:
                raise MsfnetError(
                    f"{key} would override the model's precision; leave it out, and convert or "
                    "calibrate the file instead"
                )
            if key not in kind.options:
                known = ", ".join(kind.options)
                raise MsfnetError(
                    f"{name} has no option {key!r}; "
                    + (f"known options: {known}" if known else "it takes no options")
                )
            options[key] = value
        return cls(name, options)

    def library_options(self, spec: ModelSpec) -> dict[str, str]:
        """Return the options for the library, with those that follow from the file's precision.

        By default ONNX Runtime lets CUDA round FP32 products to TF32, and lets TensorRT compute
        FP16 and INT8 files in those types only if the options allow it.
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


PROVIDERS: dict[str, _Kind] = {
    "cpu": _Kind("CPUExecutionProvider"),
    "cuda": _Kind("CUDAExecutionProvider", tuple(_CUDA.split())),
    "tensorrt": _Kind("TensorrtExecutionProvider", tuple(_TENSORRT.split()), _PRECISION),
    "openvino": _Kind("OpenVINO"),
}
"""All providers by name. A new engine for ONNX files adds a row, and its opener in
:func:`msfnet_runtime.engines.open_engine`."""
