"""Sweeps settings of a network: a row of cost for every combination, written as it is measured."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from msfnet_benchmarks.report.environment import describe_environment
from msfnet_benchmarks.report.report import SCHEMA, BenchmarkReport, BenchmarkRow
from msfnet_benchmarks.timing.costs import FlopBound, Throughput
from msfnet_benchmarks.timing.flops import measure_flop_bound
from msfnet_benchmarks.timing.latency import LatencyReport, measure_latency
from msfnet_runtime import Frame, MsfnetError, OnnxArtifact, open_engine
from msfnet_runtime.blocks import read_blocks
from msfnet_runtime.files import atomic_path, check_writable
from msfnet_runtime.progress import Progress, silent

if TYPE_CHECKING:
    from msfnet_train.network import MSFNet, NetworkConfig

T = TypeVar("T")

DEFAULTS = MappingProxyType({"size": "228x304", "batch": "1", "threads": "0"})
"""What the axes that every sweep has are set to unless swept: the paper's size for NYU."""

TITLE = "Sweep"

_DYNAMIC: tuple[Literal["batch"]] = ("batch",)

CALLS_A_ROUND = 8
"""Timed calls of a point for each of ``--rounds``."""

Settings = Mapping[str, str]
"""A value for every axis, as it was written."""


@dataclass(frozen=True)
class SweepRequest:
    """What to measure."""

    axes: Mapping[str, tuple[str, ...]]
    """Values by axis; the first axes change slowest."""
    checkpoint: Path | None = None
    """Whose network is measured; None: networks of random weights, which the axes describe."""
    calls: int = 20
    """How often every point is timed."""
    counts_only: bool = False
    """Count multiplications, parameters and bytes, and time nothing."""
    provider: str = "cpu"
    json_path: Path | None = None
    """Brought up to date after every point; what it holds already is not measured again."""


