"""Tests that a channel blocks or keeps the newest, and that either side can end it."""

from __future__ import annotations

import threading

from msfnet_runtime.channel import Channel
from tests.runtime.virtual_clock import VirtualClock


def test_a_full_channel_blocks_and_a_finished_one_can_still_be_read() -> None:
    """put returns only once there is room; after finish the rest can still be read."""
    clock = VirtualClock()
    channel: Channel[int] = Channel(2, clock=clock)
    appended: list[int] = []

    def produce() -> None:
        for item in range(5):
            channel.put(item)
            appended.append(item)
        channel.finish()

    producer = threading.Thread(target=produce)
    producer.start()
    clock.sleep(0.1)
    waiting = list(appended)
    read = [channel.get(1.0) for _ in range(5)]
    producer.join()

    assert waiting == [0, 1]
    assert read == [0, 1, 2, 3, 4]
    assert channel.over
    assert not channel.put(6)
    assert channel.get(0.0) is None


def test_cancelling_a_channel_releases_a_blocked_producer() -> None:
    """put then returns False."""
    clock = VirtualClock()
    channel: Channel[int] = Channel(1, clock=clock)
    results = [channel.put(1)]
    producer = threading.Thread(target=lambda: results.append(channel.put(2)))
    producer.start()
    clock.sleep(0.05)
    assert results == [True], "the producer is blocked"
    channel.cancel()
    producer.join(2)

    assert results == [True, False]
    assert channel.over


def test_a_channel_of_the_newest_drops_and_counts_the_oldest() -> None:
    """The producer never waits."""
    channel: Channel[int] = Channel(2, newest=True)

    assert all(channel.put(item) for item in range(5))
    channel.finish()

    assert [channel.get(0.0), channel.get(0.0), channel.get(0.0)] == [3, 4, None]
    assert channel.dropped == 3
