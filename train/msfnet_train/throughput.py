"""How fast a recipe trains here, and whether reading keeps up: images per second, side by side.

``python -m msfnet_train.throughput nyu_mini --data data/nyu_mini``
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from msfnet_benchmarks.tables import format_table
from msfnet_runtime import MsfnetError
from msfnet_train.data import (
    EpochSampler,
    TrainingBatch,
    TrainingPairs,
    join_training,
    start_worker,
)
from msfnet_train.module import DepthModule
from msfnet_train.network import TrainingOutput
from msfnet_train.recipe import Recipe, load_recipe
from msfnet_train.split import open_split

MODES = ("fp32", "tf32", "bf16", "channels_last", "compiled")
"""Ways to compute a step; ``channels_last`` and ``compiled`` are in FP32."""

PREFETCHED = 2
"""Batches that each reading process keeps ready."""

Step = Callable[[TrainingBatch], None]


@dataclass(frozen=True)
class Rate:
    """The speed of one thing, over all rounds."""

    name: str
    images_per_second: float
    """Median of the rounds."""
    spread: tuple[float, float]
    """Slowest and fastest round."""
    peak_memory_bytes: int | None = None
    """Of the GPU; None on a CPU."""


@dataclass(frozen=True)
class ThroughputReport:
    """Reading alone, steps alone in every mode, and both as training does them."""

    recipe: str
    batch_size: int
    workers: int
    device: str
    rates: tuple[Rate, ...]
    """``loader``, the modes, then ``training`` (loader and the first mode together)."""

    def rate(self, name: str) -> Rate:
        """Return the rate of that name."""
        return next(rate for rate in self.rates if rate.name == name)

    @property
    def waiting(self) -> float:
        """The share of the training time beyond the step's own: for want of data or of cores."""
        step, both = self.rates[1].images_per_second, self.rate("training").images_per_second
        return 1 - both / step

    def text(self) -> str:
        """Return a table, and what it says of the loader."""
        first = self.rates[1]
        rows = [
            (
                rate.name,
                f"{rate.images_per_second:.1f}",
                f"{rate.spread[0]:.1f} to {rate.spread[1]:.1f}",
                f"{rate.images_per_second / first.images_per_second:.2f}x",
                f"{rate.peak_memory_bytes / 2**30:.2f}" if rate.peak_memory_bytes else "",
            )
            for rate in self.rates
        ]
        loader = self.rate("loader").images_per_second / first.images_per_second
        return (
            f"{self.recipe}, batch {self.batch_size}, {self.workers} workers, {self.device}\n"
            f"{format_table(('', 'images/s', 'rounds', f'/ {first.name}', 'GPU GiB'), rows)}\n"
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
    """Time the loader, a step on one batch in every mode, and training as it is.

    Interleaved rounds, so that a drift of the machine hits all alike; one round before them is
    not counted.

    Args:
        recipe: gives network, losses, batch size and workers.
        data: the recipe's data.
        modes: of :data:`MODES`.
        steps: batches per round.
        rounds: that count.

    Raises:
        MsfnetError: an unknown mode, or no such data.
    """
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        raise MsfnetError(f"unknown mode {unknown}; choose of {', '.join(MODES)}")
    batches = _batches(recipe, data)
    with closing(batches):
        one = next(batches)
        jobs: dict[str, tuple[Step, Callable[[], TrainingBatch]]] = {
            "loader": (lambda batch: None, lambda: next(batches)),
            **{mode: (_make_step(recipe, mode), lambda: one) for mode in modes},
        }
        jobs["training"] = (jobs[modes[0]][0], lambda: next(batches))
        times: dict[str, list[float]] = {name: [] for name in jobs}
        peaks: dict[str, int | None] = {}
        for number in range(rounds + 1):
            for name, (step, batch) in jobs.items():
                for _ in range(recipe.trainer.workers * PREFETCHED + 1):
                    next(batches)  # what was read while something else was timed
                seconds, peaks[name] = _time(step, batch, steps)
                if number:
                    times[name].append(steps * recipe.trainer.batch_size / seconds)
    return ThroughputReport(
        recipe.name,
        recipe.trainer.batch_size,
        recipe.trainer.workers,
        torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        tuple(
            Rate(name, statistics.median(rates), (min(rates), max(rates)), peaks[name])
            for name, rates in times.items()
        ),
    )


def _batches(recipe: Recipe, data: Path) -> Generator[TrainingBatch]:
    """Yield batches for ever, as training reads them; close it to end the reading processes."""
    pairs = TrainingPairs(open_split(recipe.data, data).train, recipe)
    loader = DataLoader(
        pairs,
        recipe.trainer.batch_size,
        sampler=_Endless(len(pairs), recipe.trainer.seed),
        collate_fn=join_training,
        num_workers=recipe.trainer.workers,
        worker_init_fn=start_worker,
        prefetch_factor=PREFETCHED if recipe.trainer.workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    yield from loader


class _Endless(EpochSampler):
    """One epoch after the other."""

    def __init__(self, size: int, seed: int) -> None:
        self._number = 0
        super().__init__(size, seed, lambda: self._number)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield keys for ever."""
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
        if trainer.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=mode == "bf16"):
            output = module.network(image)
        assert isinstance(output, TrainingOutput)
        loss = module.loss(output.prediction, output.auxiliary, target, valid)["loss"]
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()

    return step


def _time(step: Step, batch: Callable[[], TrainingBatch], steps: int) -> tuple[float, int | None]:
    """Return the seconds of some steps, and the GPU's peak of memory in bytes."""
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for _ in range(steps):
        step(batch())
    if gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return seconds, torch.cuda.max_memory_allocated() if gpu else None


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
