"""Plain folders of images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.images import IMAGE_SUFFIXES, read_image
from msfnet_runtime.source import SourceBase
from msfnet_runtime.types import Frame


class ImageFolder(SourceBase):
    """The images directly in a folder, in natural order (``2.png`` before ``10.png``), any sizes.

    Raises:
        MsfnetError: there is none, or the folder cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            files = [file for file in path.iterdir() if _is_image(file)]
        except OSError as error:
            raise MsfnetError(f"cannot read {path}: {error.strerror}; check its rights") from None
        if not files:
            raise MsfnetError(
                f"{path} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}), no KITTI drive "
                "and no NYU list; give the folder that holds the frames"
            )
        self._files = sorted(files, key=natural_key)
        self.length = len(files)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames, stamped at 30 frames per second."""
        for index, file in enumerate(self._files):
            yield Frame(read_image(file), index, index / self.fps, name=file.stem)


def natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key that reads digits as numbers; equal numbers sort by their text."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def _is_image(file: Path) -> bool:
    return (
        file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
