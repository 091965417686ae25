"""Tries one choice of precision by block: writes the model, scores it on real frames, times it.

Every trial is timed in turns with the FP32 model, call by call, so that drift of the machine slows
both; the ratio is used. Trials are kept in a file: a search that was stopped is resumed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from msfnet_benchmarks.scoring.accuracy import AccuracyAccumulator, AccuracyReport, predict_all
from msfnet_benchmarks.scoring.metrics import DepthSummary
from msfnet_benchmarks.scoring.parity import ParityAccumulator
from msfnet_benchmarks.scoring.protocols import Protocol
from msfnet_benchmarks.timing.core import ratio_of_medians, time_calls
from msfnet_calibration.variants import Choice, Variants
from msfnet_datasets.sample import Sample
from msfnet_runtime import DepthEstimator, DepthMap, MsfnetError
from msfnet_runtime.engine import Engine
from msfnet_runtime.typed import read_json, to_json, write_json

Opener = Callable[[Path], Engine]
"""Opens a model on the engine that the search is for."""

_clock = time.perf_counter
_SECONDS = 2.0
_LONG_SECONDS = 6.0
"""How long a trial is timed, and one whose result is used."""


@dataclass(frozen=True)
class Trial:
    """The depth error and the speed of one choice."""

    choice: Choice
    summary: DepthSummary
    """On the frames of the search."""
    p99: float
    """99th percentile of the relative difference of depth from FP32."""
    speedup: float
    """FP32's median latency over this one's, timed in turns; above 1 is faster."""
    latency_ms: float
    """Median."""
    confirmed: bool = False
    """It was timed a second time, for longer: the best of many short measurements is the luckiest
    of them."""

    @property
    def saved(self) -> float:
        """The share of FP32's latency that it saves; negative where it is slower."""
        return 1 - 1 / self.speedup


class Bench:
    """Tries choices on the engine at hand.

    Args:
        variants: makes the models.
        open_engine: opens them.
        samples: frames with ground truth.
        protocol: scores them.
        file: keeps the trials; a file of another model, frames, engine or protocol is refused.
    """

    def __init__(
        self,
        variants: Variants,
        open_engine: Opener,
        samples: Sequence[Sample],
        protocol: Protocol,
        file: Path,
    ) -> None:
        self._variants = variants
        self._open = open_engine
        self._samples = samples
        self._protocol = protocol
        self._folder = TemporaryDirectory(prefix="msfnet-")
        self._batches = variants.batches
        self._reference = open_engine(variants.source)
        self._file = file.with_name(f"{file.stem}-{self._fingerprint()}{file.suffix}")
        self._kept = self._read()
        scored, self._depths = self._answer_reference()
        self.summary, self.constant = scored.summary, scored.constant

    def __enter__(self) -> Bench:
        """Return the bench itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the reference and remove the models that were tried."""
        self._reference.close()
        self._folder.cleanup()

    @property
    def engine(self) -> str:
        """The library, version and device that run the models."""
        return self._reference.describe()

    def try_choice(self, choice: Choice) -> Trial:
        """Return the trial of a choice; one that was tried before is not tried again.

        Raises:
            MsfnetError: the engine cannot run it, or it gives no depth where FP32 does.
        """
        kept = self._kept.get(choice.key)
        if kept:
            return kept
        path = Path(self._folder.name) / "trial.onnx"
        self._variants.write(choice, path)
        with self._open(path) as engine:
            summary, p99 = self._score(engine)
            speedup, latency = self._time(engine, _SECONDS)
        return self._keep(Trial(choice, summary, p99, speedup, latency))

    def confirm(self, trial: Trial) -> Trial:
        """Return a trial timed anew, for longer."""
        if trial.confirmed:
            return trial
        path = Path(self._folder.name) / "trial.onnx"
        self._variants.write(trial.choice, path)
        with self._open(path) as engine:
            speedup, latency = self._time(engine, _LONG_SECONDS)
        return self._keep(replace(trial, speedup=speedup, latency_ms=latency, confirmed=True))

    def _keep(self, trial: Trial) -> Trial:
        self._kept[trial.choice.key] = trial
        write_json(self._file, list(self._kept.values()), indent=None)
        return trial

    def check(self, choice: Choice, samples: Sequence[Sample]) -> tuple[DepthSummary, float, float]:
        """Score a choice on frames that were not searched on and time it for longer.

        Returns:
            The score, FP32's median latency over its, and its median latency in milliseconds.
        """
        path = Path(self._folder.name) / "trial.onnx"
        self._variants.write(choice, path)
        with self._open(path) as engine:
            accumulator, _ = self._accumulate(DepthEstimator(engine), samples)
            return (accumulator.report().summary, *self._time(engine, _LONG_SECONDS))

    def _time(self, engine: Engine, seconds: float) -> tuple[float, float]:
        """Time an engine in turns with FP32: its speed-up and its median latency, ms."""
        calls = {"reference": self._reference.infer, "trial": engine.infer}
        samples = time_calls(calls, self._batches, rounds=1, seconds=seconds, clock=_clock)
        ratio = ratio_of_medians(samples["reference"].ms, samples["trial"].ms)
        return ratio.value, float(np.median(samples["trial"].ms))

    def _answer_reference(self) -> tuple[AccuracyReport, list[DepthMap]]:
        accumulator, depths = self._accumulate(DepthEstimator(self._reference), self._samples)
        return accumulator.report(), depths

    def _accumulate(
        self, estimator: DepthEstimator, samples: Sequence[Sample]
    ) -> tuple[AccuracyAccumulator, list[DepthMap]]:
        accumulator, depths = AccuracyAccumulator(self._protocol), []
        for item in predict_all([estimator], samples, self._protocol):
            accumulator.add(item.sample, item.predictions[0], item.ground_truth)
            depths.append(item.predictions[0])
        return accumulator, depths

    def _score(self, engine: Engine) -> tuple[DepthSummary, float]:
        accumulator, depths = self._accumulate(DepthEstimator(engine), self._samples)
        parity = ParityAccumulator()
        for depth, reference in zip(depths, self._depths, strict=True):
            parity.add(candidate=depth, reference=reference)
        return accumulator.report().summary, parity.report().p99

    def _fingerprint(self) -> str:
        facts: list[Any] = [
            self._variants.fingerprint,
            self._reference.describe(),
            self._protocol.name,
            [str(sample.depth_path) for sample in self._samples],
        ]
        return hashlib.sha256(to_json(facts, indent=None).encode()).hexdigest()[:16]

    def _read(self) -> dict[str, Trial]:
        if not self._file.exists():
            return {}
        try:
            trials = read_json(self._file, tuple[Trial, ...])
        except MsfnetError as error:
            raise MsfnetError(f"{error}; remove it") from None
        return {trial.choice.key: trial for trial in trials}
