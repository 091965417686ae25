"""NumPy versions of the layers in the paper's equations, written from their definitions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Array = NDArray[np.float64]


def to_numpy(tensor: torch.Tensor) -> Array:
    """Return a tensor's values as float64."""
    return np.asarray(tensor.detach().numpy(), np.float64)


def convolve(image: Array, layer: nn.Module | torch.Tensor) -> Array:
    """Compute a stride-1 convolution with zero padding: (N, C, H, W) to (N, O, H, W)."""
    assert isinstance(layer, nn.Conv2d)
    weight = to_numpy(layer.weight)
    rows, columns = weight.shape[2] // 2, weight.shape[3] // 2
    padded = np.pad(image, ((0, 0), (0, 0), (rows, rows), (columns, columns)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    result: Array = np.einsum("nchwij,ocij->nohw", windows, weight)
    return result if layer.bias is None else result + to_numpy(layer.bias)[:, None, None]


def leaky(values: Array) -> Array:
    """Compute Eq. 1 with alpha 0.2."""
    return np.where(values > 0, values, 0.2 * values)


def shuffle(features: Array, scale: int) -> Array:
    """Move channel c s^2 + s i + j of pixel (y, x) to channel c of pixel (s y + i, s x + j)."""
    count, channels, height, width = features.shape
    result = np.zeros((count, channels // scale**2, height * scale, width * scale))
    for channel in range(channels):
        target, place = divmod(channel, scale**2)
        i, j = divmod(place, scale)
        result[:, target, i::scale, j::scale] = features[:, channel]
    return result


def pool(features: Array, height: int, width: int) -> Array:
    """Average over the cells of a grid: cell i covers floor(i H / h) to ceil((i + 1) H / h)."""
    result = np.zeros((*features.shape[:2], height, width))
    for i in range(height):
        top, bottom = _cell(i, features.shape[2], height)
        for j in range(width):
            left, right = _cell(j, features.shape[3], width)
            result[:, :, i, j] = features[:, :, top:bottom, left:right].mean(axis=(2, 3))
    return result


def _cell(index: int, size: int, cells: int) -> tuple[int, int]:
    return index * size // cells, -(-(index + 1) * size // cells)


def normalise(features: Array, axes: tuple[int, ...], layer: nn.Module) -> Array:
    """Bring features to zero mean and unit variance over the axes, then scale and shift."""
    assert isinstance(layer, (nn.BatchNorm2d, nn.InstanceNorm2d))
    mean, variance = (f(features, axis=axes, keepdims=True) for f in (np.mean, np.var))
    scale, shift = (to_numpy(p)[:, None, None] for p in (layer.weight, layer.bias))
    return np.asarray((features - mean) / np.sqrt(variance + layer.eps) * scale + shift)


def resize(image: Array, height: int, width: int) -> Array:
    """Resize (N, C, H, W) bilinearly with half-pixel centres and clamped borders."""
    rows, columns = _taps(image.shape[2], height), _taps(image.shape[3], width)
    return np.asarray(np.einsum("nchw,yh,xw->ncyx", image, rows, columns))


def _taps(old: int, new: int) -> Array:
    """Return the (new, old) matrix of linear interpolation."""
    position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.floor(position).astype(int)
    matrix = np.zeros((new, old))
    matrix[np.arange(new), low] += 1 - (position - low)
    matrix[np.arange(new), np.minimum(low + 1, old - 1)] += position - low
    return matrix
