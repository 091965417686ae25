"""The pipeline keeps order, overlaps its stages, and gives the newest of a live source."""

from __future__ import annotations

import threading
import time
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


def test_the_frame_taken_is_the_newest_when_the_model_becomes_free() -> None:
    """Preparing ahead never means an older frame: what was captured meanwhile is waited for."""
    source = Frames(120, live=True, seconds=0.005)
    newest, taken = [0], []

    def infer(batch: NDArray[Any]) -> NDArray[np.float32]:
        taken.append(int(batch[0, 0, 0, 0]) - 10)
        time.sleep(0.04)
        newest.append(source.read - 1)
        return batch[..., 0][None].astype(np.float32)

    class SlowToPrepare(DepthEstimator):
        def prepare(self, frame: Frame) -> NDArray[Any]:
            time.sleep(0.015)
            return super().prepare(frame)

    run_pipeline(source, SlowToPrepare(FakeEngine(deploy_spec(*SIZE), infer)), [Kept()])

    behind = np.array(newest[:-1]) - taken
    assert len(taken) > 5
    assert np.max(behind) <= 1, "one may arrive between the two looks"


def test_a_slow_sink_does_not_age_the_depth_of_a_live_source() -> None:
    """The model waits for room before it takes a frame, not after."""
    source = Frames(80, live=True, seconds=0.01)

    report = run_pipeline(source, estimator(seconds=0.005), [Kept(seconds=0.05)])

    assert report.age.p50_ms < 40
    assert report.written_age.p50_ms < 220, "three in flight, each written for 50 ms"
    assert report.frames + report.dropped == 80


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


def test_observers_see_a_running_stream_and_its_end() -> None:
    """Snapshots come every interval, their frames add up, and the last is complete."""
    seen: list[StreamStats] = []
    source = Frames(30, seconds=0.02)

    report = run_pipeline(source, estimator(), [Kept()], observers=[seen.append], interval_s=0.1)

    counts = [stats.frames for stats in seen]
    assert 4 <= len(seen) <= 12
    assert counts == sorted(counts)
    assert 1 <= counts[1] < 30
    assert counts[-1] == report.frames == 30
    assert [times.frame for stats in seen for times in stats.recent] == list(range(30))
    assert {(stats.total, stats.live, stats.engine) for stats in seen} == {(30, False, "fake")}
    assert 20 < seen[2].fps < 60, "frames are 20 ms apart"
    assert all(times.age_ms <= times.written_age_ms for stats in seen for times in stats.recent)
    assert replace(seen[-1], recent=()) == report, "the last is of the whole run"


def test_a_slow_observer_slows_nothing() -> None:
    """Observers have a thread of their own."""
    report = run_pipeline(
        Frames(20, seconds=0.01),
        estimator(),
        [Kept()],
        observers=[lambda stats: time.sleep(0.3)],
        interval_s=0.01,
    )

    assert report.seconds < 0.8, "30 observations would take nine seconds"


def test_the_health_of_the_source_is_told() -> None:
    """Skipped frames and losses come from the source, while it runs and at the end."""

    class Hiccups(Frames):
        @property
        def health(self) -> SourceHealth:
            return SourceHealth(skipped=self.read // 2, losses=1)

    report = run_pipeline(Hiccups(10), estimator(), [Kept()])

    assert (report.skipped, report.losses) == (5, 1)


@pytest.mark.parametrize("live", [False, True])
def test_max_fps_spaces_the_frames(live: bool) -> None:
    """A file plays slower, whole; of a camera the newest is taken when it is time."""
    moments: list[float] = []

    class Clocked(Kept):
        def write(self, frame: Frame, depth: DepthMap) -> None:
            moments.append(time.monotonic())
            super().write(frame, depth)

    source, sink = Frames(12 if not live else 60, live=live, seconds=0.01), Clocked()

    report = run_pipeline(source, estimator(), [sink], max_fps=20)

    assert report.fps < 25
    assert np.median(np.diff(moments)) == pytest.approx(0.05, abs=0.015)
    assert report.frames + report.dropped == source.read
    assert live or sink.indices == list(range(12))
    assert report.age.p50_ms < (40 if live else 1000)


@pytest.mark.parametrize("name", ["max_fps", "interval_s"])
def test_a_rate_must_be_positive(name: str) -> None:
    """Zero frames per second would never end."""
    with pytest.raises(MsfnetError, match=name):
        run_pipeline(Frames(3), estimator(), [Kept()], **{name: 0.0})  # type: ignore[arg-type]


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
