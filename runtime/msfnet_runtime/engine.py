"""Defines the engine protocol: an object that runs batches through a model with a spec."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.closing import Closing
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.words import shape_text


@runtime_checkable
class Engine(AbstractContextManager["Engine"], Protocol):
    """One loaded model. The end of its ``with`` block closes it."""

    @property
    def thread_safe(self) -> bool:
        """Whether several threads can infer at once."""

    @property
    def spec(self) -> ModelSpec:
        """The model's inputs, outputs and preprocessing."""

    def infer(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run one batch of the shape and type of ``spec.inputs[0]``; return ``spec.outputs[0]``.

        Raises:
            MsfnetError: wrong shape or type, or the engine is closed.
        """

    def close(self) -> None:
        """Free all memory; closing twice is allowed."""

    def describe(self) -> str:
        """Return what runs the model: library, version, provider or device."""


@dataclass(frozen=True)
class Timings:
    """Times of one batch in milliseconds, named as in NVIDIA's trtexec.

    Stages are times between CUDA events on the stream; ``enqueue`` and ``total`` are measured by
    the host's clock. An omitted stage, such as a transfer, is 0.
    """

    h2d: float
    """Copy of the batch from host to device."""
    compute: float
    """Work of the GPU between the copies."""
    d2h: float
    """Copy of the output from device to host."""
    enqueue: float
    """Time of the host to enqueue the work: the call, or the launch of a CUDA graph."""
    total: float
    """From before the first copy until the output is in host memory."""

    @property
    def latency(self) -> float:
        """trtexec's latency: the three stages of the GPU without the waits between them."""
        return self.h2d + self.compute + self.d2h


class DeviceTimed(Protocol):
    """Times the stages of a run on the device."""

    def timed(
        self, batch: NDArray[Any], *, cuda_graph: bool | None = None, transfers: bool = True
    ) -> Timings:
        """Run one batch; return the time of each stage.

        Args:
            batch: as for ``infer``.
            cuda_graph: run with or without a CUDA graph; None does what ``infer`` does.
            transfers: False excludes the copies; the batch is on the device beforehand.

        Raises:
            MsfnetError: as for ``infer``, or the requested CUDA graph cannot be captured.
        """


class DeviceTimedEngine(Engine, DeviceTimed, Protocol):
    """An engine that times its own stages: TensorRT's."""


class EngineBase(Closing):
    """Implements the lifecycle and the checks that engines share; subclasses run the batch."""

    thread_safe = False

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._open = True

    @property
    def spec(self) -> ModelSpec:
        """The model's inputs, outputs and preprocessing."""
        return self._spec

    def infer(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Check the batch, run it and return the first output."""
        self._check(batch)
        return self._run(np.ascontiguousarray(batch))

    def close(self) -> None:
        """Free all memory; closing twice is allowed."""
        if self._open:
            self._open = False
            self._release()

    def _check(self, batch: NDArray[Any]) -> None:
        """Require an open engine and a batch that fits its input."""
        self._must_be_open()
        check_batch(batch, self._spec)

    def _must_be_open(self) -> None:
        if not self._open:
            raise MsfnetError("the engine is closed; open it again")

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        raise AssertionError(f"{type(self).__name__} does not run batches")

    def _release(self) -> None:
        """Free the engine's resources; nothing by default."""


def check_batch(batch: NDArray[Any], spec: ModelSpec) -> None:
    """Compare a batch with the model's input.

    Raises:
        MsfnetError: it differs; the message names both shapes and types.
    """
    expected = spec.inputs[0]
    fits = len(batch.shape) == len(expected.shape) and all(
        isinstance(size, str) or size == actual
        for size, actual in zip(expected.shape, batch.shape, strict=True)
    )
    if not fits or batch.dtype != np.dtype(expected.dtype):
        raise MsfnetError(
            f"the model's input {expected.name!r} is {shape_text(expected.shape)} "
            f"{expected.dtype}, not {shape_text(batch.shape)} {batch.dtype}; export the model for "
            "that size, or let DepthEstimator prepare the frame"
        )
