"""How far FP16 moves a model's depth on frames, and which block moves it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from msfnet_calibration.blocks import find_homes
from msfnet_calibration.probe import Probe, find_islands, float_values, probe_values, rehearse
from msfnet_runtime import ModelSpec, MsfnetError
from msfnet_runtime.preprocess import to_metres
from msfnet_runtime.progress import Progress, silent

Convert = Callable[[Collection[str] | None], onnx.ModelProto]
"""Returns a model with the blocks named in FP16; with None, all of them."""


@dataclass(frozen=True)
class Change:
    """How far one frame's depth moved, relative to FP32's."""

    median: float
    p99: float


def relative_change(
    answer: NDArray[np.float32], expected: NDArray[np.float32], spec: ModelSpec
) -> Change:
    """Return how far one answer of a model lies from another, in depth."""
    new, old = (
        to_metres(values, spec) if spec.graph == "network" else values
        for values in (answer, expected)
    )
    median, p99 = np.percentile(np.abs(new - old) / old, (50, 99))
    return Change(float(median), float(p99))


class Judge:
    """A model, what it gives in FP32, and the comparison of its FP16 forms with that."""

    def __init__(
        self,
        model: onnx.ModelProto,
        spec: ModelSpec,
        batches: Sequence[NDArray[Any]],
        images: str,
        progress: Progress = silent,
    ) -> None:
        self._spec, self._batches, self._images = spec, batches, images
        self._progress = progress
        homes = find_homes(model)
        self._homes = {n: homes[node.name] for node in model.graph.node for n in node.output}
        self._names = float_values(model)
        self._full = probe_values(model, self._names, batches, progress)
        self._refuse_not_finite(self._full, "fp32 already; train again or take another checkpoint")
        self.islands = find_islands(model, self._full.peaks, spec.size)

    def measure(self, convert: Convert, max_change: float) -> Change:
        """Return the largest change of depth on any image that a conversion causes.

        Args:
            convert: returns the model with the blocks named in FP16, all of them for None.
            max_change: largest median relative change to allow.

        Raises:
            MsfnetError: values are not finite, or the change is more than allowed.
        """
        if not max_change > 0:
            raise MsfnetError(f"a largest change of {max_change} allows nothing; give 0.01 or so")
        probe = probe_values(rehearse(convert(None)), self._names, self._batches, self._progress)
        self._refuse_not_finite(probe, "fp16; keep this model in fp32")
        changes = [
            relative_change(*pair, self._spec)
            for pair in zip(probe.answers, self._full.answers, strict=True)
        ]
        worst = max(range(len(changes)), key=lambda index: changes[index].median)
        if changes[worst].median > max_change:
            block, alone = self._worst_block(convert, worst)
            raise MsfnetError(
                f"FP16 changes depth by {_percent(changes[worst].median)} at the median of an "
                f"image ({_percent(max_change)} is allowed), most of it in {block} "
                f"({_percent(alone)} alone); keep this model in fp32"
            )
        return Change(changes[worst].median, max(change.p99 for change in changes))

    def _refuse_not_finite(self, probe: Probe, where: str) -> None:
        name = probe.first_not_finite()
        if name is not None:
            raise MsfnetError(f"{self._homes[name]} gives NaN or Inf on {self._images} in {where}")

    def _worst_block(self, convert: Convert, index: int) -> tuple[str, float]:
        """Return the block that alone in FP16 moves an image's depth most, and by how much."""
        blocks = list(dict.fromkeys(self._homes.values()))
        moved = {}
        for done, block in enumerate(blocks, 1):
            probe = probe_values(rehearse(convert({block})), (), [self._batches[index]])
            answers = probe.answers[0], self._full.answers[index]
            moved[block] = relative_change(*answers, self._spec).median
            self._progress(done, len(blocks), "blocks")
        worst = max(moved, key=lambda block: moved[block])
        return worst, moved[worst]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
