"""The gain of overlapping the stages, and the age of depth: the pipeline against its parts.

``python -m tests.rigs.streaming_benchmark MODEL [--minutes M]``: a generated video is
streamed into side-by-side video by the pipeline, by a plain read-infer-write loop, and its frames
are inferred by the engine alone, in turns; then a live source is followed by a slowed engine. The
engine has one thread, so that of two cores one is left to the other stages.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.tables import format_table
from msfnet_benchmarks.timing.core import Samples, time_calls
from msfnet_runtime import DepthEstimator, Frame, MsfnetError
from msfnet_runtime.engine import Engine, EngineBase
from msfnet_runtime.pipeline import run_pipeline
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sinks import open_sink
from msfnet_runtime.source import SourceBase
from msfnet_runtime.sources import open_source
from msfnet_runtime.sources.synthetic import SyntheticSource
from msfnet_runtime.stream_stats import StreamStats

LIVE_FPS = 30.0
LIVE_LATENCY_S = 0.06
"""What the slowed engine takes: less than 17 frames per second."""

Size = tuple[int, int]

SMALL: Size = (228, 304)
"""(height, width) of a video that is quick to write: a light model's engine is the bottleneck."""

LARGE: Size = (480, 640)
"""A video that takes longer to write than a light model takes."""

_RENDERED = 60
"""Generated frames; a longer video plays them forth and back."""


@dataclass(frozen=True)
class StreamingReport:
    """Rates are frames per second, the fastest round of each: other work only ever slows."""

    engine_fps: float
    """The engine alone, on prepared frames of the small video."""
    small: StreamStats
    """The pipeline on the small video."""
    plain_fps: float
    """Read, infer, write, read, … on the large video."""
    large: StreamStats
    """The pipeline on the large video."""
    live: StreamStats
    """The pipeline with a live source and the slowed engine."""
    latency_ms: float
    """The slowed engine's median latency."""
    latency_p99_ms: float
    """The same at 99 %: what other work on the machine cost."""

    @property
    def of_engine(self) -> float:
        """The pipeline's rate over the engine's own."""
        return self.small.fps / self.engine_fps

    @property
    def over_plain(self) -> float:
        """The pipeline's rate over the plain loop's."""
        return self.large.fps / self.plain_fps

    @property
    def age_limit_ms(self) -> float:
        """Two frame intervals and one and a half latencies."""
        return 2000 / LIVE_FPS + 1.5 * self.latency_ms

    def text(self) -> str:
        """Return the three ratios beside their targets, and what each stage took."""
        small, large, live = self.small, self.large, self.live
        rows = [
            (
                "small video: pipeline / engine alone",
                f"{small.fps:.1f} / {self.engine_fps:.1f} frames/s",
                f"{self.of_engine:.2f}",
                "at least 0.95",
            ),
            (
                "large video: pipeline / plain loop",
                f"{large.fps:.1f} / {self.plain_fps:.1f} frames/s",
                f"{self.over_plain:.2f}",
                "at least 1.30",
            ),
            (
                f"live, {live.seconds / 60:.1f} min: age of depth 99% / limit",
                f"{live.age.p99_ms:.0f} / {self.age_limit_ms:.0f} ms",
                f"{live.age.p99_ms / self.age_limit_ms:.2f}",
                "below 1",
            ),
        ]
        stages = "\n".join(
            f"{name}: {stats.text()}"
            for name, stats in (("small", small), ("large", large), ("live", live))
        )
        return (
            f"{format_table(('', 'measured', 'ratio', 'target'), rows)}\n{stages}\n"
            f"slowed engine: median {self.latency_ms:.0f} ms, 99% {self.latency_p99_ms:.0f} ms"
        )


class SlowedEngine(EngineBase):
    """Runs the model over and over until ``latency_s`` has passed: slower, and as busy."""

    def __init__(self, engine: Engine, latency_s: float) -> None:
        super().__init__(engine.spec)
        self._engine, self._latency_s = engine, latency_s
        self.latencies_s: list[float] = []

    def describe(self) -> str:
        """Name the engine that is slowed."""
        return f"{self._engine.describe()}, slowed"

    def _run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        start = time.monotonic()
        output = self._engine.infer(batch)
        while time.monotonic() - start < self._latency_s:
            output = self._engine.infer(batch)
        self.latencies_s.append(time.monotonic() - start)
        return output


class LiveFrames(SourceBase):
    """Pictures of a camera: one every ``1 / LIVE_FPS`` s by the clock, whoever looks or not."""

    live = True
    fps = LIVE_FPS

    def __init__(self, pictures: Sequence[NDArray[np.uint8]], seconds: float) -> None:
        self._pictures = pictures
        self._count = max(1, round(seconds * LIVE_FPS))

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames, copied as a camera's are."""
        start = time.monotonic()
        for index in range(self._count):
            seconds = index / LIVE_FPS
            time.sleep(max(0.0, start + seconds - time.monotonic()))
            yield Frame(self._pictures[index % len(self._pictures)].copy(), index, seconds)


