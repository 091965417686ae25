"""Plain folders of images, and images named by a pattern."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.images import IMAGE_SUFFIXES
from msfnet_runtime.sources.skipping import FileSource
from msfnet_runtime.types import Frame


class ImageFiles(FileSource):
    """Image files of any sizes, in natural order (``2.png`` before ``10.png``)."""

    def __init__(self, files: list[Path], *, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self._files = sorted(files, key=natural_key)
        self.length = len(files)

    @classmethod
    def matching(cls, pattern: str, *, skip_bad: bool = False) -> ImageFiles:
        """Open the images that a pattern names: ``frames/*.png``, ``**`` for any folders.

        Raises:
            MsfnetError: there is none.
        """
        root = Path(pattern).anchor
        try:
            files = Path(root or ".").glob(pattern.removeprefix(root))
            images = [file for file in files if _is_image(file)]
        except (ValueError, NotImplementedError, OSError) as error:
            raise MsfnetError(f"{pattern!r} is no pattern of files ({error}); mend it") from None
        if not images:
            raise MsfnetError(
                f"{pattern} names no images ({', '.join(sorted(IMAGE_SUFFIXES))}); check it"
            )
        return cls(images, skip_bad=skip_bad)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames, stamped at 30 frames per second."""
        for index, _, file, image in self._images((None, file) for file in self._files):
            yield Frame(image, index, index / self.fps, name=file.stem)


class ImageFolder(ImageFiles):
    """The images directly in a folder.

    Raises:
        MsfnetError: there is none, or the folder cannot be read.
    """

    def __init__(self, path: Path, *, skip_bad: bool = False) -> None:
        try:
            files = [file for file in path.iterdir() if _is_image(file)]
        except OSError as error:
            raise MsfnetError(f"cannot read {path}: {error.strerror}; check its rights") from None
        if not files:
            raise MsfnetError(
                f"{path} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}), no KITTI drive, "
                "NYU list or pairs of images and depth; give the folder that holds the frames"
            )
        super().__init__(files, skip_bad=skip_bad)


def natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key that reads digits as numbers; equal numbers sort by their text."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def _is_image(file: Path) -> bool:
    return (
        file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
