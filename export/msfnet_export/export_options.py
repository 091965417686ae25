"""Options of an export; declared here so that a command line needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from msfnet_runtime.spec import Graph

FloatPrecision = Literal["fp32", "fp16"]

Dynamic = Literal["batch", "size"]
"""What a graph leaves open; an open size is a multiple of 32."""

Pass = Literal[
    "adaptive-pooling", "up-blocks", "convolutions", "batch-norm", "resizing", "winograd"
]

PASSES: tuple[Pass, ...] = get_args(Pass)
"""Passes that an export can leave out, so that their benefit can be measured; the last two are for
CPUs only."""

RunsOn = Literal["any", "cpu"]

RUNS_ON: tuple[RunsOn, ...] = get_args(RunsOn)
"""Where an export is to run: anywhere, or on CPUs, see :mod:`msfnet_export.cpu_decoder`."""

Verify = Literal["output", "deep"]
Weights = Literal["inside", "beside"]


@dataclass(frozen=True)
class ExportOptions:
    """Options of a checkpoint's export, as :func:`msfnet_export.export_network` takes it."""

    size: tuple[int, int] | None = None
    """(height, width) of the network's input, pixels; the recipe's inference size if None."""
    frame_size: tuple[int, int] | None = None
    """(height, width) of a deploy graph's frames, pixels; :attr:`size` if None."""
    graph: Graph = "deploy"
    precision: FloatPrecision = "fp32"
    dynamic: tuple[Dynamic, ...] = ()
    without: tuple[Pass, ...] = ()
    """Passes to leave out."""
    runs_on: RunsOn = "any"
    weights: Weights = "inside"
    """Where the weights are: inside the model's file, or beside it in a separate file."""
    verify: Verify = "output"
    """``deep`` compares every block with PyTorch."""


DEFAULTS = ExportOptions()
