"""Tests the order of frames, the overlap of stages and the age of live depth."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_runtime import DepthEstimator, DepthMap, Frame, MsfnetError
from msfnet_runtime.engines.fake import FakeEngine
from msfnet_runtime.pipeline import run_pipeline
from msfnet_runtime.sinks import open_sink
from msfnet_runtime.source import SourceHealth
from msfnet_runtime.sources import open_source
from msfnet_runtime.stream_stats import StreamStats
from tests.runtime.streams import SIZE, Frames, Kept, estimator
from tests.runtime.virtual_clock import VirtualClock
from tests.specs import deploy_spec


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Check that no test leaves a thread behind."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def test_every_frame_of_a_file_arrives_in_order_with_its_own_depth() -> None:
    """A sink slower than the source makes the source wait; no frame is lost."""
    clock = VirtualClock()
    sink = Kept(seconds=0.002, sleep=clock.sleep)

    report = run_pipeline(Frames(40), estimator(), [sink], clock=clock)

    assert sink.indices == list(range(40))
    for frame, depth in sink.written:
        np.testing.assert_array_equal(depth.values, frame.image[..., 0])
        assert (depth.index, depth.timestamp_s) == (frame.index, frame.timestamp_s)
    assert (report.frames, report.dropped) == (40, 0)


def test_every_sink_gets_every_frame() -> None:
    """A video and a window at the same time get the same frames."""
    sinks = [Kept(), Kept()]

    run_pipeline(Frames(7), estimator(), sinks)

    assert sinks[0].indices == sinks[1].indices == list(range(7))


def test_a_fast_source_is_held_back() -> None:
    """Reading stays a few frames ahead of writing, whatever the length of the video."""
    clock = VirtualClock()
    source, ahead = Frames(60), []

    class Watching(Kept):
        def write(self, frame: Frame, depth: DepthMap) -> None:
            super().write(frame, depth)
            ahead.append(source.read - frame.index)

    run_pipeline(source, estimator(), [Watching(seconds=0.005, sleep=clock.sleep)], clock=clock)

    assert max(ahead) <= 4 + 4 + 4


def test_stages_overlap() -> None:
    """With three stages of 20 ms a frame takes 20 ms, not 60, after the first one's 60."""
    frames, stage, clock = 25, 0.02, VirtualClock()

    report = run_pipeline(
        Frames(frames, seconds=stage, sleep=clock.sleep),
        estimator(seconds=stage, sleep=clock.sleep),
        [Kept(seconds=stage, sleep=clock.sleep)],
        clock=clock,
    )

    assert report.seconds == pytest.approx((frames + 2) * stage)
    times = report.stages
    for mean in (times.capture_ms, times.infer_ms, times.write_ms):
        assert mean == pytest.approx(20)
    assert times.prepare_ms == times.finish_ms == 0
    assert report.fps == pytest.approx(frames / report.seconds)
    assert report.age.p50_ms == pytest.approx(20, rel=0.01)


def test_a_live_source_gives_its_newest_frame() -> None:
    """With a slow model older frames are dropped and counted, and the age of depth stays low."""
    clock = VirtualClock()
    source, sink = Frames(60, live=True, seconds=0.01, sleep=clock.sleep), Kept()

    report = run_pipeline(source, estimator(seconds=0.0473, sleep=clock.sleep), [sink], clock=clock)

    assert sink.indices == sorted(set(sink.indices))
    assert sink.indices[-1] == 59, "the newest frame is never dropped"
    assert report.frames + report.dropped == source.read == 60
    assert 12 <= report.frames <= 14, "600 ms hold 12.7 inferences"
    age = report.age
    assert 47 <= age.p50_ms <= age.p90_ms <= 58, "a frame waits at most until the next one"
    assert age.p99_ms < 2 * 47.3 + 1, "the last frame waits for the inference before it"
    assert report.written_age == age, "writing takes no time"


def test_the_frame_inferred_is_the_newest_when_the_model_becomes_free() -> None:
    """A frame prepared in advance is dropped if a newer one has been captured meanwhile."""
    clock = VirtualClock()
    source = Frames(120, live=True, seconds=0.005, sleep=clock.sleep)
    newest, inferred = [0], []

    def infer(batch: NDArray[Any]) -> NDArray[np.float32]:
        inferred.append(int(batch[0, 0, 0, 0]) - 10)
        clock.sleep(0.0437)
        newest.append(source.read - 1)
        return batch[..., 0][None].astype(np.float32)

    class SlowToPrepare(DepthEstimator):
        def prepare(self, frame: Frame) -> NDArray[Any]:
            clock.sleep(0.0151)
            return super().prepare(frame)

    slow = SlowToPrepare(FakeEngine(deploy_spec(*SIZE), infer))
    run_pipeline(source, slow, [Kept()], clock=clock)

    assert len(inferred) > 5
    assert np.all(np.array(inferred) >= newest[:-1])


