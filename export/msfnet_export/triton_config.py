"""The configuration of a model for Triton Inference Server: ``config.pbtxt``.

Its schema is the message ``ModelConfig`` of Triton's ``model_config.proto``, in protobuf's text
format, which is written here so that protobuf is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from msfnet_runtime import ModelSpec, MsfnetError, TensorSpec

Kind = Literal["gpu", "cpu"]
Platform = Literal["onnxruntime_onnx", "tensorrt_plan"]

SPEC_PARAMETER = "msfnet_spec"
"""The parameter of the configuration that holds the spec's JSON, for clients."""

FILE_NAMES: dict[Platform, str] = {"onnxruntime_onnx": "model.onnx", "tensorrt_plan": "model.plan"}

DEFAULT_MAX_BATCH = 8

_TYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "float32")
"""NumPy's names of the types that Triton knows."""


@dataclass(frozen=True)
class TritonOptions:
    """Options of a server that runs a model."""

    name: str = ""
    """The model's name on the server; the file's name without its suffix if empty."""
    version: int = 1
    max_batch_size: int | None = None
    """Images in one run of a graph whose batch is open; None: 8, or the engine's largest."""
    max_queue_delay_us: int | None = None
    """Microseconds the server may hold a request back to fill a batch."""
    preferred_batch_sizes: tuple[int, ...] = ()
    instances: int = 1
    """Copies of the model on each GPU, or on the CPU."""
    kind: Kind = "gpu"
    gpus: tuple[int, ...] = ()
    """Indices of the GPUs to use; all of them if empty."""
    warmup: bool = True
    """Run a generated frame before the model is reported ready."""


@dataclass(frozen=True)
class Served:
    """A model as the server sees it."""

    name: str
    platform: Platform
    spec: ModelSpec
    max_batch_size: int
    """0: the batch is part of the tensors' shapes, and is fixed."""
    warmup_shape: tuple[int, ...]
    """Shape of the frame that warms the model up, batch of 1 included."""
    profiles: int = 0
    """Optimisation profiles of an engine; 0 for a static one and for ONNX."""

    @property
    def warmup_file(self) -> str:
        """Name of the raw file, in the model's folder ``warmup``, that holds one frame."""
        return f"{self.spec.graph}_input.raw"

    def without_batch(self, shape: Sequence[int | str]) -> Sequence[int | str]:
        """Return a tensor's shape as the server wants it: without the batch that it sets."""
        return shape[1:] if self.max_batch_size else shape


class Symbol(str):
    """A name of the schema, which is not quoted."""

    __slots__ = ()


def config_text(served: Served, options: TritonOptions) -> str:
    """Return ``config.pbtxt``.

    Raises:
        MsfnetError: Triton does not know a tensor's type.
    """
    spec = served.spec
    fields: dict[str, object] = {
        "name": served.name,
        "platform": served.platform,
        "max_batch_size": served.max_batch_size,
        "default_model_filename": FILE_NAMES[served.platform],
        "input": [_tensor(tensor, served) for tensor in spec.inputs],
        "output": [_tensor(tensor, served) for tensor in spec.outputs],
        "instance_group": {
            "count": options.instances,
            "kind": Symbol(f"KIND_{options.kind.upper()}"),
            "gpus": options.gpus or None,
            # The server uses only the first profile unless all are listed.
            "profile": [str(n) for n in range(served.profiles)] if served.profiles > 1 else None,
        },
        "dynamic_batching": {
            "preferred_batch_size": options.preferred_batch_sizes or None,
            "max_queue_delay_microseconds": options.max_queue_delay_us,
        }
        if served.max_batch_size > 1
        else None,
        "model_warmup": _warmups(served) if options.warmup else None,
        "parameters": {"key": SPEC_PARAMETER, "value": {"string_value": spec.to_json()}},
    }
    return "\n".join(_lines(fields, "")) + "\n"


def has_open_batch(spec: ModelSpec) -> bool:
    """Tell whether a graph takes any number of images."""
    return isinstance(spec.inputs[0].shape[0], str)


