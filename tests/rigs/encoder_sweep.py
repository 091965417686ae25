"""Exports a network around every timm encoder, and writes ``docs/encoders.csv``.

Each encoder runs in a process of its own, bounded in time and memory, with random weights and a
narrow decoder. A row is added to the table as soon as it is known, and rows that the table has
already are kept, so a sweep that was stopped goes on: ``python -m tests.rigs.encoder_sweep``.
"""

from __future__ import annotations

import argparse
import copy
import csv
import logging
import multiprocessing
import os
import random
import resource
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msfnet_train import MSFNet

TABLE = Path(__file__).parents[2] / "docs" / "encoders.csv"

SIZE = (76, 100)
"""Pixels: no multiples of 32, and odd sides at most of the strides."""


@dataclass
class Row:
    """What became of one encoder."""

    encoder: str
    result: str
    """``exports``, ``refused`` before training, ``fails`` or ``not tried``."""
    parameters_m: str = ""
    """Millions, of the encoder."""
    channels: str = ""
    difference: str = ""
    """Largest relative difference of the exported graph from PyTorch."""
    reason: str = ""


def export(name: str, largest: float) -> Row:
    """Build, export and compare a network around one encoder."""
    import timm
    import torch

    from msfnet_export import export_network, to_onnx
    from msfnet_runtime import MsfnetError
    from msfnet_train import MSFNet, NetworkConfig
    from msfnet_train.network import STRIDES

    row = Row(name, "refused")
    try:
        with torch.device("meta"):
            encoder: Any = timm.create_model(name, features_only=True, pretrained=False)
        strides = encoder.feature_info.reduction()
    except Exception as error:  # noqa: BLE001 - each family raises its own
        row.reason = f"no feature maps: {type(error).__name__}"
        return row
    if strides != STRIDES:
        row.reason = f"strides {' '.join(map(str, strides))}"
        return row
    millions = sum(weights.numel() for weights in encoder.parameters()) / 1e6
    row.parameters_m = f"{millions:.1f}"
    row.channels = " ".join(map(str, encoder.feature_info.channels()))
    if millions > largest:
        row.result, row.reason = "not tried", f"more than {largest:g} M parameters"
        return row
    config = NetworkConfig(
        encoder=name, pretrained=False, decoder_width=0.0625, usf_width=8, usf_output=16
    )
    torch.manual_seed(0)
    try:
        network = settled(MSFNet(config))
        row.result = "fails"
        rounding = rounding_of(network)
        to_onnx.TOLERANCE = max(to_onnx.TOLERANCE, 3 * rounding)  # type: ignore[attr-defined]
        with tempfile.TemporaryDirectory() as folder:
            report = export_network(network, Path(folder, "m.onnx"), size=SIZE, graph="deploy")
        row.result, row.difference = "exports", f"{report.max_relative_difference:.1e}"
        if report.max_relative_difference > 1e-4:
            row.reason = f"PyTorch in FP32 differs from FP64 by {rounding:.1e}"
    except Exception as error:  # noqa: BLE001 - the table tells what is no message of ours
        kind = "" if isinstance(error, MsfnetError) else f"{type(error).__name__}: "
        row.reason = f"{kind}{' '.join(str(error).split())}"[:200]
    return row


def rounding_of(network: MSFNet) -> float:
    """Return the largest relative difference of a network in FP32 from itself in FP64.

    Some networks of random weights blow up rounding errors; no export can be closer than that.
    """
    import torch

    from msfnet_export.graphs import default_spec
    from msfnet_export.parity import RANDOM_IMAGES, random_image, relative_difference
    from msfnet_runtime.preprocess import prepare

    spec = default_spec(network, SIZE)
    exact = copy.deepcopy(network).double()
    worst = 0.0
    for seed in range(RANDOM_IMAGES):
        image = torch.from_numpy(prepare(random_image(SIZE, seed), spec))
        with torch.inference_mode():
            single, double = (
                model(image.to(kind)).numpy()
                for model, kind in ((network, torch.float32), (exact, torch.float64))
            )
        worst = max(worst, relative_difference(single, double, spec.depth_range_m[0]))
    return worst


