"""Options of a calibration; declared here so that a command line needs no onnx."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from msfnet_runtime.precision_records import CalibrationMethod, CalibrationTarget

METHODS: tuple[CalibrationMethod, ...] = get_args(CalibrationMethod)
TARGETS: tuple[CalibrationTarget, ...] = get_args(CalibrationTarget)


@dataclass(frozen=True)
class CalibrationOptions:
    """The frames, the method and the limits of a calibration."""

    data: str
    """Source of the calibration frames."""
    split: str | None = None
    """List of the data set to calibrate on; None: the frames that are not scored."""
    frames: int = 64
    """How many frames; 0: all."""
    method: CalibrationMethod = "percentile"
    runs_on: CalibrationTarget = "tensorrt"
    """Where the file will run. With a budget, ONNX Runtime's provider of that name measures it."""
    reduced_range: bool | None = None
    """Keep weights to 7 bits, for processors whose 8-bit products saturate; None: for the CPU
    target, as this processor needs."""
    budget: str = ""
    """See :class:`msfnet_calibration.budget.Budget`; empty: every convolution that is wide."""
    sensitivity: bool = False
    """Measure each block alone; without a budget, too."""
    protocol: str | None = None
    """Evaluation protocol that scores a search."""
    score: Path | None = None
    """Frames with ground truth; :attr:`data` if None."""
    score_split: str | None = None
    """List of the data set to score on; None: its usual one."""
    score_frames: int = 256
    """How many of them at most, 0: all; every second one is held out."""
    threads: int = 0
    """CPU threads; 0: the library's choice."""
    work: Path | None = None
    """Folder of what is measured; ``MODEL.calibration`` beside the output if None."""
    seed: int = 0

    @property
    def searches(self) -> bool:
        """Whether models are scored and timed."""
        return bool(self.budget) or self.sensitivity
