"""Depth metrics, protocols, and what is scored with them."""

from msfnet_benchmarks.scoring.metrics import depth_metrics
from msfnet_benchmarks.scoring.protocols import PROTOCOLS

__all__ = ["PROTOCOLS", "depth_metrics"]
