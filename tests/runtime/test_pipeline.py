"""The pipeline keeps order, overlaps its stages, and stops as a whole."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.pipeline import run_pipeline
from msfnet_runtime.sinks import open_sink
from msfnet_runtime.sources import open_source
from msfnet_runtime.stopping import stop_on_signals
from tests.runtime.streams import Frames, Kept, estimator
from tests.specs import deploy_spec


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Every test here ends with the threads it began with."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def test_every_frame_of_a_file_arrives_in_order_with_its_own_depth() -> None:
    """A sink slower than the source makes it wait instead of losing frames."""
    sink = Kept(seconds=0.002)

    report = run_pipeline(Frames(40), estimator(), [sink])

    assert sink.indices == list(range(40))
    for frame, depth in sink.written:
        np.testing.assert_array_equal(depth.values, frame.image[..., 0])
        assert (depth.index, depth.timestamp_s) == (frame.index, frame.timestamp_s)
    assert (report.frames, report.dropped) == (40, 0)


def test_every_sink_gets_every_frame() -> None:
    """A video and a window at once see the same."""
    sinks = [Kept(), Kept()]

    run_pipeline(Frames(7), estimator(), sinks)

    assert sinks[0].indices == sinks[1].indices == list(range(7))


def test_a_fast_source_is_held_back() -> None:
    """Reading stays a few frames ahead of writing, whatever the length of the video."""
    source, ahead = Frames(60), []

    class Watching(Kept):
        def write(self, frame: Frame, depth: DepthMap) -> None:
            super().write(frame, depth)
            ahead.append(source.read - frame.index)

    run_pipeline(source, estimator(), [Watching(seconds=0.005)])

    assert max(ahead) <= 4 + 4 + 4


def test_stages_overlap() -> None:
    """Three stages of 20 ms take little more than 20 ms a frame, not 60."""
    frames, stage = 25, 0.02

    report = run_pipeline(
        Frames(frames, seconds=stage), estimator(seconds=stage), [Kept(seconds=stage)]
    )

    assert frames * stage <= report.seconds < 0.75 * 3 * frames * stage
    times = report.stages
    for mean in (times.capture_ms, times.infer_ms, times.write_ms):
        assert mean >= 20
    assert report.fps == pytest.approx(frames / report.seconds)


def test_a_live_source_gives_its_newest_frame() -> None:
    """With a slow model older frames are dropped and counted, and depth stays young."""
    source, sink = Frames(60, live=True, seconds=0.01), Kept()

    report = run_pipeline(source, estimator(seconds=0.05), [sink])

    assert sink.indices == sorted(set(sink.indices))
    assert sink.indices[-1] == 59, "the newest is never the one that is dropped"
    assert report.frames + report.dropped == source.read == 60
    assert 5 <= report.frames <= 25
    age = report.age
    assert 50 <= age.p50_ms < 500, "queued frames would be over a second old"
    assert age.p50_ms <= age.p90_ms <= age.p99_ms <= report.written_age.p99_ms


def test_a_fast_model_drops_nothing_of_a_live_source() -> None:
    """Dropping is for want of time only."""
    sink = Kept()

    report = run_pipeline(Frames(10, live=True, seconds=0.03), estimator(), [sink])

    assert (sink.indices, report.dropped) == (list(range(10)), 0)


@pytest.mark.parametrize("live", [False, True])
def test_max_frames_ends_a_longer_stream(live: bool) -> None:
    """Exactly so many are written, and a file is not read beyond them."""
    source, sink = Frames(1000, live=live, seconds=0.001), Kept()

    report = run_pipeline(source, estimator(), [sink], max_frames=5)

    assert report.frames == len(sink.written) == 5
    assert live or source.read == 5


def test_max_frames_must_be_positive() -> None:
    """Zero frames is nothing to do."""
    with pytest.raises(MsfnetError, match="at least 1"):
        run_pipeline(Frames(3), estimator(), [Kept()], max_frames=0)


def test_progress_counts_written_frames() -> None:
    """The total is the source's length, or the smaller limit, or 0 where neither is known."""
    calls: list[tuple[int, int, str]] = []

    def report(done: int, total: int, what: str) -> None:
        calls.append((done, total, what))

    run_pipeline(Frames(4), estimator(), [Kept()], progress=report)
    run_pipeline(Frames(9), estimator(), [Kept()], max_frames=2, progress=report)
    run_pipeline(Frames(1, live=True), estimator(), [Kept()], progress=report)

    assert [(done, total) for done, total, _ in calls] == [
        *((done, 4) for done in (1, 2, 3, 4)),
        *((done, 2) for done in (1, 2)),
        (1, 0),
    ]
    assert calls[0][2].endswith("frames/s")


