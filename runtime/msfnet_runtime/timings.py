"""Defines the times of the stages of one batch on a GPU."""

from __future__ import annotations

from dataclasses import dataclass


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
