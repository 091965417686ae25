"""Provides ``DepthEstimator``, which computes metric depth of frames; use it in your own code."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msfnet_runtime import preprocess
from msfnet_runtime.closing import Closing
from msfnet_runtime.engine import Engine
from msfnet_runtime.engines import open_engine
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.types import DepthMap, Frame, check_image


class DepthEstimator(Closing):
    """Computes the depth of frames of any size, in metres, with a loaded model.

    It is thread-safe: any thread or event loop can call it, :meth:`batch` and :meth:`acall`. If
    the engine is thread-safe (ONNX Runtime), calls infer in parallel; otherwise one call infers
    at a time, while others prepare and finish. Close it after the last call.

    The three steps are public, so that a pipeline can overlap them.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._turn = nullcontext() if engine.thread_safe else threading.Lock()
        self._executor = self._threads()

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, provider: str = "cpu", threads: int = 0
    ) -> DepthEstimator:
        """Open a model file; the arguments are :func:`~msfnet_runtime.engines.open_engine`'s."""
        return cls(open_engine(path, provider=provider, threads=threads))

    @property
    def spec(self) -> ModelSpec:
        """The model's inputs, outputs and preprocessing."""
        return self.engine.spec

    def __call__(self, frame: Frame | NDArray[np.uint8]) -> DepthMap:
        """Return the depth of one frame, or one (H, W, 3) uint8 RGB image, at its size.

        Raises:
            MsfnetError: the image is not (H, W, 3) uint8.
        """
        frame = _as_frame(frame)
        return self.finish(self.infer(self.prepare(frame)), frame)

    def batch(self, frames: Sequence[Frame | NDArray[np.uint8]]) -> list[DepthMap]:
        """Return the depth of several frames or RGB images, of any sizes, in order.

        A graph with a dynamic batch dimension infers them in one call, others one by one.

        Raises:
            MsfnetError: an image is not (H, W, 3) uint8, or there are more frames than the engine
                accepts.
        """
        several = [_as_frame(frame) for frame in frames]
        if not several or not isinstance(self.spec.inputs[0].shape[0], str):
            return [self(frame) for frame in several]
        outputs = self.infer(np.concatenate([self.prepare(frame) for frame in several]))
        return [self.finish(outputs[n : n + 1], frame) for n, frame in enumerate(several)]

    async def acall(self, frame: Frame | NDArray[np.uint8]) -> DepthMap:
        """Return the depth of one frame or RGB image without blocking the event loop.

        It runs in a thread pool of the estimator: one thread per core if the engine is
        thread-safe, else two, so that one prepares while the other infers.

        Raises:
            MsfnetError: the image is not (H, W, 3) uint8.
        """
        return await asyncio.get_running_loop().run_in_executor(self._executor, self, frame)

    def prepare(self, frame: Frame) -> NDArray[Any]:
        """Return the engine's input batch for this frame."""
        return preprocess.prepare(frame.image, self.spec)

    def infer(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run the engine on a prepared batch."""
        with self._turn:
            return self.engine.infer(batch)

    def finish(self, output: NDArray[np.float32], frame: Frame) -> DepthMap:
        """Return the engine's output as a depth map at the frame's size."""
        height, width = frame.image.shape[:2]
        values, valid = preprocess.finish(output, (height, width), self.spec)
        return DepthMap(values, valid, frame.index, frame.timestamp_s)

    def close(self) -> None:
        """Wait for running calls, and close the engine."""
        self._executor.shutdown()
        self._executor = self._threads()  # a later call reports that the engine is closed
        self.engine.close()

    def _threads(self) -> ThreadPoolExecutor:
        """Return a thread pool for :meth:`acall`; it starts its threads when they are needed."""
        workers = max(os.cpu_count() or 1, 2) if self.engine.thread_safe else 2
        return ThreadPoolExecutor(workers, "msfnet-depth")


def _as_frame(frame: Frame | NDArray[np.uint8]) -> Frame:
    """Return a frame as it is, and an image as a frame.

    Raises:
        MsfnetError: it is neither.
    """
    return frame if isinstance(frame, Frame) else Frame(check_image(frame, "the frame"))
