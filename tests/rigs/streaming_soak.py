"""Whether a stream lasts, and what it leaves when it is cut off: the real command, from outside.

``python -m tests.rigs.streaming_soak [MODEL] [--frames 20000]`` runs ``msfnet stream`` as
a process on a network camera that damages pictures and is lost ten times, into a video, 16-bit
PNG and a live page, one of whose viewers stops reading. Then it kills a process that records, and
fills the disk of another. Without a model depth is made from brightness.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np

from msfnet_benchmarks.tables import format_table
from msfnet_runtime import MsfnetError
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sources.synthetic import SyntheticSource
from tests.rigs.brightness import write_brightness_model
from tests.rigs.flaky_camera import FlakyCamera
from tests.rigs.stream_process import Sample, StreamProcess

SIZE = (96, 128)
"""(height, width) of the camera's pictures."""

LOSSES = 10

BAD_EVERY = 100
"""One of so many pictures is damaged."""

MAX_GROWTH = 0.03
"""Of resident memory, from the end of the warm-up to the end."""

_WARM_UP = 0.1
"""Share of the run after which memory should not grow."""

_AWAY_S = 0.7
"""How long the lost camera refuses connections: the first attempt to come back fails."""

_CUT_FPS = 60.0
"""Of the camera whose recording is cut off: slow enough that the model misses none."""

_FULL_AT_BYTES = 300_000


class Check(NamedTuple):
    """One line of the report."""

    what: str
    measured: str
    limit: str
    holds: bool


@dataclass(frozen=True)
class SoakReport:
    """The result."""

    checks: tuple[Check, ...]
    summary: str
    """What the long run says of itself."""

    @property
    def passed(self) -> bool:
        """Whether all limits hold."""
        return all(check.holds for check in self.checks)

    def text(self) -> str:
        """Return a table, and the long run's own words."""
        rows = [(*check[:3], "yes" if check.holds else "NO") for check in self.checks]
        return f"{format_table(('', 'measured', 'limit', 'holds'), rows)}\n{self.summary}"


def soak(
    folder: Path,
    *,
    model: Path | None = None,
    frames: int = 20_000,
    fps: float = 400.0,
    cut_after: int = 300,
    progress: Progress = silent,
) -> SoakReport:
    """Run all three parts.

    Args:
        folder: for model and outputs; empty.
        model: ONNX file or engine; None makes one.
        frames: how many the long run writes.
        fps: of its camera.
        cut_after: frames that are written before a recording is cut off.
        progress: called every second.

    Raises:
        MsfnetError: an extra (``video``, ``web``, ``export``) is missing, or the command hangs.
    """
    if model is None:
        model = folder / "brightness.onnx"
        write_brightness_model(model, SIZE)
    lasting, summary = _lasting(model, folder / "long", frames, fps, progress)
    progress(frames, frames, "killing a recording")
    killed = _killed(model, folder / "killed", cut_after)
    progress(frames, frames, "filling a disk")
    full = _full_disk(model, folder / "full", cut_after)
    return SoakReport((*lasting, *killed, *full), summary)


def growth(samples: Sequence[Sample]) -> float:
    """Return resident memory in the last tenth over that in the tenth after the warm-up, less 1."""
    tenth = _tenth(samples)
    early, late = samples[tenth : 2 * tenth] or samples, samples[-tenth:]
    memory = [np.median([sample.resident_bytes for sample in some]) for some in (early, late)]
    return float(memory[1] / memory[0]) - 1


