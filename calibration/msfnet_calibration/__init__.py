"""Chooses calibration frames and writes INT8 models from them."""

from msfnet_calibration.half import convert_fp16
from msfnet_calibration.quantize import quantize_int8
from msfnet_calibration.select import select_frames

__all__ = ["convert_fp16", "quantize_int8", "select_frames"]
