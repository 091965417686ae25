"""Collects the ranges of a model's activations: one histogram each, kept in a file.

The methods that choose a range (all values, a percentile, entropy) read the same histograms, so
that another method does not run the frames again. A histogram has a fixed size whatever the number
of frames, and the file records how many frames were counted, so that a stopped run is resumed.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from msfnet_calibration.graph import bare_proto, hash_weights
from msfnet_calibration.onnx_files import write_scratch
from msfnet_runtime import MsfnetError
from msfnet_runtime.files import atomic_path
from msfnet_runtime.libraries import require
from msfnet_runtime.precision_records import CalibrationMethod
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.typed import to_json

PERCENTILE = 99.99

_BINS = 2048
_ENTROPY_BINS = 1024
_LEVELS = 128
"""Absolute values that INT8 distinguishes."""
_ALMOST_NOTHING = 1e-6
_KEEP_EVERY = 16
"""Frames between two writes of the file."""


Span = tuple[float, float]
"""The lowest and the highest value that INT8 is to represent; 0 lies within."""


@dataclass
class Histogram:
    """Absolute values of one tensor: equal bins from 0 to :attr:`limit`, which doubles at need."""

    limit: float = 0.0
    low: float = 0.0
    """The lowest value; 0 if none is negative."""
    high: float = 0.0
    """The highest value; 0 if none is positive."""
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def add(self, values: NDArray[np.floating]) -> None:
        """Count values of any shape.

        Raises:
            MsfnetError: one of them is not finite.
        """
        low, high = (float(end) for end in (values.min(initial=0.0), values.max(initial=0.0)))
        if not np.isfinite((low, high)).all():
            raise MsfnetError("an activation is not finite; the FP32 model itself is broken")
        self.low, self.high = min(self.low, low), max(self.high, high)
        sizes, peak = np.abs(values, dtype=np.float32).ravel(), max(high, -low)
        if self.limit == 0.0:
            self.limit = peak
        while 0.0 < self.limit < peak:
            self.limit *= 2
            halves = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([halves, np.zeros_like(halves)])
        if self.limit == 0.0:
            self.counts[0] += sizes.size
        else:
            self.counts += np.histogram(sizes, _BINS, (0.0, self.limit))[0]

    @property
    def peak(self) -> float:
        """The largest absolute value."""
        return max(self.high, -self.low)

    def span(self, method: CalibrationMethod) -> Span:
        """Return the values that INT8 is to represent; both ends are 0 where all values are."""
        threshold = self.threshold(method)
        return max(self.low, -threshold), min(self.high, threshold)

    def threshold(self, method: CalibrationMethod) -> float:
        """Return the largest absolute value that INT8 is to represent; 0 where all values are 0."""
        if method == "minmax" or self.peak == 0.0:
            return self.peak
        if method == "percentile":
            share = np.cumsum(self.counts) / self.counts.sum()
            within = int(np.searchsorted(share, PERCENTILE / 100)) + 1
            return min(self.limit * within / _BINS, self.peak)
        return self._entropy_threshold()

    def _entropy_threshold(self) -> float:
        """Return the threshold that loses the least information, see :func:`information_lost`."""
        bins = self.counts.reshape(_ENTROPY_BINS, -1).sum(axis=1).astype(np.float64)
        # Zero is exact at any range, and a ReLU's zeros would outweigh all other values.
        bins[0] = bins[1]
        cuts = range(_LEVELS, _ENTROPY_BINS + 1)
        lost = [information_lost(bins, cut) for cut in cuts]
        return min(self.limit * cuts[int(np.argmin(lost))] / _ENTROPY_BINS, self.peak)


def information_lost(bins: NDArray[np.float64], cut: int) -> float:
    """Return the Kullback-Leibler divergence of what INT8 distinguishes from what was counted.

    Values beyond the cut are counted in the last bin before it; values before it are distinguished
    in 128 levels only (Migacz, "8-bit Inference with TensorRT", GTC 2017).

    Args:
        bins: counts of absolute values.
        cut: how many bins are kept, 128 or more.
    """
    kept = bins[:cut]
    clipped = kept.copy()
    clipped[-1] += bins[cut:].sum()
    levels = np.arange(cut) * _LEVELS // cut
    filled = clipped > 0
    totals = np.bincount(levels, weights=kept, minlength=_LEVELS)
    members = np.bincount(levels, weights=filled, minlength=_LEVELS)
    spread = np.where(filled, totals[levels] / np.maximum(members[levels], 1), 0.0)
    p, q = (_without_zeros(counts) for counts in (clipped, spread))
    return float(np.sum(p * np.log(p / q)))


def _without_zeros(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return shares that sum to 1, each above 0."""
    shares = np.maximum(counts, _ALMOST_NOTHING * max(float(counts.sum()), 1.0))
    return np.asarray(shares / shares.sum())