def test_a_sink_can_end_the_stream() -> None:
    """As a window does on q: the stream ends without an error and is reported."""
    sink = Kept(ends_after=3)

    report = run_pipeline(Frames(500, seconds=0.002), estimator(), [sink])

    assert 3 <= report.frames < 20
    assert sink.indices == list(range(report.frames))


def test_sinks_are_polled_by_the_calling_thread_and_written_by_one_other() -> None:
    """Window systems want one thread; encoders want one at a time."""
    polls, writes = set(), set()

    class Watching(Kept):
        def write(self, frame: Frame, depth: DepthMap) -> None:
            writes.add(threading.get_ident())

        def poll(self) -> bool:
            polls.add(threading.get_ident())
            return True

    run_pipeline(Frames(5), estimator(), [Watching()])

    assert polls == {threading.get_ident()}
    assert len(writes) == 1
    assert not writes & polls


def test_an_empty_source_is_one_line() -> None:
    """Nothing came, and nothing is pretended."""
    with pytest.raises(MsfnetError, match="no frames"):
        run_pipeline(Frames(0), estimator(), [Kept()])


ERROR = RuntimeError("broken")


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("where", ["source", "engine", "sink", "progress"])
def test_an_error_anywhere_stops_everything(where: str, live: bool, tmp_path: Path) -> None:
    """The error itself is raised, queues full or empty, and no partial file stays."""
    fails = {"fails": 2, "error": ERROR} if not live else {"fails": 0, "error": ERROR}
    source = Frames(300, live=live, **(fails if where == "source" else {}))  # type: ignore[arg-type]
    model = estimator(**(fails if where == "engine" else {}))  # type: ignore[arg-type]
    broken = Kept(**(fails if where == "sink" else {"seconds": 0.001}))
    if live and where == "sink":
        broken = _AlwaysBroken()

    def report(done: int, total: int, what: str) -> None:
        if where == "progress":
            raise ERROR

    sinks = [open_sink(tmp_path / name, deploy_spec()) for name in ("depth", "depth.mp4")]
    with pytest.raises(RuntimeError) as caught, sinks[0], sinks[1]:
        run_pipeline(source, model, [*sinks, broken], progress=report)

    assert caught.value is ERROR
    assert list(tmp_path.iterdir()) == []


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
def test_an_unhandled_ctrl_c_aborts(stage: str, live: bool, tmp_path: Path) -> None:
    """It is raised as in any Python program, and leaves no part of a file."""
    key = threading.Thread(target=_interrupt, args=(0.2,))
    slow = {"infer": 0.0, "write": 0.0} | {stage: 0.05}
    key.start()

    sink = open_sink(tmp_path / "depth", deploy_spec())
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), sink:
        run_pipeline(
            Frames(200, live=live, seconds=0.02 * live),
            estimator(seconds=slow["infer"]),
            [sink, Kept(seconds=slow["write"])],
        )
    key.join()

    assert time.monotonic() - started < 3, "two hundred frames would take ten seconds"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("live", [False, True])
def test_a_signal_ends_a_stream_as_its_end(
    live: bool, number: signal.Signals, tmp_path: Path
) -> None:
    """What was written until then stays and is reported, without a gap."""
    key = threading.Timer(0.3, lambda: os.kill(os.getpid(), number))
    key.start()

    with stop_on_signals() as stop, open_sink(tmp_path / "depth", deploy_spec()) as sink:
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
    before = signal.getsignal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), stop_on_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop()
        signal.raise_signal(signal.SIGINT)

    assert signal.getsignal(signal.SIGINT) is before


def test_stopped_before_the_first_frame_is_one_line() -> None:
    """An empty output is not a result."""
    with pytest.raises(MsfnetError, match="stopped before the first frame"):
        run_pipeline(Frames(9, seconds=0.1), estimator(), [Kept()], stop=lambda: True)


def test_a_real_video_becomes_one_depth_map_per_frame(real_data: Path, tmp_path: Path) -> None:
    """From file to folder through the real decoder, every size brought back to the frame's."""
    kept = Kept()
    with (
        open_source(str(real_data / "video/driving_solidWhiteRight.mp4")) as source,
        open_sink(tmp_path / "depth", deploy_spec(), source.fps) as sink,
    ):
        report = run_pipeline(source, estimator(), [sink, kept], max_frames=12)

    assert report.frames == len(list((tmp_path / "depth").glob("*.png"))) == 12
    frame, depth = kept.written[-1]
    assert depth.values.shape == frame.image.shape[:2] == (540, 960)
    correlation = np.corrcoef(depth.values.ravel(), frame.image[..., 0].ravel())[0, 1]
    assert correlation > 0.9, "depth is the red channel, through 48 x 80 pixels and back"
