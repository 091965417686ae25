"""Whether a stream lasts: memory, descriptors and counts over many frames and mishaps.

``python -m msfnet_benchmarks.streaming_soak [MODEL] [--frames 20000]``: a camera that gives bad
frames and is lost ten times is streamed into a video, 16-bit PNG and a live page, one of whose
viewers stops reading. Without a model depth is made from brightness.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.tables import format_table
from msfnet_runtime import DepthEstimator, ModelSpec, MsfnetError, TensorSpec
from msfnet_runtime.engines.fake import FakeEngine
from msfnet_runtime.pipeline import run_pipeline
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sinks import open_sink
from msfnet_runtime.sources import camera as cameras
from msfnet_runtime.sources.camera import LiveSource
from msfnet_runtime.sources.synthetic import SyntheticSource
from msfnet_runtime.stream_stats import StreamStats
from msfnet_runtime.web import WebSink

SIZE = (96, 128)
"""(height, width) of the camera's pictures."""

LOSSES = 10

BAD_SHARE = 0.01

MAX_GROWTH = 0.03
"""Of resident memory, from the end of the warm-up to the end."""

_WARM_UP = 0.1
"""Share of the frames after which memory should not grow."""


class FlakyCamera:
    """What OpenCV's VideoCapture is to a source: 1 % of its frames are bad, and it breaks off.

    Args:
        jpegs: its pictures, one after the other.
        lives: frames until it is lost.
        fps: frames per second, by the clock.
    """

    def __init__(self, jpegs: Sequence[bytes], lives: int, fps: float) -> None:
        self._jpegs, self._left, self._period_s = jpegs, lives, 1 / fps
        self._due = time.monotonic()
        self._count = 0

    def get(self, _: int) -> float:
        """Know nothing."""
        return 0.0

    def grab(self) -> bool:
        """Wait for the next frame; False once the camera is lost."""
        self._left -= 1
        self._count += 1
        self._due += self._period_s
        time.sleep(max(0.0, self._due - time.monotonic()))
        return self._left >= 0

    def retrieve(self) -> tuple[bool, NDArray[np.uint8] | None]:
        """Decode the frame, which in one of a hundred cases fails."""
        content = self._jpegs[self._count % len(self._jpegs)]
        if self._count % round(1 / BAD_SHARE) == 0:
            content = content[2 : len(content) // 2]
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        return image is not None, cast("NDArray[np.uint8] | None", image)

    def release(self) -> None:
        """Have nothing to give back."""


@dataclass
class _Samples:
    """Resident memory over the run, bytes, by frames written."""

    rows: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, stats: StreamStats) -> None:
        self.rows.append((stats.frames, resident_bytes()))

    def growth(self, frames: int) -> float:
        """Return the last tenth's median over that of the tenth after the warm-up, minus 1."""
        early = [m for n, m in self.rows if _WARM_UP * frames <= n < 2 * _WARM_UP * frames]
        late = [m for n, m in self.rows if n >= (1 - _WARM_UP) * frames]
        return float(np.median(late) / np.median(early or late)) - 1


@dataclass(frozen=True)
class SoakReport:
    """What was left after the run."""

    stats: StreamStats
    growth: float
    """Of resident memory after the warm-up."""
    descriptors: int
    """More open files than before."""
    threads: int
    """More threads than before."""
    pictures: int
    """PNG files written."""
    video_frames: int
    """Frames that the video holds."""

    def rows(self) -> list[tuple[str, str, str, bool]]:
        """Return what was measured, the limit, and whether it holds."""
        frames, stats = self.stats.frames, self.stats
        bad = stats.skipped / max(frames + stats.dropped + stats.skipped, 1)
        return [
            ("memory", f"{self.growth:+.1%}", f"under {MAX_GROWTH:.0%}", self.growth < MAX_GROWTH),
            ("descriptors", f"{self.descriptors:+d}", "none more", self.descriptors <= 0),
            ("threads", f"{self.threads:+d}", "none more", self.threads <= 0),
            ("camera losses", str(stats.losses), f"{LOSSES} survived", stats.losses == LOSSES),
            ("bad frames", f"{stats.skipped} ({bad:.1%})", "skipped", stats.skipped > 0),
            ("PNG", str(self.pictures), f"all {frames}", self.pictures == frames),
            ("video", str(self.video_frames), f"all {frames}", self.video_frames == frames),
        ]

    @property
    def passed(self) -> bool:
        """Whether all limits hold."""
        return all(row[3] for row in self.rows())

    def text(self) -> str:
        """Return a table, and what the stream says of itself."""
        rows = [(*row[:3], "yes" if row[3] else "NO") for row in self.rows()]
        return f"{format_table(('', 'measured', 'limit', 'holds'), rows)}\n{self.stats.text()}"


