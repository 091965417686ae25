"""Networks of other projects: ONNX files without a spec, run on random input, engine only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from msfnet_runtime import Engine, ModelSpec, MsfnetError, TensorSpec
from msfnet_runtime.engines.providers import Provider
from msfnet_runtime.files import existing_file
from msfnet_runtime.onnx_metadata import read_onnx_metadata
from msfnet_runtime.spec import METADATA_KEY

PROVIDERS = ("cpu", "cuda", "openvino")
"""Providers that run peers; TensorRT's needs their precision, which only a spec names."""

_TYPES = ("float32", "float16", "uint8")


def peer_spec(path: Path) -> ModelSpec:
    """Return a file's inputs and outputs, in place of the spec that it does not carry.

    Only inputs, outputs and size are facts; its preparation of frames and its depth are unknown.

    Raises:
        MsfnetError: no such file, no ONNX file, one of ours, several inputs, or an input that is
            no image of fixed height and width.
    """
    import onnx

    file = existing_file(path, "peer")
    if METADATA_KEY in read_onnx_metadata(file):
        raise MsfnetError(f"{file} was made by msfnet; name it among the models, not as a peer")
    graph = onnx.load(str(file), load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [_tensor(value) for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].dtype not in _TYPES:
        raise MsfnetError(
            f"{file} does not take one image; a peer must have one input of 4 dimensions"
        )
    sides = inputs[0].shape[1:]
    if not all(isinstance(side, int) for side in sides):
        raise MsfnetError(f"{file} takes images of any size; export it at the size to be timed")
    height, width = (int(side) for side in (sides[:2] if sides[2] == 3 else sides[1:]))
    first, *others = (_tensor(value) for value in graph.output)
    return ModelSpec(
        graph="network",
        inputs=(inputs[0],),
        outputs=(replace(first, role="depth"), *others),
        size=(height, width),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        depth_kind="metric",
        depth_range_m=(0.1, 100.0),
        dataset="unknown",
        encoder="unknown",
    )


def open_peer(path: Path, *, provider: str = "cpu", threads: int = 0) -> Engine:
    """Open a file of another project as an engine.

    Args:
        path: ONNX file.
        provider: of :data:`PROVIDERS`, options as :func:`~msfnet_runtime.open_engine` takes them.
        threads: CPU threads; 0 leaves the choice to the library.

    Raises:
        MsfnetError: as :func:`peer_spec` and the engines, or a provider that runs no peers.
    """
    chosen, spec = Provider.parse(provider).name, peer_spec(path)
    if chosen not in PROVIDERS:
        raise MsfnetError(
            f"the provider {chosen} runs no peers; choose one of {', '.join(PROVIDERS)}"
        )
    if chosen == "openvino":
        from msfnet_runtime.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(path, threads=threads, spec=spec)
    from msfnet_runtime.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(path, provider=provider, threads=threads, spec=spec)


def _tensor(value: Any) -> TensorSpec:
    import onnx

    kind = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in kind.shape.dim
    )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return TensorSpec(value.name, np.dtype(dtype).name, shape)
