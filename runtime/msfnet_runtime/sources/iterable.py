"""Frames from a program's own loop."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.errors import MsfnetError
from msfnet_runtime.source import SourceBase
from msfnet_runtime.types import Frame


class IterableSource(SourceBase):
    """Frames, or images, of any iterable.

    Args:
        items: :class:`~msfnet_runtime.Frame`, or (H, W, 3) uint8 images.
        live: only the newest is worth keeping; images are stamped on arrival.
        fps: rate of the stamps that images get where the iterable is not live.
        bgr: images are BGR, as OpenCV gives them.
    """

    def __init__(
        self,
        items: Iterable[Frame | NDArray[np.uint8]],
        *,
        live: bool = False,
        fps: float = SourceBase.fps,
        bgr: bool = False,
    ) -> None:
        self._items = items
        self.live = live
        self.fps = fps
        self.length = len(items) if isinstance(items, Sized) else None
        self._bgr = bgr
        self._stopped = False

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames.

        Raises:
            MsfnetError: an item is neither a frame nor an image.
        """
        start = time.monotonic()
        for index, item in enumerate(self._items):
            if self._stopped:
                return
            if isinstance(item, Frame):
                yield item
                continue
            seconds = time.monotonic() - start if self.live else index / self.fps
            yield Frame(self._image(item, index), index, seconds)

    def stop(self) -> None:
        """Take no further item."""
        self._stopped = True

    def _image(self, item: Any, index: int) -> NDArray[np.uint8]:
        image = np.asarray(item)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise MsfnetError(
                f"item {index} is {'x'.join(map(str, image.shape))} {image.dtype}, not an "
                "(H, W, 3) uint8 image; convert it"
            )
        return np.ascontiguousarray(image[..., ::-1] if self._bgr else image, np.uint8)