def check_options(spec: ModelSpec, options: TritonOptions, platform: Platform) -> None:
    """Compare the options with the model.

    Raises:
        MsfnetError: the model cannot follow one of them.
    """
    batching = ("max_batch_size", "max_queue_delay_us", "preferred_batch_sizes")
    asked = [name for name in batching if getattr(options, name) not in (None, ())]
    if asked and not has_open_batch(spec):
        raise MsfnetError(
            f"the model takes a fixed batch of {spec.inputs[0].shape[0]}, so the server cannot "
            "batch requests; export it with an open batch, or leave the batch options out",
            parameter=asked[0],
        )
    if options.kind == "cpu" and platform == "tensorrt_plan":
        raise MsfnetError(
            "an engine runs on a GPU only; choose kind gpu, or use the ONNX file", parameter="kind"
        )
    if options.kind == "cpu" and options.gpus:
        raise MsfnetError("a model on the CPU uses no GPUs; leave them out", parameter="gpus")
    if len(set(options.gpus)) != len(options.gpus):
        raise MsfnetError(
            f"GPUs {options.gpus} name one twice; ask for more instances to have copies",
            parameter="gpus",
        )


def check_batch(served: Served, options: TritonOptions) -> None:
    """Compare the preferred batches with the largest.

    Raises:
        MsfnetError: one is larger, or there is nothing to batch.
    """
    sizes, largest = options.preferred_batch_sizes, served.max_batch_size
    if sizes and not (min(sizes) >= 1 and max(sizes) <= largest):
        raise MsfnetError(
            f"preferred batches {', '.join(map(str, sizes))} must lie between 1 and the largest "
            f"batch, {largest}; change one of them",
            parameter="preferred_batch_sizes",
        )
    if largest == 1 and (sizes or options.max_queue_delay_us is not None):
        raise MsfnetError(
            "a largest batch of 1 leaves nothing to batch; raise it", parameter="max_batch_size"
        )


def type_name(dtype: str) -> str:
    """Return Triton's name of a NumPy type without ``TYPE_``, such as ``FP32``.

    Raises:
        MsfnetError: it has none.
    """
    if dtype not in _TYPES:
        raise MsfnetError(
            f"Triton has no tensors of type {dtype}; export the model with one of "
            f"{', '.join(_TYPES)}"
        )
    return dtype.upper().replace("FLOAT", "FP")


def _tensor(tensor: TensorSpec, served: Served) -> dict[str, object]:
    shape = served.without_batch(tensor.shape)
    return {
        "name": tensor.name,
        "data_type": Symbol(f"TYPE_{type_name(tensor.dtype)}"),
        "dims": [side if isinstance(side, int) else -1 for side in shape],
    }


def _warmups(served: Served) -> list[dict[str, object]]:
    """Return one warm-up with one image, and one with the largest batch.

    The server makes a batch of single requests, so that the file always holds one image.
    """
    image = served.spec.inputs[0]
    value = {
        "data_type": Symbol(f"TYPE_{type_name(image.dtype)}"),
        "dims": served.without_batch(served.warmup_shape),
        "input_data_file": served.warmup_file,
    }
    return [
        {
            "name": f"batch of {count}",
            "batch_size": count,
            "inputs": {"key": image.name, "value": value},
        }
        for count in sorted({1, max(served.max_batch_size, 1)})
    ]


def _lines(message: Mapping[str, object], indent: str) -> Iterator[str]:
    """Yield a message's fields; a list of messages repeats its field, None leaves it out."""
    for name, value in message.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name} {{"
            yield from _lines(value, indent + "  ")
            yield f"{indent}}}"
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for each in value:
                yield from _lines({name: each}, indent)
        elif value is not None:
            yield f"{indent}{name}: {_scalar(value)}"


def _scalar(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, str) and not isinstance(value, Symbol):
        return f'"{_escape(value)}"'
    return str(value)


def _escape(text: str) -> str:
    """Write what is not plain ASCII as octal bytes of UTF-8, as protobuf's text format has it."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return "".join(
        chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in plain.encode("utf-8")
    )
