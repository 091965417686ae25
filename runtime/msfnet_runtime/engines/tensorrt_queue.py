"""Keeps several batches in flight on one GPU: one is copied in while another computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.closing import Closing
from msfnet_runtime.engines.tensorrt_slot import ExecutionSlot
from msfnet_runtime.errors import MsfnetError


class InFlightQueue(Closing):
    """Accepts batches and returns their outputs in order. Not thread-safe.

    Args:
        slots: one for each batch in flight.
        start: checks a batch and submits it to a slot.
    """

    def __init__(
        self,
        slots: Sequence[ExecutionSlot],
        start: Callable[[ExecutionSlot, NDArray[Any]], None],
    ) -> None:
        self._free, self._busy = deque(slots), deque[ExecutionSlot]()
        self._start = start
        self.open = True

    @property
    def waiting(self) -> int:
        """The number of outputs that are still to come."""
        return len(self._busy)

    @property
    def full(self) -> bool:
        """Whether :meth:`result` must be called before another :meth:`submit`."""
        return not self._free

    def submit(self, batch: NDArray[Any]) -> None:
        """Start a batch; it is copied first, so the caller can change it afterwards.

        Raises:
            MsfnetError: the queue is full or closed, or the batch does not fit the model.
        """
        if not self.open:
            raise MsfnetError("the queue is closed; open another one")
        if self.full:
            raise MsfnetError("the queue is full; call result() first")
        self._start(self._free[0], batch)
        self._busy.append(self._free.popleft())

    def result(self) -> NDArray[np.float32]:
        """Wait for the oldest batch and return its output.

        Raises:
            MsfnetError: nothing is in flight, or the batch failed.
        """
        if not self._busy:
            raise MsfnetError("no batch is in flight; submit one first")
        slot = self._busy.popleft()
        self._free.append(slot)
        return slot.result()

    def close(self) -> None:
        """Wait for the batches in flight and discard them; closing twice is allowed."""
        self.open = False
        while self._busy:
            self.result()
