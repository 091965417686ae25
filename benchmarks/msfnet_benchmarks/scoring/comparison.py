"""Compares two models on the same frames: parity, and the change of every metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from msfnet_benchmarks.scoring.accuracy import (
    TABLE_COLUMNS,
    AccuracyAccumulator,
    AccuracyReport,
    Estimator,
    predict_all,
)
from msfnet_benchmarks.scoring.alignment import Alignment
from msfnet_benchmarks.scoring.metrics import TABLE_METRICS
from msfnet_benchmarks.scoring.parity import ParityAccumulator, ParityReport
from msfnet_benchmarks.scoring.protocols import Protocol
from msfnet_benchmarks.tables import format_table
from msfnet_datasets.sample import Sample
from msfnet_runtime.progress import Progress, silent


@dataclass(frozen=True)
class ComparisonReport:
    """A candidate and its reference on the same frames under one protocol."""

    candidate: AccuracyReport
    reference: AccuracyReport
    parity: ParityReport
    """Over all pixels of what the models saw, whether they have ground truth or not."""

    def change(self) -> dict[str, float]:
        """Return every metric of the candidate less the reference's."""
        after, before = asdict(self.candidate.summary), asdict(self.reference.summary)
        return {name: after[name] - before[name] for name in after}

    def text(self) -> str:
        """Return metrics side by side with their change, then parity by range."""
        change = self.change()
        rows = [
            ("this", *self.candidate.table_row()),
            ("against", *self.reference.table_row()),
            ("change", *(f"{change[name]:+.5f}" for name in TABLE_METRICS), ""),
        ]
        against = self.reference.model
        head = f"against {against.text()}\n" if against else ""
        return f"{head}{format_table(('depth', *TABLE_COLUMNS), rows)}\n\n{self.parity.text()}"


def compare_models(
    candidate: Estimator,
    reference: Estimator,
    samples: Sequence[Sample],
    protocol: Protocol,
    *,
    alignment: Alignment | None = None,
    skipped: int = 0,
    progress: Progress = silent,
) -> ComparisonReport:
    """Score two models on the same frames; every file is read once.

    Args:
        candidate: the model to check, for example an INT8 engine.
        reference: the model it should equal, for example the PyTorch checkpoint.
        samples: frames with the ground truth the protocol asks for.
        protocol: what both see and where they are scored.
        alignment: also score predictions aligned so, reported apart.
        skipped: images that the caller left out because they have no ground truth.
        progress: called after each image.

    Raises:
        MsfnetError: no sample, a file that cannot be read or scored, or a candidate without depth
            where the reference has some.
    """
    scores = [AccuracyAccumulator(protocol, alignment) for _ in range(2)]
    parity = ParityAccumulator(protocol.bins_m)
    for item in predict_all([candidate, reference], samples, protocol, progress):
        for score, predicted in zip(scores, item.predictions, strict=True):
            score.add(item.sample, predicted, item.ground_truth)
        parity.add(candidate=item.predictions[0], reference=item.predictions[1])
    reports = [score.report(skipped) for score in scores]
    return ComparisonReport(reports[0], reports[1], parity.report())
