"""Several batches in flight on one GPU: one is copied in while another computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.closing import Closing
from msfnet_runtime.engines.tensorrt_lane import Lane
from msfnet_runtime.errors import MsfnetError


class Ring(Closing):
    """Batches go in and answers come out, in order. Not thread-safe.

    Args:
        lanes: as many batches may be in flight.
        start: checks a batch and submits it to a lane.
        ended: called once, when the ring is closed.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        start: Callable[[Lane, NDArray[Any]], None],
        ended: Callable[[], None],
    ) -> None:
        self._free, self._busy = deque(lanes), deque[Lane]()
        self._start, self._ended = start, ended
        self._open = True

    @property
    def waiting(self) -> int:
        """How many answers are still to come."""
        return len(self._busy)

    @property
    def full(self) -> bool:
        """Whether :meth:`result` must be called before another :meth:`submit`."""
        return not self._free

    def submit(self, batch: NDArray[Any]) -> None:
        """Start a batch; it is copied at once and may be changed afterwards.

        Raises:
            MsfnetError: the ring is full or closed, or the batch does not fit the model.
        """
        if not self._open:
            raise MsfnetError("the ring is closed; ask the engine for another")
        if self.full:
            raise MsfnetError("the ring is full; take a result first")
        self._start(self._free[0], batch)
        self._busy.append(self._free.popleft())

    def result(self) -> NDArray[np.float32]:
        """Wait for the oldest batch and return its answer.

        Raises:
            MsfnetError: nothing is in flight, or the batch failed.
        """
        if not self._busy:
            raise MsfnetError("no batch is in flight; submit one first")
        lane = self._busy.popleft()
        self._free.append(lane)
        return lane.result()

    def close(self) -> None:
        """Wait for what is in flight and forget it; closing twice is allowed."""
        if not self._open:
            return
        self._open = False
        try:
            while self._busy:
                self.result()
        finally:
            self._ended()
