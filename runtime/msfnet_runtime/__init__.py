"""Runs depth models on frames: engines, the estimator, sources, sinks and the pipeline.

It needs numpy and OpenCV; engine libraries are extras. It never needs torch, timm or onnx.
"""

from msfnet_runtime.artifacts import EngineArtifact, OnnxArtifact
from msfnet_runtime.cuda.device_array import DeviceArray
from msfnet_runtime.engine import Engine
from msfnet_runtime.engines import open_engine
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.estimator import DepthEstimator
from msfnet_runtime.spec import Block, ModelSpec, NormalisedIntrinsics, Resize, Scale, TensorSpec
from msfnet_runtime.types import CameraIntrinsics, DepthMap, Frame

__all__ = [
    "Block",
    "CameraIntrinsics",
    "DepthEstimator",
    "DepthMap",
    "DeviceArray",
    "Engine",
    "EngineArtifact",
    "Frame",
    "ModelSpec",
    "MsfnetError",
    "NormalisedIntrinsics",
    "OnnxArtifact",
    "Resize",
    "Scale",
    "TensorSpec",
    "open_engine",
]