class ActivationRanges:
    """The histograms of some tensors of one model over some frames."""

    def __init__(self, names: Sequence[str]) -> None:
        self.frames = 0
        """How many have been counted."""
        self._histograms = {name: Histogram() for name in names}
        self._spans: dict[tuple[str, CalibrationMethod], Span] = {}

    def span(self, name: str, method: CalibrationMethod) -> Span:
        """Return the values of a tensor that INT8 is to represent."""
        if (name, method) not in self._spans:
            self._spans[name, method] = self._histograms[name].span(method)
        return self._spans[name, method]

    def add(self, values: Mapping[str, NDArray[np.floating]]) -> None:
        """Count one frame's tensors."""
        self._spans.clear()
        for name, histogram in self._histograms.items():
            histogram.add(values[name])
        self.frames += 1

    def save(self, path: Path) -> None:
        """Write the histograms, whole or not at all."""
        histograms = self._histograms.values()
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                frames=self.frames,
                names=np.array(list(self._histograms)),
                limits=np.array([h.limit for h in histograms]),
                lows=np.array([h.low for h in histograms]),
                highs=np.array([h.high for h in histograms]),
                counts=np.stack([h.counts for h in histograms]),
            )

    @classmethod
    def load(cls, path: Path) -> ActivationRanges:
        """Read a file of :meth:`save`.

        Raises:
            MsfnetError: it is not such a file.
        """
        try:
            with np.load(path) as kept:
                ranges = cls([str(name) for name in kept["names"]])
                ranges.frames = int(kept["frames"])
                columns = (kept[key] for key in ("limits", "lows", "highs", "counts"))
                ranges._histograms = {
                    name: Histogram(float(limit), float(low), float(high), counts)
                    for name, limit, low, high, counts in zip(
                        ranges._histograms, *columns, strict=True
                    )
                }
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise MsfnetError(f"{path} cannot be read ({error}); remove it") from None
        return ranges


def collect_ranges(
    model: ir.Model,
    names: Sequence[str],
    batches: Sequence[NDArray[Any]],
    *,
    folder: Path | None = None,
    progress: Progress = silent,
) -> ActivationRanges:
    """Run the batches and count the values of the tensors named, or read counts of an earlier run.

    Args:
        model: an FP32 model.
        names: float tensors of its nodes.
        batches: prepared frames, one at a time.
        folder: for the histograms, in a file named after model, tensors and batches; a run that
            was stopped is resumed. None: they are not kept.
        progress: called after every frame.

    Raises:
        MsfnetError: an activation is not finite, or the folder cannot be written.
    """
    file = folder / f"activations-{_fingerprint(model, names, batches)}.npz" if folder else None
    ranges = ActivationRanges.load(file) if file and file.exists() else ActivationRanges(names)
    if ranges.frames == len(batches):
        progress(len(batches), len(batches), "frames, kept from an earlier run")
        return ranges
    with open_probe(model, names) as probe:
        for batch in batches[ranges.frames :]:
            ranges.add(probe(batch))
            progress(ranges.frames, len(batches), "frames measured")
            if file and (ranges.frames % _KEEP_EVERY == 0 or ranges.frames == len(batches)):
                ranges.save(file)
    return ranges


def _fingerprint(model: ir.Model, names: Sequence[str], batches: Sequence[NDArray[Any]]) -> str:
    digest = hashlib.sha256(hash_weights(model).encode())
    for node in bare_proto(model)[0].graph.node:
        digest.update(node.SerializeToString())
    digest.update(to_json(list(names), indent=None).encode())
    for batch in batches:
        digest.update(batch.tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def open_probe(
    model: ir.Model, names: Sequence[str]
) -> Iterator[Callable[[NDArray[Any]], dict[str, NDArray[np.float32]]]]:
    """Yield a function from a batch to the values of float tensors inside a model."""
    require("onnxruntime")
    import onnxruntime

    probe = model.clone()
    values = ir.convenience.create_value_mapping(probe.graph)
    ends = {value.name for value in (*probe.graph.outputs, *probe.graph.inputs)}
    probe.graph.outputs.extend(values[name] for name in names if name not in ends)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.onnx"
        write_scratch(probe, path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    source = str(model.graph.inputs[0].name)
    asked = [name for name in names if name != source]

    def run(batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        values = dict(zip(asked, session.run(asked, {source: batch}), strict=True))
        return {name: batch if name == source else values[name] for name in names}

    yield run
