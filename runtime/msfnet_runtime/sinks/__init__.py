"""Opens where depth goes: a video, or a folder of 16-bit PNG."""

from __future__ import annotations

from pathlib import Path

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.sink import Sink
from msfnet_runtime.sinks.images import PngSink
from msfnet_runtime.sinks.video import VIDEO_SUFFIXES, VideoSink
from msfnet_runtime.spec import ModelSpec


def open_sink(path: Path, spec: ModelSpec, fps: float = 30.0) -> Sink:
    """Choose the sink by the path.

    Args:
        path: a video (.mp4, .mkv, .mov, .avi), or a folder, new or empty, for PNG.
        spec: the model's spec; its depth range sets the colours and the PNG's unit.
        fps: frame rate of the video where frames bear no usable timestamps.

    Raises:
        MsfnetError: another suffix, or PyAV is absent. An output that cannot be written is
            refused when the sink's context is entered, before the first frame.
    """
    path = path.absolute()
    if path.is_dir() or not path.suffix:
        return PngSink(path, spec)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSink(path, spec, fps)
    raise MsfnetError(
        f"cannot write {path.name}: {path.suffix} is no kind of output; name a video "
        f"({', '.join(VIDEO_SUFFIXES)}), or a folder without a suffix for 16-bit PNG"
    )
