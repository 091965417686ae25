"""Opens where depth goes: videos, folders of files, Rerun."""

from __future__ import annotations

from pathlib import Path

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.sink import Sink
from msfnet_runtime.sinks.arrays import NpzSink
from msfnet_runtime.sinks.clouds import PlySink
from msfnet_runtime.sinks.images import PngSink
from msfnet_runtime.sinks.options import SinkOptions
from msfnet_runtime.sinks.rerun import RECORDING_SUFFIX, RerunSink
from msfnet_runtime.sinks.video import VIDEO_SUFFIXES, VideoSink
from msfnet_runtime.spec import ModelSpec

_DEFAULTS = SinkOptions()


def open_sink(
    text: str | Path, spec: ModelSpec, fps: float = 30.0, options: SinkOptions = _DEFAULTS
) -> Sink:
    """Choose the sink by its text.

    =====================  =====================================================================
    ``NAME.mp4``           video; .mkv, .mov and .avi too
    ``FOLDER``             16-bit PNG: a folder without a suffix, new or empty
    ``npz:FOLDER``         NumPy files
    ``ply:FOLDER``         point clouds
    ``NAME.rrd``           a recording for Rerun
    ``rerun:``             a Rerun viewer, started here; ``rerun:HOST:PORT`` one that runs
    =====================  =====================================================================

    Args:
        text: as above.
        spec: the model's spec; its depth range sets the colours and the unit.
        fps: frame rate of a video where frames bear no usable timestamps.
        options: what the user chose.

    Raises:
        MsfnetError: another suffix, or a library is absent. An output that cannot be written is
            refused when the sink's context is entered, before the first frame.
    """
    kind, colon, rest = str(text).partition(":")
    if kind == "rerun" and colon:
        return RerunSink(rest, spec, options)
    if kind in ("npz", "ply") and colon:
        if not rest:
            raise MsfnetError(f"{kind}: names no folder; give {kind}:FOLDER")
        folder = Path(rest).absolute()
        return (NpzSink if kind == "npz" else PlySink)(folder, spec, options)
    path = Path(text).absolute()
    if path.is_dir() or not path.suffix:
        return PngSink(path, spec, options)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSink(path, spec, options, fps)
    if path.suffix.lower() == RECORDING_SUFFIX:
        return RerunSink(path, spec, options)
    raise MsfnetError(
        f"cannot write {path.name}: {path.suffix} is no kind of output; name a video "
        f"({', '.join(VIDEO_SUFFIXES)}), {RECORDING_SUFFIX} for Rerun, a folder without a suffix "
        "for 16-bit PNG, npz:FOLDER or ply:FOLDER"
    )
