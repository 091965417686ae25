"""Tests that a pipeline stops as a whole: after an error, a signal or a closed window."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_runtime import DepthEstimator, DepthMap, Frame, MsfnetError, pipeline
from msfnet_runtime.engines.fake import FakeEngine
from msfnet_runtime.pipeline import run_pipeline
from msfnet_runtime.sinks import open_sink
from msfnet_runtime.sources import IterableSource
from msfnet_runtime.stopping import Stop
from msfnet_runtime.stream_stats import StreamStats
from tests.runtime.streams import SIZE, Frames, Kept, estimator, frame
from tests.runtime.virtual_clock import VirtualClock
from tests.specs import deploy_spec


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Check that no test leaves a thread behind."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


@pytest.fixture(autouse=True)
def _not_under_nohup() -> Iterator[None]:
    """Let SIGHUP have its usual effect, also where the tests run in the background."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_sink_can_end_the_stream() -> None:
    """A window does so on q: the stream ends without an error and is reported."""
    clock, sink = VirtualClock(), Kept(ends_after=3)
    source = Frames(500, seconds=0.03, sleep=clock.sleep)

    report = run_pipeline(source, estimator(), [sink], clock=clock)

    assert report.frames == 3
    assert sink.indices == list(range(report.frames))


def test_an_empty_source_is_one_line() -> None:
    """The message says that there are no frames."""
    with pytest.raises(MsfnetError, match="no frames"):
        run_pipeline(Frames(0), estimator(), [Kept()])


ERROR = RuntimeError("broken")


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("where", ["source", "engine", "sink", "observer"])
def test_an_error_anywhere_stops_everything(where: str, live: bool) -> None:
    """The error itself is raised, whether queues are full or empty."""
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


class _CallsAt(Kept):
    """Calls a function at its fourth frame, and writes each frame for 50 simulated ms."""

    def __init__(self, function: Callable[[], object], clock: VirtualClock) -> None:
        super().__init__(seconds=0.05, sleep=clock.sleep)
        self._function = function

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Write one frame."""
        super().write(frame, depth)
        if len(self.written) == 4:
            self._function()


@pytest.mark.parametrize("stage", ["infer", "write"])
@pytest.mark.parametrize("live", [False, True])
def test_an_unhandled_ctrl_c_aborts(stage: str, live: bool) -> None:
    """It is raised as in any Python program, and the rest of the stream is not processed."""
    clock = VirtualClock()
    calls = iter(range(1000))

    def infer(batch: NDArray[Any]) -> NDArray[np.float32]:
        clock.sleep(0.05)
        if stage == "infer" and next(calls) == 3:
            _thread.interrupt_main()
        return batch[..., 0][None].astype(np.float32)

    sink = _CallsAt(_thread.interrupt_main, clock) if stage == "write" else Kept()
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(
            Frames(200, live=live, seconds=0.02 * live, sleep=clock.sleep),
            DepthEstimator(FakeEngine(deploy_spec(*SIZE), infer)),
            [sink],
            clock=clock,
        )

    assert len(sink.written) <= 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("live", [False, True])
def test_a_signal_ends_a_stream_as_its_end(
    live: bool, number: signal.Signals, tmp_path: Path
) -> None:
    """All frames written until then are kept and reported, without a gap."""
    clock, stop = VirtualClock(), Stop()
    kept = _CallsAt(lambda: os.kill(os.getpid(), number), clock)

    with stop.on_signals(), open_sink(tmp_path / "depth", deploy_spec()) as sink:
        source = Frames(2000, live=live, seconds=0.01, sleep=clock.sleep)
        report = run_pipeline(source, estimator(), [sink, kept], stop=stop, clock=clock)

    assert stop.signal == number
    assert 4 <= report.frames <= 12
    assert len(list((tmp_path / "depth").glob("*.png"))) == report.frames
    assert live or kept.indices == list(range(report.frames))


def test_a_second_ctrl_c_aborts() -> None:
    """The second signal has its usual effect, and the handlers are restored."""
    before, stop = signal.getsignal(signal.SIGINT), Stop()

    with pytest.raises(KeyboardInterrupt), stop.on_signals():
        signal.raise_signal(signal.SIGINT)
        assert stop()
        signal.raise_signal(signal.SIGINT)

    assert signal.getsignal(signal.SIGINT) is before


def test_stopped_before_the_first_frame_is_one_line() -> None:
    """There is no empty output."""
    with pytest.raises(MsfnetError, match="stopped before the first frame"):
        run_pipeline(Frames(9), estimator(), [Kept()], stop=lambda: True)


def test_a_stream_under_nohup_ignores_a_closing_terminal() -> None:
    """SIGHUP stays ignored where it was."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = Stop()
        with stop.on_signals():
            signal.raise_signal(signal.SIGHUP)
        assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture
def hangs(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Return an event that never comes while the pipeline runs; waits for it are left soon."""
    monkeypatch.setattr(pipeline, "_SOURCE_HANGS_S", 0.2)
    monkeypatch.setattr(pipeline, "_STAGE_HANGS_S", 0.2)
    event = threading.Event()
    before = set(threading.enumerate())
    yield event
    event.set()
    for thread in set(threading.enumerate()) - before:
        thread.join()


def test_a_blocked_live_source_ends_when_that_is_asked_for(
    hangs: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """Its frames so far are written; the thread in the foreign code is named and left behind."""
    kept = Kept()

    def images() -> Iterator[NDArray[np.uint8]]:
        yield frame(0).image
        hangs.wait()

    report = run_pipeline(
        IterableSource(images(), live=True), estimator(), [kept], stop=lambda: bool(kept.written)
    )

    assert report.frames == 1
    assert "msfnet-capture does not respond" in caplog.text


def test_a_second_ctrl_c_aborts_while_inference_hangs(
    hangs: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """The first one is heard too, and waits for the frame in the model."""
    stop = Stop()
    infers = threading.Event()

    def infer(batch: NDArray[Any]) -> NDArray[np.float32]:
        infers.set()
        hangs.wait()
        return batch[..., 0][None].astype(np.float32)

    def press_twice() -> None:
        infers.wait()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)

    presses = threading.Thread(target=press_twice)
    presses.start()
    with pytest.raises(KeyboardInterrupt), stop.on_signals():
        model = DepthEstimator(FakeEngine(deploy_spec(*SIZE), infer))
        run_pipeline(Frames(9), model, [Kept()], stop=stop)
    presses.join()

    assert stop.signal == signal.SIGINT
    assert "msfnet-infer does not respond" in caplog.text


def test_a_process_that_hangs_after_a_second_ctrl_c_is_ended() -> None:
    """Its status is that of Ctrl-C, although it catches everything."""
    code = (
        "import os, signal, time\n"
        "from msfnet_runtime.stopping import Stop\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with Stop(abort_s=0.2).on_signals():\n"
        "    for _ in range(2):\n"
        "        try: os.kill(os.getpid(), signal.SIGINT)\n"
        "        except KeyboardInterrupt: pass\n"
        "    time.sleep(60)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], timeout=30, check=False)

    assert done.returncode == 130
