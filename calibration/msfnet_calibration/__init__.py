"""Chooses calibration frames and writes INT8 models from them."""

from msfnet_calibration.quantize import quantize_int8
from msfnet_calibration.select import select_frames

__all__ = ["quantize_int8", "select_frames"]
