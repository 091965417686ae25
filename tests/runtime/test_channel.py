"""A channel is a queue that either waits or keeps the newest, and that can be ended."""

from __future__ import annotations

import threading
import time

from msfnet_runtime.channel import Channel


def test_a_channel_waits_when_full_and_hands_over_what_waits_at_the_end() -> None:
    """put returns only once there is room; after finish the rest can still be taken."""
    channel: Channel[int] = Channel(2)
    given: list[int] = []

    def give() -> None:
        for item in range(5):
            channel.put(item)
            given.append(item)
        channel.finish()

    giver = threading.Thread(target=give)
    giver.start()
    time.sleep(0.1)
    waiting = list(given)
    taken = [channel.get(1.0) for _ in range(5)]
    giver.join()

    assert waiting == [0, 1]
    assert taken == [0, 1, 2, 3, 4]
    assert channel.over
    assert not channel.put(6)
    assert channel.get(0.0) is None


def test_a_cancelled_channel_lets_everybody_go() -> None:
    """A giver that waits for room is told that its item was not taken."""
    channel: Channel[int] = Channel(1)
    answers = [channel.put(1)]
    giver = threading.Thread(target=lambda: answers.append(channel.put(2)))
    giver.start()
    time.sleep(0.05)
    channel.cancel()
    giver.join(2)

    assert answers == [True, False]
    assert channel.over


def test_a_channel_of_the_newest_drops_the_oldest() -> None:
    """Nobody waits; what was dropped is counted."""
    channel: Channel[int] = Channel(2, newest=True)

    assert all(channel.put(item) for item in range(5))
    channel.finish()

    assert [channel.get(0.0), channel.get(0.0), channel.get(0.0)] == [3, 4, None]
    assert channel.dropped == 3