def measure_streaming(
    engine: Engine,
    *,
    frames: int = 500,
    seconds: float = 30.0,
    rounds: int = 3,
    sizes: tuple[Size, Size] = (SMALL, LARGE),
    progress: Progress = silent,
) -> StreamingReport:
    """Stream generated videos and a generated camera, each way, in turns.

    Args:
        engine: an open engine.
        frames: length of the videos.
        seconds: how long the live source is followed.
        rounds: how often each video is gone through, each way.
        sizes: (height, width) of the small and the large video, even.
        progress: called after each part that is timed.

    Raises:
        MsfnetError: PyAV is absent, or the temporary folder is full.
    """
    estimator = DepthEstimator(engine)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = [folder / "small.mp4", folder / "large.mp4"]
        for video, size in zip(videos, sizes, strict=True):
            _write_video(video, _pictures(size), frames)
        streamed: dict[str, list[StreamStats]] = {"small": [], "large": []}
        batches = _batches(estimator, videos[0], min(frames, 16))

        def engine_alone(frames: int) -> None:
            for number in range(frames):
                estimator.infer(batches[number % len(batches)])

        calls: dict[str, Callable[[int], object]] = {
            "engine": engine_alone,
            "small": lambda _: streamed["small"].append(_pipeline(estimator, videos[0], folder)),
            "plain": lambda _: _plain_loop(estimator, videos[1], folder),
            "large": lambda _: streamed["large"].append(_pipeline(estimator, videos[1], folder)),
        }
        timed = time_calls(calls, [frames], rounds=rounds, warmup=0, progress=progress)
        engine_fps, plain_fps = (1e3 * frames / timed[n].ms.min() for n in ("engine", "plain"))
        slowed = SlowedEngine(engine, LIVE_LATENCY_S)
        source = LiveFrames(_pictures(sizes[1]), seconds)
        with open_sink(folder / "live.mp4", engine.spec, LIVE_FPS) as sink:
            live = run_pipeline(source, DepthEstimator(slowed), [sink])
    small, large = (max(runs, key=lambda stats: stats.fps) for runs in streamed.values())
    latency = Samples("slowed engine", 1e3 * np.array([slowed.latencies_s])).summary()
    return StreamingReport(
        engine_fps, small, plain_fps, large, live, latency.p50_ms, latency.p99_ms
    )


def _pictures(size: Size) -> list[NDArray[np.uint8]]:
    """Render a street forth and back, (H, W, 3) uint8 each."""
    forth = [f.image for f in SyntheticSource("street", frames=_RENDERED // 2, size=size)]
    return [*forth, *reversed(forth)]


def _write_video(path: Path, pictures: Sequence[NDArray[np.uint8]], frames: int) -> None:
    try:
        import av
    except ImportError:
        raise MsfnetError("this writes video; run `pip install 'msfnet[video]'`") from None
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=int(LIVE_FPS), options={"crf": "18"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            picture = pictures[index % len(pictures)]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def _batches(estimator: DepthEstimator, video: Path, count: int) -> list[NDArray[Any]]:
    """Return the first frames of a video as the engine takes them."""
    with open_source(str(video)) as source:
        return [estimator.prepare(frame) for frame in islice(source, count)]


def _plain_loop(estimator: DepthEstimator, video: Path, folder: Path) -> None:
    """Read, infer and write one frame after the other."""
    out = folder / "plain.mp4"
    out.unlink(missing_ok=True)
    with open_source(str(video)) as source, open_sink(out, estimator.spec, source.fps) as sink:
        for frame in source:
            sink.write(frame, estimator(frame))


def _pipeline(estimator: DepthEstimator, video: Path, folder: Path) -> StreamStats:
    out = folder / "pipeline.mp4"
    out.unlink(missing_ok=True)
    with open_source(str(video)) as source, open_sink(out, estimator.spec, source.fps) as sink:
        return run_pipeline(source, estimator, [sink])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the model named on the command line and print the ratios; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.rigs.streaming_benchmark", description=__doc__
    )
    parser.add_argument("model", type=Path, help="ONNX file or engine")
    parser.add_argument("--minutes", type=float, default=0.5, help="of the live source")
    parser.add_argument("--frames", type=int, default=500, help="of the videos")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of the engine")
    options = parser.parse_args(arguments)

    def tell(done: int, total: int, what: str) -> None:
        print(f"\r{done}/{total} {what}".ljust(40), end="", file=sys.stderr, flush=True)

    try:
        with DepthEstimator.open(options.model, threads=options.threads) as estimator:
            report = measure_streaming(
                estimator.engine,
                frames=options.frames,
                seconds=60 * options.minutes,
                rounds=options.rounds,
                progress=tell,
            )
    except MsfnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\n{report.text()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
