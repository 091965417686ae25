"""Adapts iterables to sources, and rotates the frames of a source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime.channel import CLOCK, Clock
from msfnet_runtime.closing import Closing
from msfnet_runtime.images import rotated
from msfnet_runtime.source import Source, SourceBase, SourceHealth
from msfnet_runtime.types import Frame, check_image


class IterableSource(SourceBase):
    """Yields the frames or images of any iterable.

    Args:
        items: :class:`~msfnet_runtime.Frame`, or (H, W, 3) uint8 images.
        live: only the newest item is useful; images are stamped on arrival.
        fps: rate of the timestamps of images if the iterable is not live.
        bgr: images are BGR, as in OpenCV.
        clock: measures the time of arrival.
    """

    def __init__(
        self,
        items: Iterable[Frame | NDArray[np.uint8]],
        *,
        live: bool = False,
        fps: float = SourceBase.fps,
        bgr: bool = False,
        clock: Clock = CLOCK,
    ) -> None:
        self._items = items
        self.live = live
        self.fps = fps
        self.length = len(items) if isinstance(items, Sized) else None
        self._bgr = bgr
        self._clock = clock
        self._stopped = False

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames.

        Raises:
            MsfnetError: an item is neither a frame nor an image.
        """
        start = self._clock.now()
        for index, item in enumerate(self._items):
            if self._stopped:
                return
            if isinstance(item, Frame):
                yield item
                continue
            seconds = self._clock.now() - start if self.live else index / self.fps
            yield Frame(self._image(item, index), index, seconds)

    def stop(self) -> None:
        """Read no further item."""
        self._stopped = True

    def _image(self, item: Any, index: int) -> NDArray[np.uint8]:
        image = check_image(item, f"item {index}")
        return np.ascontiguousarray(image[..., ::-1] if self._bgr else image, np.uint8)


class RotatedSource(Closing):
    """Rotates the frames of a source and their camera clockwise by 90, 180 or 270 degrees."""

    def __init__(self, source: Source, degrees: int) -> None:
        self._source = source
        self._degrees = degrees
        self.live, self.length, self.fps = source.live, source.length, source.fps

    @property
    def health(self) -> SourceHealth:
        """Problems of the source so far."""
        return self._source.health

    def __iter__(self) -> Iterator[Frame]:
        """Yield the rotated frames."""
        for frame in self._source:
            image = rotated(frame.image, self._degrees)
            camera = frame.intrinsics and frame.intrinsics.rotated(self._degrees)
            yield replace(frame, image=image, intrinsics=camera)

    def stop(self) -> None:
        """Stop the source."""
        self._source.stop()

    def close(self) -> None:
        """Close the source."""
        self._source.__exit__(None, None, None)