def resident_bytes() -> int:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def soak(
    estimator: DepthEstimator,
    folder: Path,
    *,
    frames: int = 20_000,
    fps: float = 400.0,
    progress: Progress = silent,
) -> SoakReport:
    """Stream a flaky camera into a video, PNG and a live page whose viewer stops reading.

    Args:
        estimator: the model.
        folder: for the outputs; new.
        frames: how many to write.
        fps: of the camera.
        progress: told every second.

    Raises:
        MsfnetError: an extra (``video``, ``web``) is missing, or the folder cannot be written.
    """
    jpegs = _jpegs()
    spec, samples = estimator.spec, _Samples()
    gc.collect()
    before = _open_files(), threading.active_count()
    with ExitStack() as stack:
        stack.enter_context(_short_waits())
        lives = frames // (LOSSES + 2)
        source = stack.enter_context(_camera(jpegs, lives, frames, fps))
        page = stack.enter_context(WebSink(spec, port=0))
        sinks = [
            stack.enter_context(open_sink(folder / "soak.mp4", spec, fps)),
            stack.enter_context(open_sink(folder / "png", spec)),
            page,
        ]
        stack.enter_context(_viewer_that_stops(page.address))
        stats = run_pipeline(
            source,
            estimator,
            sinks,
            max_frames=frames,
            observers=(
                samples,
                page.observe,
                lambda stats: progress(stats.frames, frames, stats.line()),
            ),
        )
    gc.collect()
    return SoakReport(
        stats=stats,
        growth=samples.growth(frames),
        descriptors=_open_files() - before[0],
        threads=threading.active_count() - before[1],
        pictures=len(list((folder / "png").glob("*.png"))),
        video_frames=_count_frames(folder / "soak.mp4"),
    )


def brightness_engine() -> FakeEngine:
    """Return an engine that takes dark for far, at next to no cost."""
    height, width = SIZE
    spec = ModelSpec(
        inputs=(TensorSpec("frame", "uint8", (1, height, width, 3)),),
        outputs=(TensorSpec("depth", "float32", (1, 1, height, width)),),
        graph="deploy",
        size=SIZE,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        depth_kind="metric",
        depth_range_m=(1.0, 80.0),
        dataset="none",
        encoder="brightness",
    )

    def depth(batch: NDArray[Any]) -> NDArray[np.float32]:
        grey = batch.mean(axis=3, dtype=np.float32)[:, None]
        return np.asarray(1 + 79 * (1 - grey / 255), np.float32)

    return FakeEngine(spec, depth)


def _jpegs() -> list[bytes]:
    street = SyntheticSource("street", frames=20, size=SIZE)
    return [cv2.imencode(".jpg", frame.image[..., ::-1])[1].tobytes() for frame in street]


def _camera(jpegs: Sequence[bytes], lives: int, frames: int, fps: float) -> LiveSource:
    """Return a source whose camera lives as often as it is lost, and then to the end."""
    left = iter([*[lives] * LOSSES, 10 * frames])
    return LiveSource(lambda: FlakyCamera(jpegs, next(left), fps), "the flaky camera")


@contextmanager
def _short_waits() -> Iterator[None]:
    before, cameras.FIRST_WAIT_S = cameras.FIRST_WAIT_S, 0.05
    try:
        yield
    finally:
        cameras.FIRST_WAIT_S = before


@contextmanager
def _viewer_that_stops(address: str) -> Iterator[None]:
    """Follow the page for one frame, then read no more."""
    from websockets.sync.client import connect

    url = address.replace("http://", "ws://").rstrip("/") + "/ws"
    with connect(url, max_queue=1) as viewer:
        viewer.recv()
        viewer.send("next")
        yield


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _count_frames(path: Path) -> int:
    import av

    with av.open(str(path)) as video:
        return sum(1 for packet in video.demux(video=0) if packet.size)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak and print its table; return 0 if all limits hold."""
    parser = argparse.ArgumentParser(
        prog="python -m msfnet_benchmarks.streaming_soak", description=__doc__
    )
    parser.add_argument("model", type=Path, nargs="?", help="ONNX file or engine")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--fps", type=float, default=400.0, help="of the camera")
    options = parser.parse_args(arguments)

    def tell(done: int, total: int, what: str) -> None:
        print(f"\r{done}/{total} {what}".ljust(79), end="", file=sys.stderr, flush=True)

    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            estimator = (
                DepthEstimator.open(options.model, threads=1)
                if options.model
                else DepthEstimator(brightness_engine())
            )
            stack.enter_context(estimator)
            report = soak(estimator, folder, frames=options.frames, fps=options.fps, progress=tell)
    except MsfnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\n{report.text()}")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
