"""The front door of msfnet: the public names of its rooms, each imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOMS = {
    "msfnet_runtime": (
        *("CameraIntrinsics", "DepthEstimator", "DepthMap", "Frame", "ModelSpec", "MsfnetError"),
        "open_engine",
    ),
    "msfnet_benchmarks.scoring": ("PROTOCOLS", "depth_metrics"),
    "msfnet_calibration": ("convert_fp16", "quantize_int8"),
    "msfnet_train": ("MSFNet", "NetworkConfig", "load_checkpoint"),
    "msfnet_export": ("build_engine", "export_network"),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}

if TYPE_CHECKING:
    from msfnet_benchmarks.scoring import PROTOCOLS, depth_metrics
    from msfnet_calibration import convert_fp16, quantize_int8
    from msfnet_export import build_engine, export_network
    from msfnet_runtime import (
        CameraIntrinsics,
        DepthEstimator,
        DepthMap,
        Frame,
        ModelSpec,
        MsfnetError,
        open_engine,
    )
    from msfnet_train import MSFNet, NetworkConfig, load_checkpoint

__all__ = [
    "PROTOCOLS",
    "CameraIntrinsics",
    "DepthEstimator",
    "DepthMap",
    "Frame",
    "MSFNet",
    "ModelSpec",
    "MsfnetError",
    "NetworkConfig",
    "__version__",
    "build_engine",
    "convert_fp16",
    "depth_metrics",
    "export_network",
    "load_checkpoint",
    "open_engine",
    "quantize_int8",
]


def __getattr__(name: str) -> Any:
    """Import a public name from the room it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module 'msfnet' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
