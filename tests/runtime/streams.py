"""Provides small streams for the tests of sources, sinks and the pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from msfnet_runtime import DepthEstimator, DepthMap, Frame
from msfnet_runtime.engines.fake import FakeEngine
from msfnet_runtime.sink import Sink, SinkBase
from msfnet_runtime.source import SourceBase
from tests.specs import deploy_spec

SIZE = (48, 80)


def frame(index: int, size: tuple[int, int] = SIZE) -> Frame:
    """Return a smooth picture whose level identifies its index, at 10 frames per second."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    picture = np.stack([rows % 100, columns % 100, (rows + columns) % 100], axis=-1) + 10 + index
    return Frame(picture.astype(np.uint8), index, index / 10)


def ramp(size: tuple[int, int], low: float = 0.5, high: float = 80.0) -> DepthMap:
    """Return depth that grows geometrically from left to right; its top left corner invalid."""
    values = np.broadcast_to(np.geomspace(low, high, size[1]), size).astype(np.float32)
    valid = np.ones(size, bool)
    valid[: size[0] // 4, : size[1] // 4] = False
    return DepthMap(values, valid)


def write_all(sink: Sink, frames: list[Frame], depth: DepthMap | None = None) -> None:
    """Write frames, each with the same depth or a ramp of its size."""
    with sink:
        for each in frames:
            sink.write(each, depth or ramp(each.image.shape[:2]))


def write_video(
    path: Path, pictures: Sequence[NDArray[np.uint8]], fps: int = 10, rotation: int = 0
) -> None:
    """Encode pictures with PyAV, turned by ``rotation`` degrees when played."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "5"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def scratch_video(path: Path, numbers: Sequence[int]) -> list[int]:
    """Overwrite three quarters of some packets of a video file; its container stays intact.

    Returns the positions of their frames in the video, sorted: packets come in another order.
    """
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for packet in (packets[number] for number in numbers):
        assert packet.pos is not None
        start, end = packet.pos + packet.size // 4, packet.pos + packet.size
        content[start:end] = b"\xff" * (end - start)
    path.write_bytes(content)
    order = sorted(p.pts or 0 for p in packets)
    return sorted(order.index(packets[number].pts or 0) for number in numbers)


def read_video(path: Path) -> tuple[list[NDArray[np.uint8]], list[float]]:
    """Decode a video with PyAV into RGB pictures and their times in seconds."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    return [np.asarray(f.to_ndarray(format="rgb24"), np.uint8) for f in decoded], [
        float(f.time or 0) for f in decoded
    ]


def psnr(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the peak signal-to-noise ratio of two uint8 pictures, dB."""
    error = float(np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


class Frames(SourceBase):
    """Yields ``count`` frames, each after ``seconds``; raises ``error`` before frame ``fails``."""

    def __init__(
        self,
        count: int,
        *,
        live: bool = False,
        seconds: float = 0.0,
        fails: int | None = None,
        error: BaseException | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.length = None if live else count
        self.live = live
        self.read = 0
        self._plan = (count, seconds, fails, error)
        self._sleep = sleep

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames."""
        count, seconds, fails, error = self._plan
        for index in range(count):
            self._sleep(seconds)
            if index == fails and error is not None:
                raise error
            self.read += 1
            yield frame(index)


class Kept(SinkBase):
    """Keeps each frame after ``seconds``; raises ``error`` at frame ``fails``."""

    def __init__(
        self,
        *,
        seconds: float = 0.0,
        fails: int | None = None,
        error: BaseException | None = None,
        ends_after: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.written: list[tuple[Frame, DepthMap]] = []
        self._plan = (seconds, fails, error, ends_after)
        self._sleep = sleep

    def write(self, frame: Frame, depth: DepthMap) -> None:
        """Keep one frame."""
        seconds, fails, error, _ = self._plan
        self._sleep(seconds)
        if frame.index == fails and error is not None:
            raise error
        self.written.append((frame, depth))

    def poll(self) -> bool:
        """End the stream once ``ends_after`` frames are written."""
        ends_after = self._plan[3]
        return ends_after is None or len(self.written) < ends_after

    @property
    def indices(self) -> list[int]:
        """The indices of the frames in the order of writing."""
        return [frame.index for frame, _ in self.written]


def estimator(
    *,
    seconds: float = 0.0,
    fails: int | None = None,
    error: BaseException | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> DepthEstimator:
    """Return a model whose depth in metres is the red channel, which identifies the frame."""
    calls = iter(range(1_000_000))

    def infer(batch: NDArray[Any]) -> NDArray[np.float32]:
        sleep(seconds)
        if next(calls) == fails and error is not None:
            raise error
        return batch[..., 0][None].astype(np.float32)

    return DepthEstimator(FakeEngine(deploy_spec(*SIZE), infer))
