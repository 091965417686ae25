"""Chooses calibration frames and writes INT8 models from them."""

from msfnet_calibration.half import convert_fp16
from msfnet_calibration.select import select_frames
from msfnet_calibration.variants import quantize_int8

__all__ = ["convert_fp16", "quantize_int8", "select_frames"]
