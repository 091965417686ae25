"""INT8 models: Q/DQ pairs around the convolutions that gain by them.

Symmetric signed 8 bits, one scale per output channel of a weight and one per activation; biases
stay in floating point. TensorRT takes the file as it is, as an explicitly quantised network. The
pairs are inserted and the ranges found by ``onnxruntime.quantization``.
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from msfnet_calibration.onnx_files import atomic_model, load_model, save_model
from msfnet_calibration.shapes import annotate
from msfnet_runtime import Frame, MsfnetError, OnnxArtifact, open_engine
from msfnet_runtime.artifacts import EXTERNAL_DATA
from msfnet_runtime.onnx_metadata import read_onnx_spec
from msfnet_runtime.preprocess import prepare
from msfnet_runtime.progress import Progress, silent

Method = Literal["entropy", "minmax", "percentile"]

MIN_CHANNELS = 16
"""Convolutions with fewer input or output channels gain nothing in INT8."""

_HISTOGRAM_BINS = 513
_QUANTIZED_BINS = 127
_PERCENTILE = 99.99


def quantize_int8(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    frames: Sequence[Frame],
    *,
    method: Method = "percentile",
    progress: Progress = silent,
) -> OnnxArtifact:
    """Write an INT8 model, its activation ranges taken from frames.

    Args:
        source: an FP32 ONNX file made by msfnet, either graph.
        target: the ONNX file to write.
        frames: calibration frames; prepared as the model's spec says.
        method: ``entropy`` keeps the range that loses the least information (KL divergence),
            ``percentile`` 99.99 % of the values, ``minmax`` all of them.
        progress: called after every frame.

    Raises:
        MsfnetError: not an FP32 model, nothing in it to quantise, no frames, an unknown method,
            or a quantised model whose answer on the first frame is not finite.
    """
    model, spec = load_model(source), read_onnx_spec(source)
    if spec.precision != "fp32":
        raise MsfnetError(f"{source} is {spec.precision}; calibrate the fp32 model it came from")
    if not frames:
        raise MsfnetError("there are no frames to calibrate on; check --data")
    nodes = quantizable_convolutions(model)
    if not nodes:
        raise MsfnetError(
            f"{source} has no convolution of {MIN_CHANNELS} channels or more; keep it in fp16"
        )
    batches = [prepare(frame.image, spec) for frame in frames]
    noted = replace(spec, precision="int8").with_note(
        "calibration", f"{method}, {len(frames)} frames, {len(nodes)} convolutions"
    )
    with atomic_model(target) as partial:
        with tempfile.TemporaryDirectory() as folder:
            # A copy, since the calibrator writes beside it.
            copy = save_model(model, Path(folder) / "model.onnx", spec)
            ranges = _collect_ranges(copy, model, nodes, batches, method, progress)
        save_model(_insert_pairs(model, nodes, ranges), partial, noted)
        _check_answer(partial, batches[0])
    return OnnxArtifact.read(target)


def quantizable_convolutions(model: onnx.ModelProto) -> list[str]:
    """Return the names of the ungrouped convolutions with enough channels on both sides."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv"
        and min(shapes.get(node.input[1], (0, 0))[:2]) >= MIN_CHANNELS
        and all(a.i == 1 for a in node.attribute if a.name == "group")
    ]


class _Batches:
    """Hands the calibrator one batch and then None, as its reader protocol wants."""

    def __init__(self, name: str, batch: NDArray[Any]) -> None:
        self._feed: dict[str, NDArray[Any]] | None = {name: batch}

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the feed once."""
        feed, self._feed = self._feed, None
        return feed


def _collect_ranges(
    copy: OnnxArtifact,
    model: onnx.ModelProto,
    nodes: Sequence[str],
    batches: Sequence[NDArray[Any]],
    method: Method,
    progress: Progress,
) -> Any:
    """Run the batches one by one, so that only one batch's activations are held at a time."""
    calibrator = _make_calibrator(copy, method)
    wanted = {node.input[0] for node in model.graph.node if node.name in set(nodes)}
    select = calibrator.select_tensors_to_calibrate

    def select_inputs(inferred: onnx.ModelProto) -> tuple[set[str], Any]:
        tensors, infos = select(inferred)
        return tensors & wanted, infos

    calibrator.select_tensors_to_calibrate = select_inputs
    calibrator.augment_graph()
    calibrator.create_inference_session()
    with _quiet():
        for done, batch in enumerate(batches, 1):
            calibrator.collect_data(_Batches(model.graph.input[0].name, batch))
            progress(done, len(batches), "frames")
        return calibrator.compute_data()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from printing and from logging warnings about files we make on purpose."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _make_calibrator(copy: OnnxArtifact, method: Method) -> Any:
    from onnxruntime.quantization import calibrate

    makers: dict[str, tuple[Any, dict[str, Any]]] = {
        "entropy": (
            calibrate.EntropyCalibrater,
            {"num_bins": _HISTOGRAM_BINS, "num_quantized_bins": _QUANTIZED_BINS},
        ),
        "minmax": (calibrate.MinMaxCalibrater, {}),
        "percentile": (
            calibrate.PercentileCalibrater,
            {"num_bins": 2048, "percentile": _PERCENTILE},
        ),
    }
    if method not in makers:
        raise MsfnetError(f"unknown method {method!r}; choose entropy, minmax or percentile")
    make, options = makers[method]
    return make(
        copy.path,
        ["Conv"],
        str(copy.path.with_name("augmented.onnx")),
        symmetric=True,
        use_external_data_format=EXTERNAL_DATA in copy.spec.notes,
        **options,
    )


def _insert_pairs(model: onnx.ModelProto, nodes: Sequence[str], ranges: Any) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    annotate(model)
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=ranges,
        nodes_to_quantize=list(nodes),
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv"],
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": ["Conv"],
        },
    )
    with _quiet():
        quantizer.quantize_model()
    quantizer.model.topological_sort()
    result: onnx.ModelProto = quantizer.model.model
    return result


def _check_answer(path: Path, batch: NDArray[Any]) -> None:
    with open_engine(path) as engine:
        if not np.isfinite(engine.infer(batch)).all():
            raise MsfnetError("the INT8 model's depth is not finite; calibrate on more frames")
