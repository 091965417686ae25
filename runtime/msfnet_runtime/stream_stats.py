"""What a running stream says of itself: one snapshot per interval, one for the whole run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from msfnet_runtime.words import counted


class FrameTimes(NamedTuple):
    """What one frame took, milliseconds."""

    frame: int
    """Its index in the source."""
    age_ms: float
    """From having the frame to having its depth."""
    written_age_ms: float
    """From having the frame to having written its depth."""
    capture_ms: float
    prepare_ms: float
    infer_ms: float
    finish_ms: float
    write_ms: float


@dataclass(frozen=True)
class Ages:
    """Percentiles of an age, milliseconds; 0 where no frame passed."""

    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p99_ms: float = 0.0


@dataclass(frozen=True)
class StageTimes:
    """Mean time of a frame in each stage, milliseconds; stages overlap."""

    capture_ms: float = 0.0
    """Reading, a camera's own wait included."""
    prepare_ms: float = 0.0
    infer_ms: float = 0.0
    finish_ms: float = 0.0
    write_ms: float = 0.0


@dataclass(frozen=True)
class QueueDepths:
    """Frames waiting between the stages."""

    captured: int = 0
    prepared: int = 0
    inferred: int = 0
    finished: int = 0


@dataclass(frozen=True)
class StreamStats:
    """A snapshot of a stream. Counts are totals; fps, ages and stages are the interval's.

    The interval is the time since the last snapshot; in the last, and in what a pipeline returns,
    the whole run.
    """

    frames: int
    """Frames written."""
    total: int
    """Frames there will be, where that is known; else 0."""
    dropped: int
    """Frames of a live source that a newer one replaced before they were looked at."""
    skipped: int
    """Frames that failed to decode."""
    losses: int
    """Times the source was lost and came back."""
    seconds: float
    """Since the first read."""
    fps: float
    """Frames written per second."""
    age: Ages
    """From capture to depth available, before it is written."""
    written_age: Ages
    """From capture to depth written."""
    stages: StageTimes
    queues: QueueDepths
    engine: str
    """What runs the model."""
    live: bool
    """Whether the source is live."""
    recent: tuple[FrameTimes, ...] = ()
    """The frames since the last snapshot, oldest first; empty in what a pipeline returns."""

    def line(self) -> str:
        """Return a snapshot as one short line, the count of frames left out."""
        counts = f", {self.dropped} dropped" * self.live + f", {self.skipped} skipped"
        lost = f", source lost {counted(self.losses, 'time')}" * bool(self.losses)
        return f"{self.fps:.1f} frames/s, age of depth {self.age.p99_ms:.0f} ms{counts}{lost}"

    def text(self) -> str:
        """Return what a whole run did as three lines."""
        counts = (
            f"{counted(self.dropped, 'older frame')} dropped" * bool(self.dropped),
            f"{counted(self.skipped, 'unreadable frame')} skipped" * bool(self.skipped),
            f"source lost {counted(self.losses, 'time')}" * bool(self.losses),
        )
        age, stages = self.age, self.stages
        return (
            f"{counted(self.frames, 'frame')} in {self.seconds:.1f} s, {self.fps:.1f} frames/s"
            f"{''.join(f', {count}' for count in counts if count)}\n"
            f"age of depth: median {age.p50_ms:.0f} ms, 90% {age.p90_ms:.0f} ms, "
            f"99% {age.p99_ms:.0f} ms; written by {self.written_age.p99_ms:.0f} ms\n"
            f"per frame: capture {stages.capture_ms:.1f} ms, prepare {stages.prepare_ms:.1f} ms, "
            f"infer {stages.infer_ms:.1f} ms, finish {stages.finish_ms:.1f} ms, "
            f"write {stages.write_ms:.1f} ms, overlapped; engine {self.engine}"
        )

    def to_json(self) -> str:
        """Return all but the single frames as one line of JSON, to three decimals."""
        values = asdict(replace(self, recent=()))
        del values["recent"]
        exact = json.dumps(values, allow_nan=False)
        return json.dumps(json.loads(exact, parse_float=lambda text: round(float(text), 3)))
