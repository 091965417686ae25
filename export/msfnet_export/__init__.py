"""Turns checkpoints into ONNX files and ONNX files into engines.

Building an engine needs neither torch nor onnx; the other names are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from msfnet_export.build_engine import build_engine  # now: its file has the same name
from msfnet_runtime.threads import sleep_while_waiting

sleep_while_waiting()  # before anything imports torch

_HOMES = {
    "ExportReport": "msfnet_export.to_onnx",
    "export_checkpoint": "msfnet_export.to_onnx",
    "export_network": "msfnet_export.to_onnx",
}

if TYPE_CHECKING:
    from msfnet_export.to_onnx import ExportReport, export_checkpoint, export_network

__all__ = ["ExportReport", "build_engine", "export_checkpoint", "export_network"]


def __getattr__(name: str) -> Any:
    """Import a public name from the file it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module 'msfnet_export' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
