"""The README of a Triton repository: how to start the server and how to send it frames."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from string import Template

from msfnet_export.triton_config import SPEC_PARAMETER, Served, type_name
from msfnet_runtime import EngineArtifact
from msfnet_runtime.preprocess import frame_size

TITLE = "# Model repository for Triton Inference Server\n"
"""The first line, by which msfnet recognises its own README."""

_METRES = {
    "metric": "depth = np.clip(prediction, low, high)",
    "inverse": 'scale = spec["inverse_scale"]\n'
    "depth = np.float32(scale) / np.clip(prediction, scale / high, scale / low)",
}
"""How a client turns the prediction of a network graph into metres."""


def _fill(template: str, **values: object) -> str:
    """Return a file of the folder ``triton_templates`` with its ``${names}`` replaced."""
    text = (resources.files("msfnet_export") / "triton_templates" / template).read_text("utf-8")
    return Template(text).substitute(values)


def repository_readme(sections: Sequence[str], *, gpu: bool) -> str:
    """Return the README of a repository.

    Args:
        sections: one of each model, as :func:`model_section` writes them.
        gpu: whether one of them runs on a GPU.
    """
    return "\n".join([_fill("repository.md", gpus=" --gpus all" if gpu else ""), *sections])


def model_section(served: Served, engine: EngineArtifact | None) -> str:
    """Return the README's section on one model, with a client that runs."""
    spec = served.spec
    low, high = spec.depth_range_m
    batch = (
        f"The server gathers requests into batches of up to {served.max_batch_size}."
        if served.max_batch_size > 1
        else "One request is one run."
    )
    deploy, metric = spec.graph == "deploy", spec.depth_kind == "metric"
    image = "frame, RGB" if deploy else "image, RGB, normalised"
    inverse = f"inverse depth: {spec.inverse_scale:g} / metres"
    depth = "depth in metres" if deploy or metric else inverse
    rows = [
        f"| `{tensor.name}` | {way} | {type_name(tensor.dtype)} | "
        f"{' x '.join(map(str, tensor.shape))} | {meaning} |"
        for way, tensors, meaning in (
            ("input", spec.inputs, image),
            ("output", spec.outputs, depth),
        )
        for tensor in tensors
    ]
    return _fill(
        "model.md",
        name=served.name,
        what=f"{spec.precision.upper()} {spec.graph} graph, `{served.platform}`.",
        tensors="\n".join(rows),
        low=f"{low:g}",
        high=f"{high:g}",
        dataset=spec.dataset,
        batch=batch,
        parameter=SPEC_PARAMETER,
        needs=_needs(engine),
        client=_client(served),
    )


def _client(served: Served) -> str:
    """Return Python that sends the picture ``frame.png`` and reads metres."""
    spec = served.spec
    height, width = frame_size(spec) if spec.graph == "deploy" else served.warmup_shape[2:]
    return _fill(
        f"client_{spec.graph}.txt",
        name=served.name,
        parameter=SPEC_PARAMETER,
        input=spec.inputs[0].name,
        output=spec.outputs[0].name,
        dtype=type_name(spec.inputs[0].dtype),
        metres=_METRES[spec.depth_kind],
        height=height,
        width=width,
    )


def _needs(engine: EngineArtifact | None) -> str:
    """Return which release of the server loads the model."""
    if engine is None:
        return (
            "Runs on any release of 2025 or later, whose ONNX Runtime knows opset and file format."
        )
    gpus = ", ".join(engine.architectures)
    text = (
        f"Needs a GPU of {gpus} and the release that holds TensorRT {engine.version}: the engine "
        "and the server must share one version (https://docs.nvidia.com/deeplearning/frameworks/"
        "support-matrix). `nvcr.io/nvidia/tensorrt` and `nvcr.io/nvidia/tritonserver` of one "
        "release do; build the engine in the former."
    )
    if engine.options.get("version_compatible"):
        text += (
            " The engine is version compatible: later versions of TensorRT load it if "
            "`tritonserver` runs with `--backend-config=tensorrt,version-compatible=true`."
        )
    return text
