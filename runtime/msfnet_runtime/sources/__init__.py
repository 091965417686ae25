"""Opens the source that a text names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError, NothingFoundError
from msfnet_runtime.files import is_folder
from msfnet_runtime.images import IMAGE_SUFFIXES
from msfnet_runtime.source import Source
from msfnet_runtime.sources.adapters import IterableSource, RotatedSource
from msfnet_runtime.sources.addresses import without_secrets
from msfnet_runtime.sources.images import ImageFiles, ImageFolder
from msfnet_runtime.sources.kitti import KittiDrive, find_drives
from msfnet_runtime.sources.live import CameraSource, GStreamerSource, StreamSource
from msfnet_runtime.sources.nyu import NyuList, find_lists
from msfnet_runtime.sources.options import DEFAULTS, SourceOptions
from msfnet_runtime.sources.rgbd import RgbdFolder, find_scenes
from msfnet_runtime.sources.video import VideoSource
from msfnet_runtime.types import Frame

__all__ = ["IterableSource", "SourceOptions", "holds", "open_source"]


def open_source(
    what: str | int | Path | Iterable[Frame | NDArray[np.uint8]], options: SourceOptions = DEFAULTS
) -> Source:
    """Open a source.

    Args:
        what: camera index (``0``) or device (``/dev/video0``), address (``rtsp://…``, ``http://…``),
            GStreamer pipeline (``… ! appsink``), ``synthetic:…``, a video file, an image, a
            pattern (``frames/*.png``), an NYU list (``.csv``), a folder: KITTI drive, date or
            root, NYU data set, RGB-D pairs (the images alone), or images; or an iterable of frames
            or RGB images.
        options: the user's choices.

    Raises:
        MsfnetError: it is missing, unreadable, or contains no frames.
    """
    if isinstance(what, Iterable) and not isinstance(what, str):
        source: Source = IterableSource(what)
    else:
        source = _open(str(what), options)
    return RotatedSource(source, options.rotate) if options.rotate else source


def _open(text: str, options: SourceOptions) -> Source:
    if text.startswith("synthetic:"):
        from msfnet_runtime.sources.synthetic import open_synthetic

        return open_synthetic(text)
    if text.startswith("file://"):
        return _open_path(Path(unquote(urlsplit(text).path)), options)
    live = _open_live(text, options)
    if live is not None:
        return live
    try:
        exists = Path(text).exists()
    except (OSError, ValueError) as error:
        kind = type(error).__name__
        shown = without_secrets(text)[:40]
        raise MsfnetError(f"{shown!r}… is not a valid path ({kind}); correct it") from None
    if set(text) & set("*?[") and not exists:
        return ImageFiles.matching(text, skip_bad=options.skip_bad)
    return _open_path(Path(text), options)


def _open_live(text: str, options: SourceOptions) -> Source | None:
    """Open a camera, a pipeline or an address; return None for anything else."""
    if text.isdecimal() or text.startswith("/dev/video"):
        return CameraSource(int(text) if text.isdecimal() else text, options)
    if " ! " in text:
        return GStreamerSource(text, options)
    return StreamSource(text, options) if "://" in text else None


def _open_path(path: Path, options: SourceOptions) -> Source:
    """Open a file or folder by its content."""
    if is_folder(path):
        return _open_folder(path, options.skip_bad)
    try:
        exists = path.exists()
    except OSError:  # for example, the name is too long
        exists = False
    if not exists:
        raise MsfnetError(
            f"{without_secrets(str(path))} does not exist; name a camera index, URL, video, folder "
            "or synthetic:street"
        )
    if path.suffix.lower() == ".csv":
        return NyuList(path, skip_bad=options.skip_bad)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageFiles([path], skip_bad=options.skip_bad)
    return VideoSource(path, skip_bad=options.skip_bad)


def _open_folder(path: Path, skip_bad: bool) -> Source:
    """Open the folder of a data set by its layout, any other as plain images."""
    if holds(find_drives, path):
        return KittiDrive(path, skip_bad=skip_bad)
    if holds(find_lists, path):
        return NyuList(path, skip_bad=skip_bad)
    if holds(find_scenes, path):
        return RgbdFolder(path, skip_bad=skip_bad)
    return ImageFolder(path, skip_bad=skip_bad)


def holds(find: Callable[[Path], object], path: Path) -> bool:
    """Tell whether a data set's finder finds it at ``path``.

    Raises:
        MsfnetError: there is one that cannot be read, which must not pass as something else.
    """
    try:
        find(path)
    except NothingFoundError:
        return False
    return True
