"""The share of an evaluation that reading and metrics take beside inference.

``python -m tests.rigs.evaluation_cost MODEL.onnx``: 480x640 rooms are rendered, written as
PNG, and scored by ``nyu_bts``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from msfnet_benchmarks.scoring.accuracy import Estimator, evaluate, read_sample
from msfnet_benchmarks.scoring.protocols import PROTOCOLS
from msfnet_benchmarks.timing.core import time_calls
from msfnet_datasets import open_dataset
from msfnet_datasets.sample import Sample
from msfnet_datasets.synthesize import synthesize_nyu
from msfnet_runtime import DepthEstimator, MsfnetError
from msfnet_runtime.progress import Progress, silent

PROTOCOL = PROTOCOLS["nyu_bts"]


@dataclass(frozen=True)
class EvaluationCost:
    """Milliseconds of wall time an image, means over the images."""

    inference_ms: float
    """Frame to depth alone, frames in memory."""
    evaluation_ms: float
    """The whole evaluation: files read and decoded, inference, every metric."""

    @property
    def overhead(self) -> float:
        """The share of the evaluation that is not inference."""
        return 1 - self.inference_ms / self.evaluation_ms

    def text(self) -> str:
        """Return it in a line."""
        return (
            f"{PROTOCOL.name} at 480x640: evaluation {self.evaluation_ms:.1f} ms an image, "
            f"inference alone {self.inference_ms:.1f} ms: reading and metrics are "
            f"{self.overhead:.1%}"
        )


def measure_cost(
    estimator: Estimator, samples: Sequence[Sample], *, rounds: int = 3, progress: Progress = silent
) -> EvaluationCost:
    """Time evaluation and bare inference in turns, after a warm-up that is not counted.

    Args:
        estimator: frame to metric depth.
        samples: 480x640 frames with depth; kept in memory for the bare inference.
        rounds: how often; the fastest round of each is used, since other work only ever adds.
        progress: called after each evaluation and each inference.

    Raises:
        MsfnetError: no sample, or one that cannot be scored.
    """
    frames = [read_sample(sample, PROTOCOL)[0] for sample in samples]

    def infer(samples: Sequence[Sample]) -> None:
        for frame in frames:
            estimator(frame)

    calls: dict[str, Callable[[Sequence[Sample]], object]] = {
        "inference": infer,
        "evaluation": lambda samples: evaluate(estimator, samples, PROTOCOL),
    }
    timed = time_calls(calls, [samples], rounds=rounds, warmup=1, progress=progress)
    inference, evaluation = (float(row.ms.min()) / len(samples) for row in timed.values())
    return EvaluationCost(inference, evaluation)


def main(arguments: Sequence[str]) -> int:
    """Measure a model on generated rooms and print the line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.rigs.evaluation_cost",
        description="Measure the share of an evaluation that reading and metrics take.",
    )
    parser.add_argument("model", help="ONNX file or engine")
    model = parser.parse_args(arguments).model
    try:
        with TemporaryDirectory() as folder, DepthEstimator.open(model) as estimator:
            rooms = Path(folder) / "rooms"
            synthesize_nyu(rooms, scenes=4, frames=16)
            samples = open_dataset(rooms, split="test", ground_truth=PROTOCOL.ground_truth)
            print(measure_cost(estimator, samples).text())
    except MsfnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
