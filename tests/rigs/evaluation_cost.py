"""What an evaluation spends on reading and metrics beside inference.

``python -m tests.rigs.evaluation_cost MODEL.onnx``: 480x640 rooms are rendered, written as
PNG, and scored by ``nyu_bts``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from msfnet_benchmarks.scoring.accuracy import Estimator, evaluate, read_sample
from msfnet_benchmarks.scoring.protocols import PROTOCOLS
from msfnet_datasets.sample import Sample
from msfnet_datasets.samples import open_samples
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
        rounds: how often; the fastest round of each counts, other work only ever adds.
        progress: told after each round.

    Raises:
        MsfnetError: no sample, or one that cannot be scored.
    """
    frames = [read_sample(sample, PROTOCOL)[0] for sample in samples]

    def infer() -> None:
        for frame in frames:
            estimator(frame)

    infer()
    taken = []
    for done in range(1, rounds + 1):
        taken.append((_ms(infer), _ms(lambda: evaluate(estimator, samples, PROTOCOL))))
        progress(done, rounds, "round")
    inference, evaluation = (min(times) / len(samples) for times in zip(*taken, strict=True))
    return EvaluationCost(inference, evaluation)


def _ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def main(arguments: Sequence[str]) -> int:
    """Measure a model on generated rooms and print the line; return the exit status."""
    if len(arguments) != 1:
        print("usage: python -m tests.rigs.evaluation_cost MODEL", file=sys.stderr)
        return 2
    try:
        with TemporaryDirectory() as folder, DepthEstimator.open(arguments[0]) as estimator:
            rooms = Path(folder) / "rooms"
            synthesize_nyu(rooms, scenes=4, frames=16)
            samples = open_samples(rooms, PROTOCOL.ground_truth, "test")
            print(measure_cost(estimator, samples).text())
    except MsfnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
