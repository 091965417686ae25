"""Measures how fast a recipe trains here, and whether reading the data keeps up.

``python -m msfnet_train.throughput nyu_mini --data data/nyu_mini``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from msfnet_benchmarks.tables import format_table
from msfnet_benchmarks.timing.core import (
    END_TO_END,
    Summary,
    TimedCall,
    Times,
    clocked,
    time_stages,
)
from msfnet_runtime import MsfnetError
from msfnet_train.data import EpochSampler, TrainingBatch, TrainingPairs, join_training
from msfnet_train.module import DepthModule, make_loader
from msfnet_train.recipe import Recipe, load_recipe
from msfnet_train.split import open_split

MODES = ("fp32", "tf32", "bf16", "channels_last", "compiled")
"""Ways to compute a step; ``channels_last`` and ``compiled`` are in FP32."""

PREFETCHED = 2
"""Batches that each reading process keeps ready, PyTorch's default."""

Step = Callable[[TrainingBatch], None]


@dataclass(frozen=True)
class ThroughputReport:
    """Reading alone, steps alone in every mode, and both as training does them."""

    recipe: str
    batch_size: int
    workers: int
    device: str
    images: int
    """Images that one timed call reads or processes."""
    calls: Mapping[str, Summary]
    """``loader``, the modes, then ``training`` (loader and the first mode together)."""
    peak_memory_bytes: Mapping[str, int] = field(default_factory=dict)
    """Peak GPU memory of the same calls; empty on a CPU."""

    def images_per_s(self, name: str) -> float:
        """Return the median rate of a call."""
        return 1e3 * self.images / self.calls[name].p50_ms

    @property
    def mode(self) -> str:
        """The first mode, which training uses."""
        return list(self.calls)[1]

    @property
    def waiting(self) -> float:
        """The share of the training time beyond the step's own, spent waiting for data or cores."""
        return 1 - self.images_per_s("training") / self.images_per_s(self.mode)

    def text(self) -> str:
        """Return a table, and the loader's rate against the step's."""
        step = self.images_per_s(self.mode)
        rows = []
        for name, summary in self.calls.items():
            rounds = [1e3 * self.images / ms for ms in summary.round_p50_ms]
            memory = self.peak_memory_bytes.get(name)
            rows.append(
                (
                    name,
                    f"{self.images_per_s(name):.1f}",
                    f"{min(rounds):.1f} to {max(rounds):.1f}",
                    f"{self.images_per_s(name) / step:.2f}x",
                    f"{memory / 2**30:.2f}" if memory else "",
                )
            )
        loader = self.images_per_s("loader") / step
        return (
            f"{self.recipe}, batch {self.batch_size}, {self.workers} workers, {self.device}\n"
            f"{format_table(('', 'images/s', 'rounds', f'/ {self.mode}', 'GPU GiB'), rows)}\n"
            f"reading alone is {loader:.1f} times as fast as a step alone; training, which reads "
            f"while it computes, has {1 - self.waiting:.0%} of the speed of the step alone"
        )


def measure(
    recipe: Recipe,
    data: Path,
    *,
    modes: Sequence[str] = ("fp32",),
    steps: int = 8,
    rounds: int = 3,
) -> ThroughputReport:
    """Time the loader, a step on one batch in every mode, and training, which does both at once.

    They are timed in interleaved rounds, so that a drift of the machine slows all alike; one round
    before them is not counted.

    Args:
        recipe: gives network, losses, batch size and workers.
        data: the recipe's data.
        modes: of :data:`MODES`.
        steps: batches per round.
        rounds: number of timed rounds.

    Raises:
        MsfnetError: an unknown mode, or no such data.
    """
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        raise MsfnetError(f"unknown mode {unknown}; choose from {', '.join(MODES)}")
    batches = _batches(recipe, data)
    with closing(batches):
        one = next(batches)
        jobs: dict[str, tuple[Step, Callable[[], TrainingBatch]]] = {
            "loader": (lambda batch: None, lambda: next(batches)),
            **{mode: (_make_step(recipe, mode), lambda: one) for mode in modes},
        }
        jobs["training"] = (jobs[modes[0]][0], lambda: next(batches))
        peaks: dict[str, int] = {}

        def timed(name: str) -> TimedCall[int]:
            step, batch = jobs[name]

            def call(steps: int) -> Times:
                for _ in range(recipe.trainer.workers * PREFETCHED + 1):
                    next(batches)  # what was read while something else was timed
                if gpu:
                    torch.cuda.reset_peak_memory_stats()
                times = clocked(lambda _: _take_steps(step, batch, steps))(None)
                if gpu:
                    peaks[name] = torch.cuda.max_memory_allocated()
                return times

            return call

        gpu = torch.cuda.is_available()
        samples = time_stages(
            {name: timed(name) for name in jobs}, [steps], rounds=rounds, warmup=1
        )
    return ThroughputReport(
        recipe.name,
        recipe.trainer.batch_size,
        recipe.trainer.workers,
        torch.cuda.get_device_name() if gpu else "CPU",
        steps * recipe.trainer.batch_size,
        {name: stages[END_TO_END].summary() for name, stages in samples.items()},
        peaks,
    )


def _batches(recipe: Recipe, data: Path) -> Generator[TrainingBatch]:
    """Yield batches endlessly, as training reads them; closing it ends the reading processes."""
    pairs = TrainingPairs(open_split(recipe.data, data).train, recipe)
    config, sampler = recipe.trainer, _Endless(len(pairs), recipe.trainer.seed)
    yield from make_loader(pairs, config.batch_size, config, join_training, sampler)


class _Endless(EpochSampler):
    """One epoch after the other."""

    def __init__(self, size: int, seed: int) -> None:
        self._number = 0
        super().__init__(size, seed, lambda: self._number)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield keys without end."""
        while True:
            yield from super().__iter__()
            self._number += 1


def _make_step(recipe: Recipe, mode: str) -> Step:
    """Return one optimisation step of a fresh network on the first GPU, or the CPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = replace(
        recipe.trainer, channels_last=mode == "channels_last", compile=mode == "compiled"
    )
    module = DepthModule(replace(recipe, trainer=trainer), {}, pretrained=False).to(device).train()
    adam = torch.optim.Adam(module.network.parameters(), lr=recipe.optimizer.learning_rate)

    def step(batch: TrainingBatch) -> None:
        torch.set_float32_matmul_precision("high" if mode == "tf32" else "highest")
        image, target, valid = (t.to(device, non_blocking=True) for t in batch[:3])
        with torch.autocast(device.type, torch.bfloat16, enabled=mode == "bf16"):
            loss = module.terms(TrainingBatch(image, target, valid, batch.names))["loss"]
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()

    return step


def _take_steps(step: Step, batch: Callable[[], TrainingBatch], steps: int) -> None:
    """Take some steps and wait for the GPU."""
    for _ in range(steps):
        step(batch())
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> int:
    """Measure the recipe named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m msfnet_train.throughput", description=__doc__)
    parser.add_argument("recipe", help="name or TOML file")
    parser.add_argument("--data", type=Path, required=True, help="data in the recipe's layout")
    parser.add_argument("--set", action="append", default=[], help="override a key of the recipe")
    parser.add_argument("--modes", default="fp32", help=f"of {', '.join(MODES)}")
    parser.add_argument("--steps", type=int, default=8, help="batches per round")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds")
    options = parser.parse_args()
    try:
        report = measure(
            load_recipe(options.recipe, options.set),
            options.data,
            modes=options.modes.split(","),
            steps=options.steps,
            rounds=options.rounds,
        )
    except MsfnetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
