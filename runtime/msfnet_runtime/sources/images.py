"""Reads image files, folders of images and images that match a pattern."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.channel import CLOCK, Clock
from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.files import matching_files
from msfnet_runtime.images import IMAGE_SUFFIXES, read_image
from msfnet_runtime.source import SourceBase, SourceHealth
from msfnet_runtime.types import CameraIntrinsics, Frame

LOGGER = logging.getLogger("msfnet_runtime.sources")

T = TypeVar("T")


class SlowLog:
    """Logs at most one warning per second, with the number of those it suppressed."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._clock = clock
        self._next = 0.0
        self._suppressed = 0

    def __call__(self, text: str) -> None:
        """Log a warning, unless the last one is less than a second old."""
        now = self._clock.now()
        if now < self._next:
            self._suppressed += 1
            return
        LOGGER.warning("%s%s", text, f" (and {self._suppressed} more)" if self._suppressed else "")
        self._next, self._suppressed = now + 1, 0


class FileSource(SourceBase):
    """Reads image files.

    Args:
        skip_bad: skip and count images that cannot be decoded.
    """

    upright: ClassVar[bool] = False
    """Turn the images as their EXIF orientation says; see :func:`read_image`."""

    def __init__(self, *, skip_bad: bool = False) -> None:
        self._skip_bad = skip_bad
        self._skipped = 0
        self._log = SlowLog()

    @property
    def health(self) -> SourceHealth:
        """The number of skipped images."""
        return SourceHealth(skipped=self._skipped)

    def _images(
        self, files: Iterable[tuple[T, Path]]
    ) -> Iterator[tuple[int, T, Path, NDArray[np.uint8]]]:
        """Yield position, key, path and (H, W, 3) uint8 RGB image of each file.

        Raises:
            MsfnetError: an image cannot be decoded; with ``skip_bad``, none can be.
        """
        reason, decoded = "", 0
        for index, (key, file) in enumerate(files):
            try:
                image = read_image(file, upright=self.upright)
            except MsfnetError as error:
                if not self._skip_bad:
                    raise
                reason = reason or str(error)
                self._skipped += 1
                self._log(f"skipped: {error}")
                continue
            decoded += 1
            yield index, key, file, image
        if reason and not decoded:
            if self._skipped > 1:
                reason = f"none of {self._skipped} images can be decoded: {reason}"
            raise MsfnetError(reason)

    def _fitted(
        self, camera: CameraIntrinsics | None, file: Path, image: NDArray[np.uint8]
    ) -> CameraIntrinsics | None:
        """Return the camera of an image; none, and a warning, where the image may be cropped."""
        height, width, _ = image.shape
        fitted = camera and camera.fitted(height, width)
        if camera and not fitted:
            self._log(
                f"{file} is {width}x{height} and may be cropped from {camera.width}x"
                f"{camera.height}: its camera is left out"
            )
        return fitted


class ImageFiles(FileSource):
    """Yields image files of any sizes, upright, in natural order (``2.png`` before ``10.png``)."""

    upright = True

    def __init__(self, files: list[Path], *, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self._files = sorted(files, key=natural_key)
        self.length = len(files)

    @classmethod
    def matching(cls, pattern: str, *, skip_bad: bool = False) -> ImageFiles:
        """Open the images that match a pattern: ``frames/*.png``, ``**`` for any folders.

        Raises:
            MsfnetError: there is none.
        """
        try:
            images = [file for file in matching_files(pattern) if _is_image(file)]
        except (ValueError, NotImplementedError, OSError) as error:
            raise MsfnetError(
                f"{pattern!r} is not a pattern of files ({error}); correct it"
            ) from None
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
    """Yields the images directly in a folder.

    Raises:
        MsfnetError: there is none, or the folder cannot be read.
    """

    def __init__(self, path: Path, *, skip_bad: bool = False) -> None:
        files = [file for file in list_folder(path) if _is_image(file)]
        if not files:
            raise MsfnetError(
                f"{path} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}), no KITTI drive, "
                "NYU list or pairs of images and depth; name the folder of the frames"
            )
        super().__init__(files, skip_bad=skip_bad)


def list_folder(path: Path) -> list[Path]:
    """Return what lies directly in a folder, sorted; nothing where it is no folder.

    Raises:
        MsfnetError: the folder cannot be read.
    """
    try:
        return sorted(path.iterdir()) if path.is_dir() else []
    except OSError as error:
        raise MsfnetError(f"cannot read {path}: {error.strerror}; check its permissions") from None


def natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key that reads digits as numbers; equal numbers sort by their text."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def _is_image(file: Path) -> bool:
    return (
        file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