def test_a_slow_sink_does_not_age_the_depth_of_a_live_source() -> None:
    """The model waits for room before it reads a frame, not after."""
    clock = VirtualClock()
    source = Frames(80, live=True, seconds=0.01, sleep=clock.sleep)

    report = run_pipeline(
        source,
        estimator(seconds=0.0053, sleep=clock.sleep),
        [Kept(seconds=0.0507, sleep=clock.sleep)],
        clock=clock,
    )

    assert report.age.p90_ms < 16, "one frame time and one inference"
    assert report.written_age.p90_ms < 170, "three in flight, each written for 51 ms"
    assert report.frames + report.dropped == 80


def test_a_fast_model_drops_nothing_of_a_live_source() -> None:
    """Frames are dropped only if there is no time for them."""
    clock, sink = VirtualClock(), Kept()

    report = run_pipeline(
        Frames(10, live=True, seconds=0.03, sleep=clock.sleep), estimator(), [sink], clock=clock
    )

    assert (sink.indices, report.dropped) == (list(range(10)), 0)


@pytest.mark.parametrize("live", [False, True])
def test_max_frames_ends_a_longer_stream(live: bool) -> None:
    """Exactly that many are written, and a file is not read beyond them."""
    clock, sink = VirtualClock(), Kept()
    source = Frames(1000, live=live, seconds=0.001, sleep=clock.sleep)

    report = run_pipeline(source, estimator(), [sink], max_frames=5, clock=clock)

    assert report.frames == len(sink.written) == 5
    assert live or source.read == 5


def test_max_frames_must_be_positive() -> None:
    """Zero is refused."""
    with pytest.raises(MsfnetError, match="at least 1"):
        run_pipeline(Frames(3), estimator(), [Kept()], max_frames=0)


def test_observers_see_a_running_stream_and_its_end() -> None:
    """A snapshot comes every interval, their frames add up, and the last one is complete."""
    clock = VirtualClock()
    seen: list[StreamStats] = []
    source = Frames(30, seconds=0.0203, sleep=clock.sleep)

    report = run_pipeline(
        source, estimator(), [Kept()], observers=[seen.append], interval_s=0.1, clock=clock
    )

    counts = [stats.frames for stats in seen]
    assert counts == [4, 9, 14, 19, 24, 29, 30], "609 ms hold six intervals and the end"
    assert report.frames == 30
    assert [times.frame for stats in seen for times in stats.recent] == list(range(30))
    assert {(stats.total, stats.live, stats.engine) for stats in seen} == {(30, False, "fake")}
    assert seen[2].fps == pytest.approx(50)
    assert all(times.age_ms <= times.written_age_ms for stats in seen for times in stats.recent)
    assert replace(seen[-1], recent=()) == report, "the last is of the whole run"


def test_a_slow_observer_slows_nothing() -> None:
    """Observers run in a separate thread; the stream ends with the observation under way."""
    clock = VirtualClock()
    report = run_pipeline(
        Frames(20, seconds=0.01, sleep=clock.sleep),
        estimator(),
        [Kept()],
        observers=[lambda stats: clock.sleep(0.3)],
        interval_s=0.01,
        clock=clock,
    )

    assert report.seconds == pytest.approx(0.31), "20 observations would take six seconds"


def test_the_health_of_the_source_is_reported() -> None:
    """Skipped frames and losses are those of the source."""

    class Hiccups(Frames):
        @property
        def health(self) -> SourceHealth:
            return SourceHealth(skipped=self.read // 2, losses=1)

    report = run_pipeline(Hiccups(10), estimator(), [Kept()])

    assert (report.skipped, report.losses) == (5, 1)


@pytest.mark.parametrize("live", [False, True])
def test_max_fps_spaces_the_frames(live: bool) -> None:
    """A file plays slower, without drops; of a camera the newest frame is inferred when due."""
    clock = VirtualClock()
    times: list[float] = []

    class Timed(Kept):
        def write(self, frame: Frame, depth: DepthMap) -> None:
            times.append(clock.now())
            super().write(frame, depth)

    count = 60 if live else 12
    source, sink = Frames(count, live=live, seconds=0.0101, sleep=clock.sleep), Timed()

    report = run_pipeline(source, estimator(), [sink], max_fps=20, clock=clock)

    assert report.fps < 25
    assert np.median(np.diff(times)) == pytest.approx(0.05, abs=0.0102 if live else 1e-9)
    assert report.frames + report.dropped == source.read
    assert live or sink.indices == list(range(12))
    assert report.age.p50_ms < (11 if live else 1000)


@pytest.mark.parametrize("name", ["max_fps", "interval_s"])
def test_a_rate_must_be_positive(name: str) -> None:
    """Zero is refused."""
    with pytest.raises(MsfnetError, match=name):
        run_pipeline(Frames(3), estimator(), [Kept()], **{name: 0.0})  # type: ignore[arg-type]


def test_sinks_are_polled_by_the_calling_thread_and_written_by_one_other() -> None:
    """Window systems need one thread, encoders one at a time."""
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


def test_a_real_video_becomes_one_depth_map_per_frame(real_data: Path, tmp_path: Path) -> None:
    """Frames pass from file to folder through the real decoder; depth has the frame's size."""
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
