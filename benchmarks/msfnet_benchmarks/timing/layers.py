"""The time of every layer of a model, by the profiler of the engine that runs it.

Engines fuse and reorder, so layers are theirs, named after the graph's nodes where they keep the
names. Timing every layer slows a model: compare shares, not sums.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
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
"""ONNX Runtime appends it to a node's name."""

_BLOCKED = "_nchwc"
"""It appends this to the output's name of a convolution in its own layout."""


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
        batch: of the shape and type of ``spec.inputs[0]``.
        provider: as :func:`~msfnet_runtime.open_engine` takes it, for ONNX files.
        threads: CPU threads; 0 leaves the choice to the library.
        runs: number of timed runs, after two that are not.

    Raises:
        MsfnetError: the model cannot be opened, or what runs it has no profiler.
    """
    if path.suffix in ENGINE_SUFFIXES:
        from msfnet_runtime.engines.tensorrt import TensorRTEngine

        with TensorRTEngine(path) as tensorrt:
            spec = tensorrt.spec
            timed = [tensorrt.layer_times(batch) for _ in range(runs + 2)]
        rounds = [[_Timed(name, "", ms) for name, ms in run] for run in timed]
    elif provider == "openvino":
        from msfnet_runtime.engines.openvino import OpenVinoEngine

        with OpenVinoEngine(path, threads=threads, profile=True) as openvino:
            spec = openvino.spec
            rounds = [
                [_Timed(*layer) for layer in openvino.layer_times(batch)] for _ in range(runs + 2)
            ]
    else:
        from msfnet_runtime.engines.onnxruntime import OnnxRuntimeEngine

        with tempfile.TemporaryDirectory() as folder:
            with OnnxRuntimeEngine(
                path, provider=provider, threads=threads, profile=Path(folder, "profile")
            ) as engine:
                spec = engine.spec
                for _ in range(runs + 2):
                    engine.infer(batch)
            (written,) = Path(folder).iterdir()
            rounds = _rounds(_read_profile(written))
    return _summarise(rounds[2:], spec)


def _read_profile(path: Path) -> Iterator[_Timed]:
    """Yield the layers of ONNX Runtime's profile, one run after the other."""
    for event in read_json(path, tuple[dict[str, Any], ...]):
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            name = event["name"].removesuffix(_SUFFIX).removesuffix(_BLOCKED)
            yield _Timed(name, event["args"]["op_name"], event["dur"] / 1e3)


def _rounds(layers: Iterable[_Timed]) -> list[list[_Timed]]:
    """Split a list of runs, one after the other, where a layer comes again."""
    rounds: list[list[_Timed]] = []
    seen: set[str] = set()
    for layer in layers:
        if not rounds or layer.name in seen:
            rounds.append([])
            seen.clear()
        seen.add(layer.name)
        rounds[-1].append(layer)
    return rounds


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
        raise MsfnetError("the engine's profiler reported no layer; run `msfnet doctor`")
    medians = {name: float(np.median(values)) for name, values in times.items()}
    whole = sum(medians.values()) or 1.0
    blocks = [block.name for block in spec.blocks]
    return tuple(
        LayerCost(name, operators[name], _block(name, blocks), ms, ms / whole)
        for name, ms in sorted(medians.items(), key=lambda item: -item[1])
    )


def _block(layer: str, blocks: Sequence[str]) -> str:
    """Return the block whose name a layer's begins with, the longest where several do.

    Nodes inside an encoder are named after its modules, which its stages do not separate.
    """
    fitting = [name for name in (*blocks, "encoder") if f"{layer}.".startswith(f"{name}.")]
    return max(fitting, key=len, default="")
