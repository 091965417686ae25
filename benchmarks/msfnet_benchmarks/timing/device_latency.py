"""Latency of one engine, stage by stage, in the words of NVIDIA's trtexec.

trtexec's own definitions, as its verbose log prints them: latency is H2D latency + GPU compute time
+ D2H latency; enqueue time is the host's; throughput is queries over wall-clock time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.tables import format_table
from msfnet_runtime import Engine, MsfnetError
from msfnet_runtime.files import atomic_path
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.timings import Timings

PERCENTILES = (50, 90, 95, 99)

H2D, COMPUTE, D2H = "H2D", "GPU compute", "D2H"
LATENCY, ENQUEUE, END_TO_END = "latency", "enqueue", "end to end"


class TimedEngine(Protocol):
    """An engine that times its own stages."""

    def timed(
        self, batch: NDArray[Any], *, cuda_graph: bool | None = None, transfers: bool = True
    ) -> Timings:
        """Run one batch; return what each stage took.

        Args:
            batch: as for ``infer``.
            cuda_graph: with or without; None as ``infer`` runs.
            transfers: False leaves the copies out.
        """


@dataclass(frozen=True)
class Stage:
    """One stage over many runs, milliseconds; percentiles interpolate linearly."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float

    @classmethod
    def of(cls, milliseconds: Iterable[float]) -> Stage:
        """Summarise the stage's times."""
        values = np.fromiter(milliseconds, np.float64)
        return cls(float(values.mean()), *(float(v) for v in np.percentile(values, PERCENTILES)))


@dataclass(frozen=True)
class Latency:
    """What a run costs, as one tool measured it."""

    tool: str
    """Who measured: library and version, GPU where known."""
    cuda_graph: bool
    """The engine's work was replayed as one CUDA graph."""
    transfers: bool
    """The copies in and out are part of what was measured."""
    stages: Mapping[str, Stage]
    """By name, in the order of a run; what a tool does not measure is not there."""
    throughput: float
    """Runs a second."""
    overlapped: bool
    """Runs were asked for before the last was done, so throughput is not 1 / latency."""
    iterations: int

    def settings(self) -> str:
        """Say in a line what was measured; figures without it cannot be compared."""
        if COMPUTE in self.stages:
            how = (
                f"{'with' if self.cuda_graph else 'without'} CUDA graph, "
                f"{'with' if self.transfers else 'without'} transfers"
            )
        else:
            how = "from batch to answer"
        return (
            f"{self.tool}: {how}, {self.iterations} runs, {self.throughput:.1f} runs/s "
            f"{'overlapped' if self.overlapped else 'one by one'}"
        )

    def text(self) -> str:
        """Return the settings and a table of milliseconds."""
        header = ["ms", "mean", *(f"p{percentile}" for percentile in PERCENTILES)]
        rows = [
            [name, *(f"{value:.3f}" for value in asdict(stage).values())]
            for name, stage in self.stages.items()
        ]
        return f"{self.settings()}\n{format_table(header, rows)}"


def summarise(
    timings: Sequence[Timings], *, tool: str, cuda_graph: bool, transfers: bool
) -> Latency:
    """Summarise runs that followed one another.

    Without transfers there are no copies, and latency is the GPU's compute time.

    Raises:
        MsfnetError: there is no run.
    """
    if not timings:
        raise MsfnetError("nothing was timed; ask for at least one iteration")
    whole = Stage.of(t.total for t in timings)
    return Latency(
        tool=tool,
        cuda_graph=cuda_graph,
        transfers=transfers,
        stages={**device_stages(timings, transfers=transfers), END_TO_END: whole},
        throughput=1e3 / whole.mean if whole.mean > 0 else float("inf"),
        overlapped=False,
        iterations=len(timings),
    )


def device_stages(timings: Sequence[Timings], *, transfers: bool) -> dict[str, Stage]:
    """Return the stages on the device, their sum, and the host's enqueue time."""
    stages = {COMPUTE: Stage.of(t.compute for t in timings)}
    if transfers:
        stages = {H2D: Stage.of(t.h2d for t in timings), **stages}
        stages[D2H] = Stage.of(t.d2h for t in timings)
    stages[LATENCY] = Stage.of(t.latency if transfers else t.compute for t in timings)
    return {**stages, ENQUEUE: Stage.of(t.enqueue for t in timings)}


def time_stages(
    engine: TimedEngine,
    batch: NDArray[Any],
    *,
    cuda_graph: bool = True,
    transfers: bool = True,
    iterations: int,
    warmup: int = 20,
    progress: Progress = silent,
) -> list[Timings]:
    """Time an engine's stages, after runs that are not counted."""
    for _ in range(warmup):
        engine.timed(batch, cuda_graph=cuda_graph, transfers=transfers)
    timings = []
    for done in range(iterations):
        timings.append(engine.timed(batch, cuda_graph=cuda_graph, transfers=transfers))
        progress(done + 1, iterations, "runs")
    return timings


def time_whole(
    engine: Engine,
    batch: NDArray[Any],
    *,
    iterations: int,
    warmup: int = 5,
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Time a model that knows no device stages, from batch to answer."""
    for _ in range(warmup):
        engine.infer(batch)
    seconds = []
    for done in range(iterations):
        start = clock()
        engine.infer(batch)
        seconds.append(clock() - start)
        progress(done + 1, iterations, "runs")
    stage = Stage.of(1e3 * value for value in seconds)
    return Latency(
        tool=engine.describe(),
        cuda_graph=False,
        transfers=True,
        stages={END_TO_END: stage},
        throughput=1e3 / stage.mean if stage.mean > 0 else float("inf"),
        overlapped=False,
        iterations=iterations,
    )


def side_by_side(ours: Latency, theirs: Latency) -> str:
    """Return both settings, and the stages that both measured, with ours over theirs."""
    header = ["ms", "p50", "theirs", "ratio", "p99", "theirs", "ratio"]
    rows = []
    for name, mine in ours.stages.items():
        if name in theirs.stages:
            other = theirs.stages[name]
            pairs = ((mine.p50, other.p50), (mine.p99, other.p99))
            rows.append([name, *(cell for pair in pairs for cell in _cells(*pair))])
    lines = [ours.settings(), theirs.settings(), format_table(header, rows)]
    if (ours.cuda_graph, ours.transfers) != (theirs.cuda_graph, theirs.transfers):
        lines.append("The two were not measured with the same settings: do not compare them.")
    return "\n".join(lines)


def _cells(mine: float, other: float) -> tuple[str, str, str]:
    return f"{mine:.3f}", f"{other:.3f}", f"{mine / other:.2f}" if other > 0 else "-"


def write_json(path: Path, latencies: Sequence[Latency]) -> None:
    """Write everything measured, whole or not at all."""
    text = json.dumps([asdict(latency) for latency in latencies], indent=2)
    with atomic_path(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
