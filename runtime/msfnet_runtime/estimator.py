"""``DepthEstimator``: frames in, metric depth out. The object to embed in your own code."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime import preprocess
from msfnet_runtime.closing import Closing
from msfnet_runtime.engine import Engine
from msfnet_runtime.engines import open_engine
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.types import DepthMap, Frame

if TYPE_CHECKING:
    pass


class DepthEstimator(Closing):
    """A loaded model that answers frames of any size with depth in metres.

    The three steps are public, so that a pipeline can overlap them: :meth:`prepare` and
    :meth:`finish` hold no state and may run in any thread; :meth:`infer` is as thread-safe as
    the engine.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, provider: str = "cpu", threads: int = 0
    ) -> DepthEstimator:
        """Open a model file; the arguments are :func:`~msfnet_runtime.engines.open_engine`'s."""
        return cls(open_engine(path, provider=provider, threads=threads))

    @property
    def spec(self) -> ModelSpec:
        """What the model takes and gives."""
        return self.engine.spec

    def __call__(self, frame: Frame) -> DepthMap:
        """Return the depth of one frame, at the frame's size.

        Raises:
            MsfnetError: the image is not (H, W, 3) uint8.
        """
        return self.finish(self.infer(self.prepare(frame)), frame)

    def prepare(self, frame: Frame) -> NDArray[Any]:
        """Return the batch the engine takes for this frame."""
        return preprocess.prepare(frame.image, self.spec)

    def infer(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run the engine on a prepared batch."""
        return self.engine.infer(batch)

    def finish(self, output: NDArray[np.float32], frame: Frame) -> DepthMap:
        """Return the engine's answer as a depth map at the frame's size."""
        height, width = frame.image.shape[:2]
        values, valid = preprocess.finish(output, (height, width), self.spec)
        return DepthMap(values, valid, frame.index, frame.timestamp_s)

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()
