"""Candidates of a benchmark: models ready to be opened, whatever runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from msfnet_benchmarks.timing.costs import LayerCost
from msfnet_benchmarks.timing.energy import device_memory
from msfnet_benchmarks.timing.generated import generated_batch, random_batch, usual_shape
from msfnet_runtime import DepthEstimator, Engine
from msfnet_runtime.engine import DeviceTimed, DeviceTimedEngine


@dataclass(frozen=True)
class Candidate:
    """A model and what runs it, before it is measured: one row of a benchmark."""

    name: str
    precision: str
    open: Callable[[], Engine]
    """Opens the model."""
    on_gpu: bool
    size_bytes: int
    """On disk, weights in a file of their own included."""
    file: Path | None = None
    """Candidates of the same file give the same depth."""
    depth: bool = True
    """Its answer is depth, as its spec says; else the engine alone is timed on random input."""
    fixed_batch: bool = False
    """It takes one image per call, although its spec leaves the batch open."""
    counts: Callable[[], tuple[int, int] | None] = lambda: None
    """Returns the MACs for one image and the parameters of the open model, where known."""
    open_device: Callable[[], DeviceTimedEngine] | None = None
    """Opens the model as an engine that times its stages on the device; None: it has no such."""
    start: Callable[[], Engine] | None = None
    """Opens the model in a process of its own: can be pickled; None: starts are not measured."""
    profile: Callable[[NDArray[Any]], tuple[LayerCost, ...]] | None = None
    """Times every layer on a batch; None: what runs it has no profiler."""
    threads: int = 0
    """CPU threads that it is given; 0: the library's choice."""
    batch: int = 1
    """Images in one timed call of a point of a sweep."""
    input_size: tuple[int, int] | None = None
    """(height, width) of the network's input, pixels, where that is a sweep's."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Its value on every axis of a sweep."""


@dataclass(frozen=True)
class Opened:
    """A candidate ready to run."""

    candidate: Candidate
    engine: Engine
    device: DeviceTimed | None
    """The engine where it times its own stages."""
    device_bytes: int | None = None
    """GPU memory used since before it was opened, one call later; None on a CPU."""

    @property
    def estimator(self) -> DepthEstimator | None:
        """Frame to depth; None where the answer is no depth."""
        return DepthEstimator(self.engine) if self.candidate.depth else None

    @property
    def images(self) -> int | None:
        """The number of images that one call takes; None where that is open."""
        first = self.engine.spec.inputs[0].shape[0]
        if isinstance(first, int):
            return first
        return 1 if self.candidate.fixed_batch else None

    def batch(self, count: int | None = None) -> NDArray[Any]:
        """Return images as the engine takes them: generated, or random where it gives no depth."""
        spec, count = self.engine.spec, count or self.candidate.batch
        if not self.candidate.depth:
            return random_batch(spec, count)
        first, *rest = usual_shape(spec)
        return generated_batch(spec, (count if self.images is None else first, *rest))

    @property
    def description(self) -> str:
        """What really runs it."""
        remark = "" if self.candidate.depth else " (random input, engine only, no depth error)"
        return f"{self.engine.describe()}{remark}"


def open_candidates(candidates: Sequence[Candidate], stack: ExitStack) -> dict[str, Opened]:
    """Open every candidate, by name.

    Raises:
        MsfnetError: one cannot be opened.
    """
    opened = {}
    for candidate in candidates:
        before = device_memory() if candidate.on_gpu else None
        device = candidate.open_device() if candidate.open_device else None
        engine: Engine = candidate.open() if device is None else device
        stack.enter_context(engine)
        one = Opened(candidate, engine, device)
        if before is not None:
            engine.infer(one.batch())
            one = replace(one, device_bytes=max((device_memory() or before) - before, 0))
        opened[candidate.name] = one
    return opened
