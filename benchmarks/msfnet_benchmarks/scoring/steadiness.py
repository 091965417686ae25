"""Stability of depth over time: flicker of a static camera, drift of the scale on a drive.

Means and variances are updated frame by frame (Welford 1962), in constant memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.scoring.metrics import ScoredPixels
from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.words import counted


class RunningStd:
    """The standard deviation, over N, of numbers or of whole arrays added one by one."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: NDArray[np.float64] = np.zeros(())
        self._squares: NDArray[np.float64] = np.zeros(())

    def add(self, value: NDArray[np.floating] | float) -> None:
        """Count one value; all have the same shape."""
        self.count += 1
        off = np.asarray(value, np.float64) - self._mean
        self._mean = self._mean + off / self.count
        self._squares = self._squares + off * (value - self._mean)

    def std(self) -> NDArray[np.float64]:
        """Return the standard deviation so far, of the values' shape; one value has none, 0."""
        return np.asarray(np.sqrt(self._squares / max(1, self.count)))


@dataclass(frozen=True)
class DriftReport:
    """The change of the scale of depth from one scored frame of a drive to the next."""

    name: str
    """The drive."""
    drift: float
    """Standard deviation of the step of ln median(y/g): 0.01 is about 1 % a frame."""
    steps: int
    """Pairs of consecutive frames."""

    def text(self) -> str:
        """Return it in a line."""
        of = f" of {self.name}" if self.name else ""
        return f"scale drift{of}: {self.drift:.4f} a frame over {counted(self.steps, 'step')}"


class ScaleDrift:
    """Measures the scale against ground truth, drive by drive.

    The scale of a frame is median(y/g): unlike the median depth it does not follow the scene.
    """

    def __init__(self) -> None:
        self._drives: dict[str, tuple[RunningStd, float]] = {}

    def add(self, drive: str, pixels: ScoredPixels) -> None:
        """Count the next frame of a drive."""
        level = float(np.log(np.median(pixels.ratio)))
        steps, before = self._drives.get(drive, (RunningStd(), None))
        if before is not None:
            steps.add(level - before)
        self._drives[drive] = (steps, level)

    def reports(self) -> tuple[DriftReport, ...]:
        """Return the drift of every drive with at least two steps."""
        return tuple(
            DriftReport(drive, float(steps.std()), steps.count)
            for drive, (steps, _) in self._drives.items()
            if steps.count > 1
        )


@dataclass(frozen=True)
class FlickerReport:
    """The variation of depth over frames of a camera and a scene that do not move."""

    mean: float
    """Mean over the pixels of the standard deviation of log depth: 0.01 is about 1 %."""
    p50: float
    """Median over the pixels."""
    p95: float
    """95th percentile over the pixels."""
    drift: float
    """Standard deviation of ln median ratio between consecutive frames: of the whole image."""
    pixels: int
    """Pixels with depth in every frame; the others are left out."""
    frames: int

    def text(self) -> str:
        """Return it in a line."""
        return (
            f"static camera, {counted(self.frames, 'frame')}: flicker {self.mean:.4f} "
            f"(median pixel {self.p50:.4f}, 95th percentile {self.p95:.4f}), "
            f"scale drift {self.drift:.4f}"
        )


def measure_flicker(
    estimator: Callable[[Frame], DepthMap],
    frames: Iterable[Frame],
    *,
    progress: Progress = silent,
) -> FlickerReport:
    """Measure the flicker of a model on a static camera.

    Args:
        estimator: frame to metric depth at the frame's size.
        frames: of one size, of a camera and a scene that do not move.
        progress: called after each frame.

    Raises:
        MsfnetError: fewer than two frames, frames of two sizes, or no pixel with depth in all.
    """
    pixels, scale = RunningStd(), RunningStd()
    valid: NDArray[np.bool_] | None = None
    before = np.zeros((0, 0))
    for frame in frames:
        predicted = estimator(frame)
        if valid is not None and predicted.values.shape != valid.shape:
            raise MsfnetError(
                f"frame {frame.name or frame.index} is {predicted.values.shape}, the others "
                f"{valid.shape}; a static camera has one size"
            )
        valid = predicted.valid if valid is None else valid & predicted.valid
        log_depth = np.log(np.where(predicted.valid, predicted.values, 1).astype(np.float64))
        if pixels.count and valid.any():
            scale.add(float(np.median((log_depth - before)[valid])))
        pixels.add(log_depth)
        before = log_depth
        progress(pixels.count, 0, "frames of the static source")
    if valid is None or pixels.count < 2 or not valid.any():
        raise MsfnetError("flicker needs at least two frames with depth; use a longer source")
    spread = pixels.std()[valid]
    return FlickerReport(
        mean=float(spread.mean()),
        p50=float(np.median(spread)),
        p95=float(np.percentile(spread, 95)),
        drift=float(scale.std()),
        pixels=spread.size,
        frames=pixels.count,
    )
