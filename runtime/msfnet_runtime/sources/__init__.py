"""Opens whatever the user names as a stream of frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.images import IMAGE_SUFFIXES
from msfnet_runtime.source import Source
from msfnet_runtime.sources.camera import CameraSource, StreamSource
from msfnet_runtime.sources.images import ImageFolder
from msfnet_runtime.sources.kitti import KittiDrive, find_drives
from msfnet_runtime.sources.nyu import NyuList, find_lists
from msfnet_runtime.sources.video import VideoSource


def open_source(text: str) -> Source:
    """Open a source by what the user wrote.

    Args:
        text: camera index (``0``), address (``rtsp://…``), ``synthetic:…``, a video file, an NYU
            list (``.csv``), or a folder: KITTI drive, date or root, NYU data set, or images.

    Raises:
        MsfnetError: missing, unreadable, or nothing that holds frames.
    """
    if text.isdecimal():
        return CameraSource(int(text))
    if text.startswith("synthetic:"):
        from msfnet_runtime.sources.synthetic import open_synthetic

        return open_synthetic(text)
    if text.startswith("file://"):
        return _open_path(Path(unquote(urlsplit(text).path)))
    if "://" in text:
        return StreamSource(text)
    return _open_path(Path(text))


def _open_path(path: Path) -> Source:
    """Open a file or folder by what it holds."""
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise MsfnetError(
            f"{path} does not exist; give a camera index, URL, video, folder or synthetic:street"
        )
    if path.suffix.lower() == ".csv":
        return NyuList(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise MsfnetError(
            f"{path} is an image, not a video; give its folder to stream images "
            f"({path.absolute().parent})"
        )
    return VideoSource(path)


def _open_folder(path: Path) -> Source:
    """Open a data set's folder as what it is, any other as plain images."""
    if _holds(find_drives, path):
        return KittiDrive(path)
    if _holds(find_lists, path):
        return NyuList(path)
    return ImageFolder(path)


def _holds(find: Callable[[Path], object], path: Path) -> bool:
    """Tell whether ``find`` finds its layout in a folder."""
    try:
        find(path)
    except MsfnetError:
        return False
    return True
