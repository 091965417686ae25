"""What every layer of a model takes, as the engine that runs it says itself.

Engines fuse and reorder, so layers are theirs, named after the graph's nodes where they keep the
names. Timing every layer slows a model: shares are to be read, not sums.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.timing.costs import LayerCost
from msfnet_runtime import MsfnetError
from msfnet_runtime.engines import ENGINE_SUFFIXES
from msfnet_runtime.spec import ModelSpec
from msfnet_runtime.typed import read_json

_SUFFIX = "_kernel_time"
"""ONNX Runtime writes it behind a node's name."""

_BLOCKED = "_nchwc"
"""It writes this behind the name of the value that a convolution in its own layout gives."""


class _Timed(NamedTuple):
    """One layer in one run."""

    name: str
    operator: str
    ms: float


def profile_layers(
    path: Path, batch: NDArray[Any], *, provider: str = "cpu", threads: int = 0, runs: int = 10
) -> tuple[LayerCost, ...]:
    """Run a model with its engine's own profiler; return its layers by falling time.

    Args:
        path: ONNX file or engine.
        batch: as ``spec.inputs[0]`` has it.
        provider: as :func:`~msfnet_runtime.open_engine` takes it, for ONNX files.
        threads: CPU threads; 0 leaves the choice to the library.
        runs: how many are timed, after two that are not.

    Raises:
        MsfnetError: the model cannot be opened, or what runs it has no profiler.
    """
    if path.suffix in ENGINE_SUFFIXES:
        from msfnet_runtime.engines.tensorrt import TensorRTEngine

        with TensorRTEngine(path) as engine:
            timed = [engine.layer_times(batch) for _ in range(runs + 2)][2:]
            layers = [[_Timed(name, "", ms) for name, ms in run] for run in timed]
            return _summarise(layers, engine.spec)
    if provider == "openvino":
        return _by_openvino(path, batch, threads, runs)
    return _by_onnxruntime(path, batch, provider, threads, runs)


def _by_onnxruntime(
    path: Path, batch: NDArray[Any], provider: str, threads: int, runs: int
) -> tuple[LayerCost, ...]:
    from msfnet_runtime.engines.onnxruntime import OnnxRuntimeEngine

    with tempfile.TemporaryDirectory() as folder:
        with OnnxRuntimeEngine(
            path, provider=provider, threads=threads, profile=Path(folder, "profile")
        ) as engine:
            for _ in range(runs + 2):
                engine.infer(batch)
            spec = engine.spec
        (written,) = Path(folder).iterdir()
        events = read_json(written, tuple[dict[str, Any], ...])
    rounds = _rounds(
        _Timed(
            event["name"].removesuffix(_SUFFIX).removesuffix(_BLOCKED),
            event["args"]["op_name"],
            event["dur"] / 1e3,
        )
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX)
    )
    return _summarise(rounds[2:], spec)


def _rounds(layers: Iterable[_Timed]) -> list[list[_Timed]]:
    """Part a list of runs, one behind the other, where a layer comes again."""
    rounds: list[list[_Timed]] = []
    seen: set[str] = set()
    for layer in layers:
        if not rounds or layer.name in seen:
            rounds.append([])
            seen.clear()
        seen.add(layer.name)
        rounds[-1].append(layer)
    return rounds


def _by_openvino(path: Path, batch: NDArray[Any], threads: int, runs: int) -> tuple[LayerCost, ...]:
    from msfnet_runtime.engines.openvino import OpenVinoEngine

    with OpenVinoEngine(path, threads=threads, profile=True) as engine:
        timed = [engine.layer_times(batch) for _ in range(runs + 2)][2:]
        return _summarise([[_Timed(*layer) for layer in run] for run in timed], engine.spec)


def _summarise(rounds: Sequence[Sequence[_Timed]], spec: ModelSpec) -> tuple[LayerCost, ...]:
    """Return each layer's median over the runs.

    Raises:
        MsfnetError: no run was timed.
    """
    times, operators = defaultdict(list), {}
    for layer in (layer for run in rounds for layer in run):
        times[layer.name].append(layer.ms)
        operators[layer.name] = layer.operator
    if not times:
        raise MsfnetError("the engine's profiler told of no layer; run `msfnet doctor`")
    medians = {name: float(np.median(values)) for name, values in times.items()}
    whole = sum(medians.values()) or 1.0
    blocks = [block.name for block in spec.blocks]
    return tuple(
        LayerCost(name, operators[name], _block(name, blocks), ms, ms / whole)
        for name, ms in sorted(medians.items(), key=lambda item: -item[1])
    )


def _block(layer: str, blocks: Sequence[str]) -> str:
    """Return the block whose name a layer's begins with, the longest where several do.

    Nodes inside an encoder are named after its modules, which its stages do not part.
    """
    fitting = [name for name in (*blocks, "encoder") if f"{layer}.".startswith(f"{name}.")]
    return max(fitting, key=len, default="")
