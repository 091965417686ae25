"""The README of a Triton repository: how to start the server and how to send it frames."""

from __future__ import annotations

from collections.abc import Sequence

from msfnet_export.triton_config import SPEC_PARAMETER, Served, type_name
from msfnet_runtime import EngineArtifact
from msfnet_runtime.preprocess import frame_size

_RELEASE = "26.10"
"""The server's release to start, unless a model needs another one."""

TITLE = "# Model repository for Triton Inference Server\n"
"""The first line, by which msfnet recognises its own README."""

_HEADER = """\
{title}
Written by `msfnet triton`, which rewrites this file whenever a model is added.

## Start the server

In this folder; 8000 is HTTP, 8001 gRPC, 8002 metrics:

```
TRITON={release}  # some models below may need another release
docker run --rm{gpus} -p 8000:8000 -p 8001:8001 -p 8002:8002 \\
    -v "$PWD":/models:ro nvcr.io/nvidia/tritonserver:$TRITON-py3 \\
    tritonserver --model-repository=/models
```

It is ready when this prints 200:

```
curl -s -o /dev/null -w '%{{http_code}}\\n' localhost:8000/v2/health/ready
```

The Python examples need `pip install 'tritonclient[grpc]' opencv-python-headless`.
"""

_SECTION = """\
## {name}

{what}

| tensor | | type | shape | |
| --- | --- | --- | --- | --- |
{tensors}

Depths between {low:g} and {high:g} m; trained on {dataset}. {batch}
The parameter `{parameter}` of the configuration holds the model's whole spec as JSON.

{needs}

```
curl -s localhost:8000/v2/models/{name}/config
```

```python
{client}```
"""

_CLIENT = """\
import json

import cv2
import numpy as np
import tritonclient.grpc as grpc

client = grpc.InferenceServerClient("localhost:8001")
config = client.get_model_config("{name}", as_json=True)["config"]
spec = json.loads(config["parameters"]["{parameter}"]["string_value"])

frame = cv2.cvtColor(cv2.imread("frame.png"), cv2.COLOR_BGR2RGB)  # (H, W, 3) uint8, RGB
{prepare}
image = grpc.InferInput("{input}", batch.shape, "{dtype}")
image.set_data_from_numpy(batch)
answer = client.infer("{name}", [image], outputs=[grpc.InferRequestedOutput("{output}")])
{finish}
low, high = spec["depth_range_m"]
print(f"{{depth.min():.2f}} to {{depth.max():.2f}} m; the model answers {{low:g}} to {{high:g}} m")
"""

_PREPARE = {
    "deploy": """\
batch = cv2.resize(frame, ({width}, {height}))[np.newaxis]  # (1, {height}, {width}, 3) uint8
""",
    "network": """\
mean, std = (255 * np.asarray(spec[key], np.float32) for key in ("mean", "std"))
resized = cv2.resize(frame.astype(np.float32), ({width}, {height}))
batch = np.ascontiguousarray(((resized - mean) / std).transpose(2, 0, 1)[np.newaxis])
""",
}

_FINISH = {
    "deploy": """\
depth = answer.as_numpy("{output}")[0, 0]  # ({height}, {width}) float32, metres
""",
    "network": """\
prediction = answer.as_numpy("{output}")[0, 0]
low, high = spec["depth_range_m"]
{metres}
depth = cv2.resize(depth, frame.shape[1::-1])  # (H, W) float32, metres
""",
}

_METRES = {
    "metric": "depth = np.clip(prediction, low, high)",
    "inverse": 'scale = spec["inverse_scale"]\n'
    "depth = np.float32(scale) / np.clip(prediction, scale / high, scale / low)",
}


def repository_readme(sections: Sequence[str], *, gpu: bool) -> str:
    """Return the README of a repository.

    Args:
        sections: one of each model, as :func:`model_section` writes them.
        gpu: whether one of them runs on a GPU.
    """
    header = _HEADER.format(title=TITLE, release=_RELEASE, gpus=" --gpus all" if gpu else "")
    return "\n".join([header, *sections])


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
    return _SECTION.format(
        name=served.name,
        what=f"{spec.precision.upper()} {spec.graph} graph, `{served.platform}`.",
        tensors="\n".join(rows),
        low=low,
        high=high,
        dataset=spec.dataset,
        batch=batch,
        parameter=SPEC_PARAMETER,
        needs=_needs(engine),
        client=client_code(served),
    )


def client_code(served: Served) -> str:
    """Return Python that sends the picture ``frame.png`` and reads metres."""
    spec = served.spec
    height, width = frame_size(spec) if spec.graph == "deploy" else served.warmup_shape[2:]
    values = {
        "name": served.name,
        "parameter": SPEC_PARAMETER,
        "input": spec.inputs[0].name,
        "output": spec.outputs[0].name,
        "dtype": type_name(spec.inputs[0].dtype),
        "metres": _METRES[spec.depth_kind],
        "height": height,
        "width": width,
    }
    prepare, finish = (part[spec.graph].format(**values) for part in (_PREPARE, _FINISH))
    return _CLIENT.format(**values, prepare=prepare, finish=finish)


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