def settled(network: MSFNet) -> MSFNet:
    """Give a network of random weights values as of a trained one: 5 m, give or take 1 m.

    Without it, values of deep encoders grow until rounding errors are larger than depth.
    """
    import numpy as np
    import torch

    from msfnet_export.graphs import default_spec
    from msfnet_export.parity import random_image
    from msfnet_runtime.preprocess import prepare

    spec = default_spec(network, (128, 160))
    shown = [prepare(random_image(spec.size, seed), spec) for seed in range(10, 14)]
    images = torch.from_numpy(np.concatenate(shown))
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the statistics of these images, not a share of them
    with torch.no_grad():
        network.train()(images)
        head = network.eval().decoder.head
        depth: torch.Tensor = network(images)
        head.weight.data /= depth.std()
        head.bias = torch.nn.Parameter(torch.full((1,), 5.0))
    return network


def _child(sender: Connection, name: str, largest: float, seconds: float, gigabytes: float) -> None:
    limit = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sender.send(export(name, largest))


def bounded(name: str, largest: float, seconds: float, gigabytes: float) -> Row:
    """Export in a process of its own."""
    context = multiprocessing.get_context("fork")  # libraries are loaded once, by the parent
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, name, largest, seconds, gigabytes))
    process.start()
    sender.close()
    try:
        row: Row = receiver.recv()
    except EOFError:
        process.join()
        reason = f"the export ends with status {process.exitcode}"
        if process.exitcode == -signal.SIGXCPU:
            reason = f"the export takes more than {seconds:g} s"
        row = Row(name, "fails", reason=reason)
    process.kill()
    process.join()
    return row


def sweep(table: Path, again: Iterable[str], largest: float, seconds: float, memory: float) -> None:
    """Add the missing rows to a table.

    Args:
        table: CSV file; made if it is missing.
        again: results to try again.
        largest: millions of parameters; larger encoders are not tried.
        seconds: processor time of one encoder.
        memory: limit of one encoder, GB.
    """
    import onnxsim  # noqa: F401 - loaded before the processes are forked
    import timm
    import torch

    import msfnet_export.to_onnx  # noqa: F401 - as above
    import msfnet_train.network  # noqa: F401 - as above

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rows = {row.encoder: row for row in read_table(table) if row.result not in again}
    for name in _mixed(timm.list_models()):
        if name not in rows:
            started = time.monotonic()
            row = rows[name] = bounded(name, largest, seconds, memory)
            write_table(table, rows.values())
            print(
                f"{name} {row.result} {time.monotonic() - started:.1f} s {row.reason}", flush=True
            )


def _mixed(names: list[str]) -> list[str]:
    """Order encoders so that a stopped sweep has seen some of each of timm's files."""
    import timm

    random.Random(0).shuffle(names)
    seen: Counter[str] = Counter()
    ranks = {}
    for name in names:
        file = timm.model_entrypoint(name).__module__
        ranks[name], seen[file] = seen[file], seen[file] + 1
    return sorted(names, key=ranks.__getitem__)


def read_table(table: Path) -> list[Row]:
    """Return a table's rows; none if there is no such file."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return [Row(**row) for row in csv.DictReader(file)]


def write_table(table: Path, rows: Iterable[Row]) -> None:
    """Write a table, sorted by name."""
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in sorted(rows, key=lambda row: row.encoder))


def main() -> None:
    """Read the options and sweep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--again", nargs="*", default=(), help="results to try again: fails")
    parser.add_argument("--largest", type=float, default=100, help="million parameters")
    parser.add_argument("--seconds", type=float, default=240, help="processor time of one encoder")
    parser.add_argument("--memory", type=float, default=6, help="limit of one encoder, GB")
    options = parser.parse_args()
    sweep(options.table, options.again, options.largest, options.seconds, options.memory)


if __name__ == "__main__":
    main()
