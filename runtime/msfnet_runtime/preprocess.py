"""Converts frames to model inputs, and model outputs to depth.

``deploy`` graphs contain the same arithmetic (``msfnet_export.to_onnx``); a test compares the two.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.types import check_image
from msfnet_runtime.words import shape_text


def prepare(image: NDArray[np.uint8], spec: ModelSpec) -> NDArray[Any]:
    """Convert an image to the input batch of a model.

    Args:
        image: (H, W, 3) uint8 RGB, any size.
        spec: the model's spec.

    Returns:
        ``network``: (1, 3, h, w) float32, normalised; resized bilinearly with half-pixel centres
        and no antialiasing. ``deploy``: (1, H', W', 3) uint8 at the graph's frame size.

    Raises:
        MsfnetError: not an (H, W, 3) uint8 image, or the spec asks for what is not supported.
    """
    check_image(image)
    spec.check_supported()
    if spec.graph == "deploy":
        return resize_bilinear(image, frame_size(spec))[None]
    resized = resize_bilinear(image.astype(np.float32), spec.size)
    mean, std = (np.asarray(values, np.float32) * 255 for values in (spec.mean, spec.std))
    return np.ascontiguousarray(((resized - mean) / std).transpose(2, 0, 1)[None])


def finish(
    output: NDArray[np.float32], size: tuple[int, int], spec: ModelSpec
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Convert the output of a model to metric depth at the frame's size.

    Args:
        output: (1, 1, h, w) float32: the raw prediction (``network``) or metres (``deploy``).
        size: (H, W) of the frame.
        spec: the model's spec.

    Returns:
        Depth (H, W) float32 in metres, and (H, W) bool: finite and positive.

    Raises:
        MsfnetError: the output is not one map of floating-point numbers.
    """
    if output.ndim != 4 or output.shape[:2] != (1, 1) or output.dtype.kind != "f":
        raise MsfnetError(
            f"the model's output is {shape_text(output.shape)} {output.dtype}, not one map of "
            "floating-point numbers; export the model again"
        )
    values = np.asarray(output[0, 0], np.float32)
    if spec.graph == "network":
        values = to_metres(values, spec)
    values = resize_bilinear(values, size)
    return values, np.isfinite(values) & (values > 0)


def to_metres(prediction: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.float32]:
    """Clamp a raw prediction to the model's range and convert it to metres.

    Inverse depth is clamped before the reciprocal, to avoid a division by zero.
    """
    clamped = np.clip(prediction, *spec.prediction_range)
    return clamped if spec.depth_kind == "metric" else np.float32(spec.inverse_scale) / clamped


def frame_size(spec: ModelSpec) -> tuple[int, int]:
    """Return the (height, width) of a deploy graph's input frames, pixels."""
    _, height, width, _ = spec.inputs[0].shape
    return int(height), int(width)


def resize_bilinear(array: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize (H, W[, C]) to ``size`` = (height, width): half-pixel centres, no antialiasing."""
    height, width = size
    if array.shape[:2] == (height, width):
        return array
    return np.asarray(cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR))
