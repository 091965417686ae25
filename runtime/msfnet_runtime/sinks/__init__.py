"""Opens outputs: videos, folders of files, Rerun."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import check_outputs, is_folder, refuse_input, same_path
from msfnet_runtime.sink import Sink
from msfnet_runtime.sinks.folder import NpzSink, PlySink, PngSink, earlier_files
from msfnet_runtime.sinks.options import DEFAULTS, SinkOptions
from msfnet_runtime.sinks.rerun import RECORDING_SUFFIX, RerunSink
from msfnet_runtime.sinks.video import VIDEO_SUFFIXES, VideoSink
from msfnet_runtime.spec import ModelSpec

_FOLDERS: dict[str, Callable[[str | Path, ModelSpec, SinkOptions], Sink]] = {
    "png": PngSink,
    "npz": NpzSink,
    "ply": PlySink,
}
"""The sink of ``PREFIX:FOLDER``, by prefix."""

_RERUN = "rerun"

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
    ``FOLDER``             16-bit PNG: a folder, new or empty; ``png:NAME.v2`` if it has a dot
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
    kind, target = _kind(text)
    if kind in _FOLDERS:
        return _FOLDERS[kind](target, spec, options)
    if kind == _RERUN:
        return RerunSink(str(target), spec, options)
    return _SUFFIXES[kind](Path(target), spec, options, fps)


def check_sinks(
    texts: Iterable[str | Path],
    *,
    inputs: Iterable[str | Path] = (),
    force: bool = False,
) -> None:
    """Check before any work that outputs can be written, and that nobody else's files are lost.

    Args:
        texts: the outputs, as :func:`open_sink` takes them.
        inputs: what is read: the model, the source.
        force: whether earlier recordings are replaced. Inputs never are, nor are files in a folder
            that its manifest does not list.

    Raises:
        MsfnetError: as :func:`~msfnet_runtime.files.check_outputs`; a folder is named twice, or is
            not empty and is not an earlier run that may be replaced.
    """
    targets = [_kind(text) for text in texts]
    read = list(inputs)
    files = [target for kind, target in targets if kind in _SUFFIXES]
    check_outputs(files, inputs=read, force=force)
    folders: list[Path] = []
    for folder in (Path(target) for kind, target in targets if kind in _FOLDERS):
        for source in read:
            refuse_input(folder, source)
        written = earlier_files(folder, force=force)
        if any(same_path(file, Path(source)) for file in written for source in read):
            raise MsfnetError(f"{folder} contains what is read; choose another folder")
        if any(same_path(folder, other) for other in folders):
            raise MsfnetError(f"{folder} is written twice; give each output a path of its own")
        folders.append(folder)


def _kind(text: str | Path) -> tuple[str, str | Path]:
    """Return the prefix or suffix that chooses a sink, and the sink's target.

    Raises:
        MsfnetError: there is no such sink.
    """
    prefix, colon, target = str(text).partition(":")
    if colon and prefix in _FOLDERS:
        if not target:
            raise MsfnetError(f"the output names no folder; write for example {prefix}:depth")
        return prefix, Path(target).absolute()
    if colon and prefix == _RERUN:
        return prefix, target
    path = Path(text).absolute()
    unknown_prefix = bool(colon) and prefix.isalpha()
    if not unknown_prefix and (is_folder(path) or not path.suffix):
        return "png", path
    if not unknown_prefix and path.suffix.lower() in _SUFFIXES:
        return path.suffix.lower(), path
    kind = f"{prefix}:" if unknown_prefix else path.suffix
    raise MsfnetError(
        f"cannot write {path.name}: unknown kind of output {kind}; name a file with one of "
        f"{', '.join(_SUFFIXES)}, or a folder: without a suffix for 16-bit PNG, or "
        f"{', '.join(f'{known}:…' for known in (*_FOLDERS, _RERUN))}",
        parameter="out",
    )