def more(samples: Sequence[Sample], what: Literal["descriptors", "threads"]) -> int:
    """Return how many of these the last tenth always has beyond the most of the first half.

    Files that are just being written and a camera that is away move the count up and down; what
    every loss or frame leaves behind keeps rising in the second half.
    """
    counts = [getattr(sample, what) for sample in samples]
    early = counts[_tenth(samples) : len(counts) // 2] or counts
    return int(min(counts[-_tenth(samples) :]) - max(early))


def _tenth(samples: Sequence[Sample]) -> int:
    return max(1, round(_WARM_UP * len(samples)))


def _lasting(
    model: Path, folder: Path, frames: int, fps: float, progress: Progress
) -> tuple[list[Check], str]:
    """Stream a flaky camera for long; a viewer stops reading."""
    camera = FlakyCamera(
        _jpegs(),
        fps=fps,
        lives=[frames // (LOSSES + 2)] * LOSSES,
        away_s=_AWAY_S,
        damaged_every=BAD_EVERY,
    )

    def tell(snapshot: dict[str, Any]) -> None:
        progress(snapshot["frames"], frames, f"{snapshot['fps']:.0f} frames/s")

    with ExitStack() as stack:
        url = stack.enter_context(camera.running())
        options = ("--frames", str(frames), "--web-address", "127.0.0.1:0", "--threads", "1")
        process = stack.enter_context(
            StreamProcess([model, url, *_outputs(folder), *options], tell)
        )
        stack.enter_context(_viewer_that_stops(process.page()))
        process.reach(frames)
        status, stats = process.end()
    if status:
        raise MsfnetError(f"msfnet stream ended with {status}: {' '.join(process.messages[-1:])}")
    files, threads = (more(process.samples, what) for what in ("descriptors", "threads"))
    grown, written, lost = growth(process.samples), stats["frames"], stats["losses"]
    bad, read = stats["skipped"], written + stats["dropped"] + stats["skipped"]
    pictures, video = len(_pictures(folder)), _count_frames(folder / "soak.mp4")
    checks = [
        Check("memory", f"{grown:+.1%}", f"under {MAX_GROWTH:.0%}", grown < MAX_GROWTH),
        Check("descriptors", f"{files:+d}", "none more", files <= 0),
        Check("threads", f"{threads:+d}", "none more", threads <= 0),
        Check("camera losses", str(lost), f"{LOSSES} survived", lost == LOSSES),
        # Of what the camera sent, a little is still on its way when the stream ends.
        Check(
            "damaged pictures",
            f"{bad} of {read}",
            f"1 in {BAD_EVERY} skipped",
            abs(bad - read / BAD_EVERY) <= 2 and bad <= camera.damaged,
        ),
        Check("PNG", str(pictures), f"all {frames}", pictures == written == frames),
        Check("video", str(video), f"all {frames}", video == frames),
    ]
    last = process.samples[-_tenth(process.samples) :]
    memory = np.median([sample.resident_bytes for sample in last]) / 1e6
    return checks, (
        f"{written} frames in {stats['seconds']:.0f} s, {stats['fps']:.0f} frames/s, "
        f"{stats['dropped']} older ones dropped; age of depth: 99% {stats['age']['p99_ms']:.0f} "
        f"ms; {memory:.0f} MB at the end"
    )


def _killed(model: Path, folder: Path, cut_after: int) -> list[Check]:
    """Kill a process while it records; look at what it leaves."""
    with (
        FlakyCamera(_jpegs(), fps=_CUT_FPS).running() as url,
        StreamProcess([model, url, *_outputs(folder)]) as process,
    ):
        process.reach(cut_after)
        process.kill()
        moment = time.time()
    pictures = _pictures(folder)
    whole = sum(cv2.imread(str(file), cv2.IMREAD_UNCHANGED) is not None for file in pictures)
    lines = _manifest_frames(folder)
    return [
        _kept("killed: video", folder, moment - 1),
        Check("killed: PNG", str(whole), f"all {len(pictures)} whole", whole == len(pictures)),
        Check(
            "killed: manifest",
            f"{lines} lines",
            "whole, one missing at most",
            len(pictures) - 1 <= lines <= len(pictures),
        ),
    ]


def _full_disk(model: Path, folder: Path, cut_after: int) -> list[Check]:
    """Let a process record until a file may not grow any more; look at how it ends."""
    with (
        FlakyCamera(_jpegs(), fps=_CUT_FPS).running() as url,
        StreamProcess([model, url, *_outputs(folder), "--frames", str(100 * cut_after)]) as process,
    ):
        process.limit_files(_FULL_AT_BYTES)
        status, _ = process.end()
    pictures = _pictures(folder)
    said, lines = len(process.messages), _manifest_frames(folder)
    one_line = said == 1 and process.messages[0].startswith("error: cannot write ")
    last = max(file.stat().st_mtime for file in pictures)
    return [
        Check("full disk: exit status", str(status), "1", status == 1),
        Check("full disk: says", f"{said} lines", "one, why and what next", one_line),
        _kept("full disk: video", folder, last - 1),
        Check(
            "full disk: PNG",
            str(len(pictures)),
            "all in the manifest",
            len(pictures) == lines > 0,
        ),
    ]


def _kept(what: str, folder: Path, moment: float) -> Check:
    """Compare a video that broke off with the PNG files that were there at a moment."""
    decoded = _count_frames(folder / "soak.partial.mp4")
    due = sum(file.stat().st_mtime <= moment for file in _pictures(folder))
    return Check(what, f"{decoded} frames", f"{due} of a second before", decoded >= due > 0)


def _outputs(folder: Path) -> list[str]:
    return ["--out", f"{folder / 'soak.mp4'}", "--out", f"{folder / 'png'}"]


def _pictures(folder: Path) -> list[Path]:
    """Return the finished PNG files."""
    return list((folder / "png").glob("[!.]*.png"))


def _manifest_frames(folder: Path) -> int:
    """Return how many frames a manifest lists; every line of it must be whole."""
    lines = (folder / "png" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return len([json.loads(line) for line in lines]) - 1


def _count_frames(path: Path) -> int:
    """Return how many frames of a video can be decoded, up to where it breaks off."""
    import av

    count = 0
    with av.open(str(path)) as video, suppress(av.FFmpegError):
        for _ in video.decode(video=0):
            count += 1
    return count


def _jpegs() -> list[bytes]:
    street = SyntheticSource("street", frames=20, size=SIZE)
    return [cv2.imencode(".jpg", frame.image[..., ::-1])[1].tobytes() for frame in street]


@contextmanager
def _viewer_that_stops(address: str) -> Iterator[None]:
    """Follow the page for one frame, then read no more."""
    from websockets.sync.client import connect

    url = address.replace("http://", "ws://").rstrip("/") + "/ws"
    with connect(url, max_queue=1, close_timeout=1) as viewer:
        viewer.recv()
        viewer.send("next")
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak and print its table; return 0 if all limits hold."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.rigs.streaming_soak", description=__doc__
    )
    parser.add_argument("model", type=Path, nargs="?", help="ONNX file or engine")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--fps", type=float, default=400.0, help="of the camera")
    options = parser.parse_args(arguments)

    def tell(done: int, total: int, what: str) -> None:
        print(f"\r{done}/{total} {what}".ljust(79), end="", file=sys.stderr, flush=True)

    try:
        with tempfile.TemporaryDirectory() as folder:
            report = soak(
                Path(folder),
                model=options.model,
                frames=options.frames,
                fps=options.fps,
                progress=tell,
            )
    except MsfnetError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    print(f"\n{report.text()}")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
