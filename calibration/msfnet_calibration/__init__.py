"""Chooses calibration frames, and makes FP16 and INT8 models from them.

The names are imported when first used: comparing frames needs no onnx.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "convert_fp16": "msfnet_calibration.fp16",
    "quantize_int8": "msfnet_calibration.variants",
    "select_frames": "msfnet_calibration.select",
}

if TYPE_CHECKING:
    from msfnet_calibration.fp16 import convert_fp16
    from msfnet_calibration.select import select_frames
    from msfnet_calibration.variants import quantize_int8

__all__ = ["convert_fp16", "quantize_int8", "select_frames"]


def __getattr__(name: str) -> Any:
    """Import a public name from the file it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module 'msfnet_calibration' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
