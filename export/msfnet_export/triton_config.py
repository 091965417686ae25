"""The configuration of a model for Triton Inference Server: ``config.pbtxt``.

Its schema is the message ``ModelConfig`` of Triton's ``model_config.proto``, in protobuf's text
format. The few kinds of values needed are written here, so that nothing of protobuf is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from msfnet_runtime import ModelSpec, MsfnetError, TensorSpec

Kind = Literal["gpu", "cpu"]
Platform = Literal["onnxruntime_onnx", "tensorrt_plan"]

SPEC_PARAMETER = "msfnet_spec"
"""The parameter of the configuration that holds the spec's JSON, for clients."""

FILE_NAMES: dict[Platform, str] = {"onnxruntime_onnx": "model.onnx", "tensorrt_plan": "model.plan"}

DEFAULT_MAX_BATCH = 8

_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
}


@dataclass(frozen=True)
class TritonOptions:
    """How a server runs a model."""

    name: str = ""
    """Of the model on the server; the file's own, without its suffix, if empty."""
    version: int = 1
    max_batch_size: int | None = None
    """Images in one run of a graph whose batch is open; None: 8, or what the engine takes."""
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


class Word(str):
    """A name of the schema, which is not quoted."""

    __slots__ = ()


Message = tuple[tuple[str, object], ...]
"""Fields in order: strings, :class:`Word`, numbers, lists of them, and messages."""


def config_text(served: Served, options: TritonOptions) -> str:
    """Return ``config.pbtxt``.

    Raises:
        MsfnetError: a tensor's type is unknown to Triton.
    """
    fields: list[tuple[str, object]] = [
        ("name", served.name),
        ("platform", served.platform),
        ("max_batch_size", served.max_batch_size),
        ("default_model_filename", FILE_NAMES[served.platform]),
    ]
    fields += [("input", _tensor(tensor, served)) for tensor in served.spec.inputs]
    fields += [("output", _tensor(tensor, served)) for tensor in served.spec.outputs]
    fields.append(("instance_group", _instances(served, options)))
    if served.max_batch_size > 1:
        fields.append(("dynamic_batching", _batching(options)))
    if options.warmup:
        fields += [("model_warmup", message) for message in _warmups(served)]
    value = (("string_value", served.spec.to_json()),)
    fields.append(("parameters", (("key", SPEC_PARAMETER), ("value", value))))
    return "\n".join(_lines(tuple(fields), "")) + "\n"


def has_open_batch(spec: ModelSpec) -> bool:
    """Tell whether a graph takes any number of images."""
    return isinstance(spec.inputs[0].shape[0], str)


def check_options(spec: ModelSpec, options: TritonOptions, platform: Platform) -> None:
    """Hold the options against the model.

    Raises:
        MsfnetError: one that the model cannot follow.
    """
    batching = options.max_queue_delay_us is not None or options.preferred_batch_sizes
    if (options.max_batch_size or batching) and not has_open_batch(spec):
        raise MsfnetError(
            f"the model takes a fixed batch of {spec.inputs[0].shape[0]}, so the server cannot "
            "batch requests; export it with `--dynamic batch`, or leave the batch options out"
        )
    if options.kind == "cpu" and platform == "tensorrt_plan":
        raise MsfnetError("an engine runs on a GPU only; use --kind gpu, or give the ONNX file")
    if options.kind == "cpu" and options.gpus:
        raise MsfnetError("--gpus goes with --kind gpu; leave one of the two out")
    if len(set(options.gpus)) != len(options.gpus):
        raise MsfnetError(f"--gpus names a GPU twice: {options.gpus}; use --instances for copies")


def check_batch(served: Served, options: TritonOptions) -> None:
    """Hold the preferred batches against the largest.

    Raises:
        MsfnetError: one is larger, or there is nothing to batch.
    """
    sizes = options.preferred_batch_sizes
    if sizes and not (min(sizes) >= 1 and max(sizes) <= served.max_batch_size):
        raise MsfnetError(
            f"preferred batches {', '.join(map(str, sizes))} must lie between 1 and the largest "
            f"batch, {served.max_batch_size}; change one of them"
        )
    if served.max_batch_size == 1 and (sizes or options.max_queue_delay_us is not None):
        raise MsfnetError("a largest batch of 1 leaves nothing to batch; raise --max-batch-size")


def type_name(dtype: str) -> str:
    """Return Triton's name of a NumPy type, e.g. ``TYPE_FP32``.

    Raises:
        MsfnetError: it has none.
    """
    if dtype not in _TYPES:
        raise MsfnetError(
            f"Triton is not told of tensors of type {dtype}; export the model with one of "
            f"{', '.join(_TYPES)}"
        )
    return _TYPES[dtype]


def _tensor(tensor: TensorSpec, served: Served) -> Message:
    shape = tensor.shape[1:] if served.max_batch_size else tensor.shape
    dims = [side if isinstance(side, int) else -1 for side in shape]
    return (
        ("name", tensor.name),
        ("data_type", Word(type_name(tensor.dtype))),
        ("dims", dims),
    )


def _instances(served: Served, options: TritonOptions) -> Message:
    fields: list[tuple[str, object]] = [
        ("count", options.instances),
        ("kind", Word(f"KIND_{options.kind.upper()}")),
    ]
    if options.gpus:
        fields.append(("gpus", list(options.gpus)))
    if served.profiles > 1:  # the server uses the first one only unless told
        fields.append(("profile", [str(index) for index in range(served.profiles)]))
    return tuple(fields)


def _batching(options: TritonOptions) -> Message:
    fields: list[tuple[str, object]] = []
    if options.preferred_batch_sizes:
        fields.append(("preferred_batch_size", list(options.preferred_batch_sizes)))
    if options.max_queue_delay_us is not None:
        fields.append(("max_queue_delay_microseconds", options.max_queue_delay_us))
    return tuple(fields)


def _warmups(served: Served) -> Iterator[Message]:
    """Yield one warm-up with one image, and one with the largest batch.

    The server makes a batch of single requests, so that the file always holds one image.
    """
    image = served.spec.inputs[0]
    shape = served.warmup_shape[1:] if served.max_batch_size else served.warmup_shape
    value = (
        ("data_type", Word(type_name(image.dtype))),
        ("dims", list(shape)),
        ("input_data_file", warmup_file(served.spec)),
    )
    for count in sorted({1, max(served.max_batch_size, 1)}):
        yield (
            ("name", f"batch of {count}"),
            ("batch_size", count),
            ("inputs", (("key", image.name), ("value", value))),
        )


def warmup_file(spec: ModelSpec) -> str:
    """Return the name of the raw file, in the model's folder ``warmup``, that holds one frame."""
    return f"{spec.graph}_input.raw"


def _lines(message: Message, indent: str) -> Iterator[str]:
    for name, value in message:
        if isinstance(value, tuple):
            yield f"{indent}{name} {{"
            yield from _lines(value, indent + "  ")
            yield f"{indent}}}"
        else:
            yield f"{indent}{name}: {_scalar(value)}"


def _scalar(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, str) and not isinstance(value, Word):
        return f'"{_escape(value)}"'
    return str(value)


def _escape(text: str) -> str:
    """Write what is not plain ASCII as octal bytes of UTF-8, as protobuf's text format has it."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return "".join(
        chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in plain.encode("utf-8")
    )
