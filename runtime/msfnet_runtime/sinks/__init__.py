"""Opens outputs: videos, folders of files, Rerun."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import is_folder
from msfnet_runtime.sink import Sink
from msfnet_runtime.sinks.folder import NpzSink, PlySink, PngSink
from msfnet_runtime.sinks.options import DEFAULTS, SinkOptions
from msfnet_runtime.sinks.rerun import RECORDING_SUFFIX, RerunSink
from msfnet_runtime.sinks.video import VIDEO_SUFFIXES, VideoSink
from msfnet_runtime.spec import ModelSpec

_PREFIXES: dict[str, Callable[[str, ModelSpec, SinkOptions], Sink]] = {
    "npz": NpzSink,
    "ply": PlySink,
    "rerun": RerunSink,
}
"""The sink of ``PREFIX:TARGET``, by prefix."""

_SUFFIXES: dict[str, Callable[[Path, ModelSpec, SinkOptions, float], Sink]] = {
    **dict.fromkeys(VIDEO_SUFFIXES, VideoSink),
    RECORDING_SUFFIX: lambda path, spec, options, _: RerunSink(path, spec, options),
}
"""The sink of a file, by suffix."""


def open_sink(
    text: str | Path, spec: ModelSpec, fps: float = 30.0, options: SinkOptions = DEFAULTS
) -> Sink:
    """Open the sink that a text names.

    =====================  =====================================================================
    ``NAME.mp4``           video; .mkv, .mov and .avi too
    ``FOLDER``             16-bit PNG: a folder without a suffix, new or empty
    ``npz:FOLDER``         NumPy files
    ``ply:FOLDER``         point clouds
    ``NAME.rrd``           a recording for Rerun
    ``rerun:``             a new Rerun viewer; ``rerun:HOST:PORT`` a running one
    =====================  =====================================================================

    Args:
        text: as above.
        spec: the model's spec; its depth range sets the colours and the unit.
        fps: frame rate of a video if the frames have no usable timestamps.
        options: the user's choices.

    Raises:
        MsfnetError: unknown suffix, or a library is absent. An output that cannot be written is
            refused on entering the sink's context, before the first frame.
    """
    prefix, colon, target = str(text).partition(":")
    if colon and prefix in _PREFIXES:
        return _PREFIXES[prefix](target, spec, options)
    path = Path(text).absolute()
    unknown_prefix = bool(colon) and prefix.isalpha()
    if not unknown_prefix and (is_folder(path) or not path.suffix):
        return PngSink(path, spec, options)
    if not unknown_prefix and path.suffix.lower() in _SUFFIXES:
        return _SUFFIXES[path.suffix.lower()](path, spec, options, fps)
    kind = f"{prefix}:" if unknown_prefix else path.suffix
    raise MsfnetError(
        f"cannot write {path.name}: unknown kind of output {kind}; name a file with one of "
        f"{', '.join(_SUFFIXES)}, a folder without a suffix for 16-bit PNG, or one of "
        f"{', '.join(f'{known}:…' for known in _PREFIXES)}",
        parameter="out",
    )
