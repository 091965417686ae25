"""Writes the same pictures into an output until it is killed."""

from __future__ import annotations

import sys
import time

from msfnet_runtime.sinks import open_sink
from tests.runtime.streams import frame, ramp
from tests.specs import network_spec

if __name__ == "__main__":
    with open_sink(sys.argv[1], network_spec(), fps=30) as sink:
        for number in range(100_000):
            each = frame(number % 100)
            sink.write(type(each)(each.image, number, number / 30), ramp((48, 80)))
            print(number + 1, flush=True)
            time.sleep(0.002)
