"""A short queue between two threads that either waits when full or keeps only the newest."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """Items in order from one thread to another; both can end it, and neither then waits.

    Args:
        capacity: how many items may wait.
        newest: when full, drop the oldest and count it, instead of making the giver wait.
    """

    def __init__(self, capacity: int, *, newest: bool = False) -> None:
        self._capacity = capacity
        self._newest = newest
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self.dropped = 0

    def put(self, item: T) -> bool:
        """Give one item; False when the channel has ended and the item is not taken."""
        with self._changed:
            if self._newest and len(self._items) == self._capacity and not self._finished:
                self._items.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: self._finished or len(self._items) < self._capacity)
            if self._finished:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float | None = None) -> T | None:
        """Take the oldest item; None when there is none within the time, or ever."""
        with self._changed:
            self._changed.wait_for(lambda: self._finished or self._items, timeout_s)
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    @property
    def waiting(self) -> int:
        """How many items wait."""
        with self._changed:
            return len(self._items)

    @property
    def over(self) -> bool:
        """Whether the channel has ended and everything in it was taken."""
        with self._changed:
            return self._finished and not self._items

    def finish(self) -> None:
        """Say that no more comes; what waits can still be taken."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """End the channel at once, dropping what waits."""
        with self._changed:
            self._finished = True
            self._items.clear()
            self._changed.notify_all()
