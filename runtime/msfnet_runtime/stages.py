"""Frames on their way through the stages of a pipeline, each stage timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from msfnet_runtime.channel import Channel
from msfnet_runtime.types import Frame

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Item(Generic[T]):
    """A frame on its way."""

    frame: Frame
    number: int
    """How many frames were captured, this one included."""
    captured: float
    """When the frame was there, on the monotonic clock, seconds."""
    seconds: tuple[float, ...]
    """The time each stage so far took."""
    content: T
    """What the last stage made."""
    moment: float
    """When it was made."""

    def passed(self, work: Callable[[T, Frame], S]) -> Item[S]:
        """Let a stage work on it, and time that."""
        start = time.monotonic()
        content = work(self.content, self.frame)
        now = time.monotonic()
        seconds = (*self.seconds, now - start)
        return Item(self.frame, self.number, self.captured, seconds, content, now)


def relay(inbox: Channel[Item[S]], work: Callable[[S, Frame], T], outbox: Channel[Item[T]]) -> None:
    """Work on what comes until nothing more does, or nobody takes it."""
    while (item := inbox.get()) is not None:
        if not outbox.put(item.passed(work)):
            return
    outbox.finish()
