"""Tools that the passes over a network share: modules, hooks, convolutions, fixed pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Grid = tuple[int, int]
"""(height, width) of a feature map."""

_Kind = TypeVar("_Kind", bound=nn.Module)


def replace_modules(
    network: nn.Module, kind: type[_Kind], make: Callable[[str, _Kind], nn.Module | None]
) -> tuple[str, ...]:
    """Replace modules of one kind in place, and return the names of those that were replaced.

    Args:
        network: with the modules inside.
        kind: their class.
        make: returns the replacement for a name and a module; None leaves the module.
    """
    replaced = []
    for name, module in list(network.named_modules()):
        new = make(name, module) if isinstance(module, kind) else None
        if new is not None:
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, new)
            replaced.append(name)
    return tuple(replaced)


@contextmanager
def hooked(
    network: nn.Module, names: Iterable[str], record: Callable[[str, Tensor, Any], None]
) -> Iterator[None]:
    """Call ``record`` with the name, first input and output of modules whenever they run."""

    def call(name: str, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        record(name, arguments[0], output)

    handles = [
        network.get_submodule(name).register_forward_hook(partial(call, name)) for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def conv_like(like: nn.Conv2d, weight: Tensor, bias: Tensor | None, stride: int = 1) -> nn.Conv2d:
    """Return a convolution with new weights, and padding and type of another one.

    Args:
        like: the other one.
        weight: (O, C, height, width).
        bias: (O,), or None.
        stride: along both axes.
    """
    out_channels, in_channels, height, width = weight.shape
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        (height, width),
        stride=stride,
        padding=like.padding,  # type: ignore[arg-type]  # it is a pair of numbers
        bias=bias is not None,
        dtype=like.weight.dtype,
    )
    with torch.no_grad():
        conv.weight.copy_(weight)
        if bias is not None and conv.bias is not None:
            conv.bias.copy_(bias)
    return conv.requires_grad_(False)


class FixedAveragePool(nn.Module):
    """Adaptive average pooling between two known grids, out of operators every engine has.

    Args:
        before: grid of the input.
        after: grid of the output.
        dtype: of the features.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, before: Grid, after: Grid, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        factors = before[0] // after[0], before[1] // after[1]
        self.identity = before == after
        self.whole = before == (factors[0] * after[0], factors[1] * after[1])
        self.pool = nn.AvgPool2d(factors) if self.whole else None
        if not self.whole:
            rows, columns = (pooling_matrix(b, a) for b, a in zip(before, after, strict=True))
            self.register_buffer("rows", torch.from_numpy(rows).to(dtype))
            self.register_buffer("columns", torch.from_numpy(columns.T.copy()).to(dtype))

    def forward(self, features: Tensor, size: Grid) -> Tensor:
        """Average (N, C, *before) to (N, C, *after); ``size`` is known already."""
        if self.identity:
            return features
        if self.pool is not None:
            pooled: Tensor = self.pool(features)
            return pooled
        return torch.matmul(torch.matmul(self.rows, features), self.columns)


def pooling_matrix(before: int, after: int) -> NDArray[np.float64]:
    """Return the (after, before) matrix that averages a line as adaptive pooling does.

    Output i is the mean of inputs floor(i before / after) to ceil((i + 1) before / after).
    """
    matrix = np.zeros((after, before))
    for i in range(after):
        start, end = i * before // after, -(-(i + 1) * before // after)
        matrix[i, start:end] = 1 / (end - start)
    return matrix
