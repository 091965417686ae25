"""A pipeline stops as a whole: at an error, at a signal, at a sink's wish."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.pipeline import run_pipeline
from msfnet_runtime.sinks import open_sink
from msfnet_runtime.stopping import Stop
from msfnet_runtime.stream_stats import StreamStats
from tests.runtime.streams import Frames, Kept, estimator
from tests.specs import deploy_spec


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Every test here ends with the threads it began with."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def test_a_sink_can_end_the_stream() -> None:
    """As a window does on q: the stream ends without an error and is reported."""
    sink = Kept(ends_after=3)

    report = run_pipeline(Frames(500, seconds=0.002), estimator(), [sink])

    assert 3 <= report.frames < 20
    assert sink.indices == list(range(report.frames))


def test_an_empty_source_is_one_line() -> None:
    """Nothing came, and nothing is pretended."""
    with pytest.raises(MsfnetError, match="no frames"):
        run_pipeline(Frames(0), estimator(), [Kept()])


ERROR = RuntimeError("broken")


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("where", ["source", "engine", "sink", "observer"])
def test_an_error_anywhere_stops_everything(where: str, live: bool) -> None:
    """The error itself is raised, queues full or empty."""
    fails = {"fails": 2, "error": ERROR} if not live else {"fails": 0, "error": ERROR}
    source = Frames(300, live=live, **(fails if where == "source" else {}))  # type: ignore[arg-type]
    model = estimator(**(fails if where == "engine" else {}))  # type: ignore[arg-type]
    broken = Kept(**(fails if where == "sink" else {"seconds": 0.001}))
    if live and where == "sink":
        broken = _AlwaysBroken()

    def observe(stats: StreamStats) -> None:
        if where == "observer":
            raise ERROR

    with pytest.raises(RuntimeError) as caught:
        run_pipeline(source, model, [Kept(), broken], observers=[observe], interval_s=0.05)

    assert caught.value is ERROR


class _AlwaysBroken(Kept):
    """Raises at its first frame, whichever that is."""

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Raise."""
        raise ERROR


def _interrupt(after_s: float) -> None:
    time.sleep(after_s)
    _thread.interrupt_main()


@pytest.mark.parametrize("stage", ["infer", "write"])
@pytest.mark.parametrize("live", [False, True])
def test_an_unhandled_ctrl_c_aborts(stage: str, live: bool) -> None:
    """It is raised as in any Python program."""
    key = threading.Thread(target=_interrupt, args=(0.2,))
    slow = {"infer": 0.0, "write": 0.0} | {stage: 0.05}
    key.start()

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(
            Frames(200, live=live, seconds=0.02 * live),
            estimator(seconds=slow["infer"]),
            [Kept(seconds=slow["write"])],
        )
    key.join()

    assert time.monotonic() - started < 3, "two hundred frames would take ten seconds"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("live", [False, True])
def test_a_signal_ends_a_stream_as_its_end(
    live: bool, number: signal.Signals, tmp_path: Path
) -> None:
    """What was written until then stays and is reported, without a gap."""
    key = threading.Timer(0.3, lambda: os.kill(os.getpid(), number))
    key.start()

    stop = Stop()
    with stop.on_signals(), open_sink(tmp_path / "depth", deploy_spec()) as sink:
        kept = Kept()
        report = run_pipeline(
            Frames(2000, live=live, seconds=0.01), estimator(), [sink, kept], stop=stop
        )
    key.join()

    assert stop.signal == number
    assert 1 <= report.frames < 200
    assert len(list((tmp_path / "depth").glob("*.png"))) == report.frames
    assert live or kept.indices == list(range(report.frames))


def test_a_second_ctrl_c_aborts() -> None:
    """Who presses it twice waits for nothing, and then handlers are as they were."""
    before, stop = signal.getsignal(signal.SIGINT), Stop()

    with pytest.raises(KeyboardInterrupt), stop.on_signals():
        signal.raise_signal(signal.SIGINT)
        assert stop()
        signal.raise_signal(signal.SIGINT)

    assert signal.getsignal(signal.SIGINT) is before


def test_stopped_before_the_first_frame_is_one_line() -> None:
    """An empty output is not a result."""
    with pytest.raises(MsfnetError, match="stopped before the first frame"):
        run_pipeline(Frames(9, seconds=0.1), estimator(), [Kept()], stop=lambda: True)
