"""Makes the points of a sweep: a candidate for every combination of a network's settings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType

from msfnet_benchmarks.candidates import Candidate, onnx_candidate
from msfnet_export.export_options import Dynamic
from msfnet_runtime import MsfnetError, OnnxArtifact
from msfnet_train.network import MSFNet, NetworkConfig
from msfnet_train.recipe import load_network

DEFAULTS = MappingProxyType({"size": "228x304", "batch": "1", "threads": "0"})
"""Values of the axes that every sweep has, unless swept: the paper's size for NYU."""

_Network = tuple[tuple[str, str], ...]
"""Axes that describe a network, with their values."""


@dataclass(frozen=True)
class _Point:
    """One combination."""

    settings: Mapping[str, str]
    network: _Network
    size: tuple[int, int]
    batch: int
    threads: int

    @property
    def name(self) -> str:
        """The point's values; numbers with their axis. Points of the same name are the same."""
        return " ".join(
            value if axis in ("size", "encoder", "preset", "provider") else f"{axis}={value}"
            for axis, value in self.settings.items()
        )


def sweep_points(
    axes: Sequence[str], folder: Path, *, checkpoint: Path | None = None, provider: str = "cpu"
) -> dict[str, Callable[[], Candidate]]:
    """Return what makes the candidate of every combination, by its name.

    Every value is checked at once; networks are built and exported when a candidate is made.

    Args:
        axes: each is ``AXIS=VALUE,VALUE``. Axes are ``size``, ``batch``, ``threads``, ``preset``,
            and the fields of a network's configuration: ``encoder``, ``decoder_width`` and so on.
        folder: where exports are written; each replaces the one before.
        checkpoint: whose network is swept; None: networks of random weights.
        provider: what runs the exports.

    Raises:
        MsfnetError: an unknown axis, one without values or named twice, a value that does not fit
            its axis, or no network.
    """
    values = parse_axes(axes)
    network = [axis for axis in values if axis not in DEFAULTS]
    if checkpoint and network:
        raise MsfnetError(f"a checkpoint has its own {network[0]}; leave out one of the two")
    if not checkpoint and not {"encoder", "preset"} & set(network):
        raise MsfnetError("no network to sweep; name a checkpoint, or an axis encoder= or preset=")
    # Exports are costly: what needs none changes fastest.
    order = [*network, *(axis for axis in DEFAULTS if axis in values)]
    combinations = itertools.product(*(values[axis] for axis in order))
    runs = {} if provider == "cpu" else {"provider": provider}
    points = [_point({**dict(zip(order, chosen, strict=True)), **runs}) for chosen in combinations]
    if not checkpoint:
        for point in points:
            _config(point.network)
    exports = _Exports(folder, checkpoint, open_batch="batch" in values)
    return {point.name: partial(_candidate, point, exports, provider) for point in points}


def parse_axes(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read ``AXIS=VALUE,VALUE`` for every axis.

    Raises:
        MsfnetError: an unknown axis, one named twice, or one without values.
    """
    known = (*DEFAULTS, "preset", *(field.name for field in fields(NetworkConfig)))
    axes: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, _, listed = text.partition("=")
        values = tuple(filter(None, (value.strip() for value in listed.split(","))))
        if name not in known:
            raise MsfnetError(f"unknown axis {name!r}; sweep over {', '.join(known)}")
        if not values or name in axes:
            raise MsfnetError(
                f"axis {text!r}: write each axis once, for example size=128x160,192x256"
            )
        axes[name] = tuple(dict.fromkeys(values))
    return axes


def _point(settings: Mapping[str, str]) -> _Point:
    """Return a combination with its values read.

    Raises:
        MsfnetError: a value does not fit its axis.
    """
    from msfnet.cli.options import parse_size

    def count(axis: str) -> int:
        text = settings.get(axis, DEFAULTS[axis])
        if not text.isdecimal() or (axis == "batch" and not int(text)):
            raise MsfnetError(
                f"{axis} {text!r} is not a whole number; write for example {axis}=1,2"
            )
        return int(text)

    return _Point(
        settings=settings,
        network=tuple(
            (axis, value)
            for axis, value in settings.items()
            if axis not in DEFAULTS and axis != "provider"
        ),
        size=parse_size(settings.get("size", DEFAULTS["size"])),
        batch=count("batch"),
        threads=count("threads"),
    )


def _config(network: _Network) -> NetworkConfig:
    """Return the configuration that a point's network axes describe; weights are random."""
    return replace(load_network(dict(network), "the sweep"), pretrained=False)


def _candidate(point: _Point, exports: _Exports, provider: str) -> Candidate:
    artifact = exports.export(point.network, point.size)
    return replace(
        onnx_candidate(artifact, provider=provider, threads=point.threads),
        name=point.name,
        depth=False,
        batch=point.batch,
        input_size=point.size,
        settings=point.settings,
    )


class _Exports:
    """Builds and exports a sweep's networks, keeping the last of each."""

    def __init__(self, folder: Path, checkpoint: Path | None, *, open_batch: bool) -> None:
        self._path, self._checkpoint = folder / "network.onnx", checkpoint
        self._open_batch = open_batch
        self.export = lru_cache(maxsize=1)(self._export)
        self._built = lru_cache(maxsize=1)(self._build)

    def _export(self, network: _Network, size: tuple[int, int]) -> OnnxArtifact:
        """Return a network graph, its batch open where batches are swept."""
        from msfnet_export import export_network

        dynamic: tuple[Dynamic, ...] = ("batch",) if self._open_batch else ()
        return export_network(self._built(network), self._path, size=size, dynamic=dynamic).artifact

    def _build(self, network: _Network) -> MSFNet:
        import torch

        from msfnet_train.checkpoint import load_checkpoint

        if self._checkpoint:
            return load_checkpoint(self._checkpoint).network
        torch.manual_seed(0)
        return MSFNet(_config(network))
