"""Passes items between two threads, and provides the clock by which the threads wait."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Clock:
    """The machine's monotonic clock. A subclass can simulate time, for deterministic tests."""

    def now(self) -> float:
        """Return the current time, seconds."""
        return time.monotonic()

    def wait_for(
        self,
        changed: threading.Condition,
        predicate: Callable[[], object],
        timeout_s: float | None = None,
    ) -> None:
        """Wait on a condition, which the caller holds, until the predicate or the time-out."""
        changed.wait_for(predicate, timeout_s)


CLOCK = Clock()


class Channel(Generic[T]):
    """A short queue from one thread to another; either side can end it, and then nobody waits.

    Args:
        capacity: how many items can wait.
        newest: drop and count the oldest item when full, instead of blocking the producer.
        clock: measures time-outs.
    """

    def __init__(self, capacity: int, *, newest: bool = False, clock: Clock = CLOCK) -> None:
        self._capacity = capacity
        self._newest = newest
        self._clock = clock
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self.dropped = 0

    def put(self, item: T) -> bool:
        """Append an item; return False, without appending it, when the channel has ended."""
        with self._changed:
            if self._newest and len(self._items) == self._capacity and not self._finished:
                self._items.popleft()
                self.dropped += 1
            self._clock.wait_for(
                self._changed, lambda: self._finished or len(self._items) < self._capacity
            )
            if self._finished:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float | None = None) -> T | None:
        """Remove and return the oldest item; None after the time-out or at the channel's end."""
        with self._changed:
            self._clock.wait_for(self._changed, lambda: self._finished or self._items, timeout_s)
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def wait_until_over(self, timeout_s: float) -> bool:
        """Wait for the channel to be over; return whether it is."""
        with self._changed:
            self._clock.wait_for(self._changed, lambda: self.over, timeout_s)
            return self.over

    @property
    def waiting(self) -> int:
        """The number of items in the channel."""
        return len(self._items)

    @property
    def over(self) -> bool:
        """Whether the channel has ended and is empty."""
        return self._finished and not self._items

    def finish(self) -> None:
        """End the channel; items in it can still be read."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """End the channel and discard the items in it."""
        with self._changed:
            self._finished = True
            self._items.clear()
            self._changed.notify_all()
