"""The gain of folding: the same networks exported with and without it, side by side in one run.

``python -m tests.rigs.folding_benchmark`` prints a table: GMAC, and ONNX Runtime's latency with the
variants timed in turns. Weights are random: they change neither.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from msfnet_benchmarks.tables import format_table
from msfnet_benchmarks.timing.core import Clock, time_calls
from msfnet_export.export_options import Pass, RunsOn
from msfnet_export.parity import random_image
from msfnet_export.to_onnx import export_network
from msfnet_runtime import DepthEstimator, Frame
from msfnet_runtime.progress import Progress, silent
from msfnet_train import MSFNet, NetworkConfig

VARIANTS: Mapping[str, tuple[tuple[Pass, ...], RunsOn]] = {
    "unfolded": (("up-blocks", "convolutions", "batch-norm"), "any"),
    "batch norm": (("up-blocks", "convolutions"), "any"),
    "and Up-blocks": (("convolutions",), "any"),
    "and convolutions": ((), "any"),
    "for CPUs: resizing": (("winograd",), "cpu"),
    "and Winograd": ((), "cpu"),
}
"""The passes that each row leaves out, and its target; an export is the fourth row, and with
``--target cpu`` the last one."""


@dataclass(frozen=True)
class FoldingRow:
    """One network in one variant."""

    network: str
    variant: str
    macs: int
    """Multiply-accumulates for one image."""
    p50_ms: float
    """Median latency in ONNX Runtime, milliseconds."""
    parity: float
    """Largest relative difference from PyTorch."""


def measure_folding(
    networks: Mapping[str, NetworkConfig],
    size: tuple[int, int],
    *,
    rounds: int = 20,
    progress: Progress = silent,
    clock: Clock = time.perf_counter,
) -> list[FoldingRow]:
    """Export every network in every variant, and time its variants in turns.

    Args:
        networks: by name.
        size: (height, width) of the input, pixels.
        rounds: how often every variant is timed.
        progress: called after every export and every timed call.
        clock: seconds; replaced in tests.

    Raises:
        MsfnetError: as :func:`export_network`.
    """
    rows = []
    frame = Frame(random_image(size, seed=0))
    for name, config in networks.items():
        torch.manual_seed(0)
        network = MSFNet(config).eval()
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            reports, estimators = {}, {}
            for number, (variant, (without, runs_on)) in enumerate(VARIANTS.items()):
                path = Path(folder) / f"{number}.onnx"
                reports[variant] = export_network(
                    network, path, size=size, without=without, runs_on=runs_on
                )
                estimators[variant] = stack.enter_context(DepthEstimator.open(path))
                progress(number + 1, len(VARIANTS), f"{name} exported: {variant}")
            timed = time_calls(estimators, [frame], rounds=rounds, progress=progress, clock=clock)
            for variant, samples in timed.items():
                report, p50_ms = reports[variant], samples.summary().p50_ms
                difference = report.max_relative_difference
                rows.append(FoldingRow(name, variant, report.macs, p50_ms, difference))
    return rows


def folding_table(rows: Sequence[FoldingRow]) -> str:
    """Return the rows as a table, each compared with its network's first."""
    first = {row.network: row for row in reversed(rows)}
    header = ("network", "folded", "GMAC", "less", "p50 ms", "less", "parity")
    return format_table(header, [_cells(row, first[row.network]) for row in rows])


def _cells(row: FoldingRow, first: FoldingRow) -> tuple[str, ...]:
    return (
        row.network,
        row.variant,
        f"{row.macs / 1e9:.3f}",
        f"{1 - row.macs / first.macs:.1%}",
        f"{row.p50_ms:.1f}",
        f"{1 - row.p50_ms / first.p50_ms:.1%}",
        f"{row.parity:.0e}",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the networks named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", action="append", help="repeatable")
    parser.add_argument("--size", default="228x304", help="HxW of the input")
    parser.add_argument("--decoder-width", type=float, default=1.0)
    parser.add_argument("--usf-width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(arguments)
    height, width = (int(side) for side in options.size.split("x"))
    common: dict[str, Any] = {"pretrained": False, "usf_width": options.usf_width}
    networks = {
        encoder: NetworkConfig(encoder=encoder, decoder_width=options.decoder_width, **common)
        for encoder in options.encoder or ("mobilenetv3_large_100", "legacy_senet154")
    }

    def tell(done: int, total: int, what: str) -> None:
        print(f"\r{done}/{total} {what}".ljust(60), end="", file=sys.stderr, flush=True)

    rows = measure_folding(networks, (height, width), rounds=options.rounds, progress=tell)
    print(file=sys.stderr)
    print(folding_table(rows))


if __name__ == "__main__":
    main()
