"""What one batch through an engine on a GPU costs, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timings:
    """Milliseconds of one batch, in the words of NVIDIA's trtexec.

    Stages are times between CUDA events on the stream, ``enqueue`` and ``total`` are the host's
    clock. A stage that was left out (transfers, say) is 0.
    """

    h2d: float
    """Host to device: copying the batch in."""
    compute: float
    """The GPU's own work between the copies."""
    d2h: float
    """Device to host: copying the answer out."""
    enqueue: float
    """How long the host took to hand the work over: the call, or the launch of a CUDA graph."""
    total: float
    """From before the first copy was asked for until the answer was in host memory."""

    @property
    def latency(self) -> float:
        """trtexec's latency: the three stages of the GPU, waiting between them apart."""
        return self.h2d + self.compute + self.d2h