def parse_axes(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read ``AXIS=VALUE,VALUE`` for every axis.

    Axes are ``size``, ``batch``, ``threads``, ``preset``, and the fields of a network's
    configuration: ``encoder``, ``decoder_width``, ``usf_width`` and so on.

    Raises:
        MsfnetError: an unknown axis, one named twice, or one without values.
    """
    from msfnet_train.network import NetworkConfig

    known = (*DEFAULTS, "preset", *(field.name for field in fields(NetworkConfig)))
    axes: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, _, listed = text.partition("=")
        values = tuple(filter(None, (value.strip() for value in listed.split(","))))
        if name not in known:
            raise MsfnetError(f"unknown axis {name!r}; sweep over {', '.join(known)}")
        if not values or name in axes:
            raise MsfnetError(f"--sweep {text!r}: write each axis once, e.g. size=128x160,192x256")
        axes[name] = tuple(dict.fromkeys(values))
    return axes


def one_of(values: Sequence[T], what: str) -> T | None:
    """Return the one value of a sweep's option; None where it was left out.

    Raises:
        MsfnetError: there are several.
    """
    if len(values) > 1:
        raise MsfnetError(f"a sweep takes one {what}, not {len(values)}; sweep them one by one")
    return values[0] if values else None


def sweep(request: SweepRequest, progress: Progress = silent) -> BenchmarkReport:
    """Measure every combination; engine only, on random input, one after the other.

    The machine's arithmetic is measured beside every point, so that points of a machine that
    drifts can be compared by their share of it.

    Args:
        request: what to measure.
        progress: told after every point.

    Raises:
        MsfnetError: a value that does not fit its axis, a network that cannot be built or
            exported, or a JSON that cannot be written or holds something else.
    """
    points = list(_points(request))
    report = _begun(request)
    known = {row.name: row for row in report.rows}
    rows: list[BenchmarkRow] = []
    with tempfile.TemporaryDirectory() as folder:
        networks = _Networks(request, Path(folder))
        for number, settings in enumerate(points):
            name = _name(settings)
            row = known.get(name) or _measure(request, settings, networks.exported(settings))
            rows.append(replace(row, settings=dict(settings)))
            report = replace(report, rows=tuple(rows))
            if request.json_path:
                _write(report, request.json_path)
            progress(number + 1, len(points), name)
    return report


def _points(request: SweepRequest) -> Iterator[Settings]:
    """Yield the combinations, every value checked before the first is measured.

    Raises:
        MsfnetError: a value does not fit its axis, or no network is named.
    """
    network = [axis for axis in request.axes if axis not in DEFAULTS]
    if request.checkpoint and network:
        raise MsfnetError(f"a checkpoint has its own {network[0]}; leave out one of the two")
    if not request.checkpoint and not {"encoder", "preset"} & set(network):
        raise MsfnetError("no network to sweep; name a checkpoint, or an axis encoder= or preset=")
    # Exports are costly: what needs none changes fastest.
    order = [*network, *(axis for axis in DEFAULTS if axis in request.axes)]
    for values in itertools.product(*(request.axes[axis] for axis in order)):
        settings = dict(zip(order, values, strict=True))
        _size(settings), _count(settings, "batch"), _count(settings, "threads")
        if not request.checkpoint:
            _config(settings)
        yield settings


def _begun(request: SweepRequest) -> BenchmarkReport:
    """Return what an earlier run of the same sweep left, or an empty report.

    Raises:
        MsfnetError: the JSON cannot be written, or holds something else.
    """
    report = BenchmarkReport(
        title=TITLE,
        rows=(),
        baseline=None,
        protocol=None,
        data=str(request.checkpoint) if request.checkpoint else None,
        frames=0 if request.counts_only else request.calls,
        frame_size=(0, 0),
        environment=describe_environment(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    path = request.json_path
    if path is None or not path.is_file():
        if path:
            check_writable(path)
        return report
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        fits = (stored["schema"], stored["title"]) == (SCHEMA, TITLE)
        kept = tuple(_row(row) for row in stored["rows"]) if fits else ()
    except (OSError, ValueError, KeyError, TypeError):
        fits, kept = False, ()
    if not fits:
        raise MsfnetError(f"{path} is no sweep that could be gone on with; name another file")
    same = all(stored[name] == getattr(report, name) for name in ("data", "frames"))
    if not same or stored["environment"] != dict(report.environment):
        raise MsfnetError(
            f"{path} was measured otherwise (model, calls, libraries or machine); name another file"
        )
    return replace(report, rows=kept)


def _row(stored: Mapping[str, Any]) -> BenchmarkRow:
    """Return a row as this module writes it, from its JSON."""
    latency = stored["engine_latency"]
    if latency:
        latency = LatencyReport(
            **{
                **latency,
                "round_p50_ms": tuple(latency["round_p50_ms"]),
                "samples_ms": tuple(tuple(row) for row in latency["samples_ms"]),
            }
        )
    bound = stored["flop_bound"]
    return BenchmarkRow(
        name=stored["name"],
        engine=stored["engine"],
        precision=stored["precision"],
        size_bytes=stored["size_bytes"],
        latency=None,
        speedup=None,
        accuracy=None,
        parity=None,
        engine_latency=latency,
        throughput=tuple(Throughput(**rate) for rate in stored["throughput"]),
        macs=stored["macs"],
        parameters=stored["parameters"],
        settings=stored["settings"],
        flop_bound=FlopBound(**bound) if bound else None,
    )


def _write(report: BenchmarkReport, path: Path) -> None:
    with atomic_path(path) as partial:
        partial.write_text(report.to_json() + "\n", encoding="utf-8")


def _name(settings: Settings) -> str:
    """Return what a point is called: its values, numbers with their axis."""
    return " ".join(
        value if axis in ("size", "encoder", "preset") else f"{axis}={value}"
        for axis, value in settings.items()
    )


def _size(settings: Settings) -> tuple[int, int]:
    from msfnet.cli.options import parse_size

    return parse_size(settings.get("size", DEFAULTS["size"]))


def _count(settings: Settings, axis: str) -> int:
    text = settings.get(axis, DEFAULTS[axis])
    if not text.isdecimal() or (axis == "batch" and not int(text)):
        raise MsfnetError(f"{axis} {text!r} is no whole number; write for instance {axis}=1,2")
    return int(text)


def _config(settings: Settings) -> NetworkConfig:
    """Return the configuration that a point's network axes describe; weights are random."""
    from msfnet_train.recipe import load_network

    values = {axis: value for axis, value in settings.items() if axis not in DEFAULTS}
    return replace(load_network(values, "--sweep"), pretrained=False)


class _Networks:
    """Builds and exports a sweep's networks, the last of each kept."""

    def __init__(self, request: SweepRequest, folder: Path) -> None:
        self._request, self._folder = request, folder
        self._network: tuple[Settings, MSFNet] | None = None
        self._exported: tuple[Settings, OnnxArtifact] | None = None

    def exported(self, settings: Settings) -> OnnxArtifact:
        """Return a point's network graph, its batch open where batches are swept."""
        from msfnet_export import export_network

        wanted = {axis: v for axis, v in settings.items() if axis not in ("batch", "threads")}
        if self._exported is None or self._exported[0] != wanted:
            report = export_network(
                self._built({axis: v for axis, v in wanted.items() if axis != "size"}),
                self._folder / "network.onnx",
                size=_size(settings),
                dynamic=_DYNAMIC if "batch" in self._request.axes else (),
            )
            self._exported = (wanted, report.artifact)
        return self._exported[1]

    def _built(self, wanted: Settings) -> MSFNet:
        import torch

        from msfnet_train.checkpoint import load_checkpoint
        from msfnet_train.network import MSFNet

        if self._network is None or self._network[0] != wanted:
            if self._request.checkpoint:
                network = load_checkpoint(self._request.checkpoint).network
            else:
                torch.manual_seed(0)
                network = MSFNet(_config(wanted))
            self._network = (wanted, network)
        return self._network[1]


def _measure(request: SweepRequest, settings: Settings, artifact: OnnxArtifact) -> BenchmarkRow:
    name, threads = _name(settings), _count(settings, "threads")
    blocks = read_blocks(artifact.spec)
    row = BenchmarkRow(
        name=name,
        engine="",
        precision=artifact.spec.precision,
        size_bytes=artifact.bytes,
        latency=None,
        speedup=None,
        accuracy=None,
        parity=None,
        macs=sum(block.macs for block in blocks),
        parameters=sum(block.parameters for block in blocks),
    )
    if request.counts_only:
        return row
    count = _count(settings, "batch")
    shape = (count, 3, *_size(settings))
    batch = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    frame = Frame(np.empty((1, 1, 3), np.uint8))
    with ExitStack() as stack:
        engine = stack.enter_context(
            open_engine(artifact.path, provider=request.provider, threads=threads)
        )
        (latency,) = measure_latency(
            {name: lambda _: engine.infer(batch)}, [frame], rounds=request.calls
        )
        described = engine.describe()
    return replace(
        row,
        engine=described,
        engine_latency=latency,
        throughput=(Throughput(count, 1e3 * count / latency.p50_ms, latency.p50_ms),),
        flop_bound=measure_flop_bound(threads),
    )
