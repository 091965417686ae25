"""Runs NVIDIA's trtexec on an engine and reads what it measured.

trtexec of TensorRT 10 and 11 have different defaults: 10 runs without a CUDA graph and with
transfers, 11 the other way round, and the options that change it differ, too. The options of the
installed tool are read from its own ``--help``, so that the settings are always those requested.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msfnet_benchmarks.timing.core import Samples
from msfnet_benchmarks.timing.stages import device_times
from msfnet_runtime import EngineArtifact, MsfnetError
from msfnet_runtime.artifacts import Flavour
from msfnet_runtime.engine import Timings
from msfnet_runtime.typed import parse_json

PERCENTILES = (50, 90, 95, 99)
"""What trtexec is asked to print; the samples are computed from its exported times."""

TOOLS: dict[Flavour, str] = {"tensorrt": "trtexec", "tensorrt-rtx": "tensorrt_rtx"}
"""The command of each flavour."""

_TIMEOUT_S = 600
"""It measures for 3 seconds, or for as many runs as are asked for, after loading the engine."""

_FLAG = re.compile(r"--[A-Za-z0-9]+")
_LINE = re.compile(r"\[I\] ([A-Z][\w ]*?): (min = .+)$", re.MULTILINE)
_VALUE = re.compile(r"(min|max|mean|median|percentile\((\d+(?:\.\d+)?)%\)) = ([\d.e+-]+|inf) ms")
_THROUGHPUT = re.compile(r"\[I\] Throughput: ([\d.e+-]+) qps")
_VERSION = re.compile(r"\[I\] TensorRT(?:[-_ ]?RTX)? version: (\d+(?:\.\d+)+)")
_PACKED_VERSION = re.compile(r"\[TensorRT[-_A-Z]* v(\d+)(\d\d)(\d\d)\]")


@dataclass(frozen=True)
class ToolSummary:
    """The performance summary at the end of trtexec's log."""

    version: str
    """TensorRT's version, such as ``10.13.3``; empty if the log does not name it."""
    throughput: float
    """Queries a second."""
    stages: dict[str, dict[str, float]]
    """Milliseconds by trtexec's name (``GPU Compute Time``): min, max, mean, median, p90..."""


def find_tool(flavour: Flavour) -> Path:
    """Return the path of the flavour's command.

    Raises:
        MsfnetError: it is not on the path.
    """
    name = TOOLS[flavour]
    found = shutil.which(name)
    if found is None:
        raise MsfnetError(
            f"{name} is not on the PATH; add the bin folder of {flavour}'s archive or package "
            "(its Python wheel contains none)"
        )
    return Path(found)


def read_flags(tool: Path) -> set[str]:
    """Return the options that a tool's help lists.

    Raises:
        MsfnetError: it cannot be run.
    """
    flags = set(_FLAG.findall(_run([str(tool), "--help"])[1]))
    if "--loadEngine" not in flags:
        raise MsfnetError(f"{tool} is not trtexec by its --help; put NVIDIA's own on the PATH")
    return flags


def build_command(
    tool: Path,
    flags: set[str],
    engine: Path,
    times: Path,
    *,
    cuda_graph: bool,
    transfers: bool,
    iterations: int,
    shape: tuple[str, Sequence[int]] | None = None,
) -> list[str]:
    """Return the command line that measures an engine.

    Args:
        tool: trtexec or tensorrt_rtx.
        flags: the options it understands, from its help.
        engine: file to load.
        times: JSON file that it writes.
        cuda_graph: replay the work as a CUDA graph.
        transfers: copy inputs in and outputs out.
        iterations: minimum number of runs; trtexec also continues for 3 seconds.
        shape: name and shape of the input of a dynamic engine.

    Raises:
        MsfnetError: this version has no option for a setting.
    """
    words = [str(tool), f"--loadEngine={engine}", f"--exportTimes={times}"]
    words += ["--warmUp=200", "--duration=3", f"--iterations={iterations}"]
    words += [f"--percentile={','.join(map(str, PERCENTILES))}"]
    words += _graph_words(tool, flags, cuda_graph)
    if "--includeDataTransfers" in flags:  # 11: without transfers by default
        words += ["--includeDataTransfers"] * transfers
    elif not transfers:
        words.append("--noDataTransfers")
    if shape:
        words.append(f"--shapes={shape[0]}:{'x'.join(map(str, shape[1]))}")
    return words


def _graph_words(tool: Path, flags: set[str], cuda_graph: bool) -> list[str]:
    if "--noCudaGraph" in flags:  # 11: a graph by default
        return [] if cuda_graph else ["--noCudaGraph"]
    if not cuda_graph:
        return []
    if "--rtxCudaGraphStrategy" in flags:  # TensorRT for RTX 1.2 and later
        return ["--rtxCudaGraphStrategy=wholeGraph"]
    if "--useCudaGraph" in flags:
        return ["--useCudaGraph"]
    raise MsfnetError(f"{tool} has no option for CUDA graphs; measure without a CUDA graph")


def parse_times(text: str) -> list[Timings]:
    """Read ``--exportTimes``: one object a run, the warm-up left out, milliseconds.

    ``total`` is from the first copy's start to the last one's end on the GPU's clock; as runs
    overlap, it includes waiting for the run before.

    Raises:
        MsfnetError: it is not such a file, or holds no run.
    """
    try:
        runs = parse_json(text, tuple[dict[str, float], ...], "the list")
        timings = [
            Timings(
                h2d=run["h2dMs"],
                compute=run["computeMs"],
                d2h=run["d2hMs"],
                enqueue=run["endEnqMs"] - run["startEnqMs"],
                total=run["endD2hMs"] - run["startH2dMs"],
            )
            for run in runs
        ]
    except (MsfnetError, KeyError) as error:
        raise MsfnetError(
            f"the times that trtexec exported cannot be read ({error}); this version is unknown"
        ) from None
    if not timings:
        raise MsfnetError("trtexec exported no times; run it by hand to see why")
    return timings


def parse_summary(log: str) -> ToolSummary:
    """Read the performance summary of a log.

    Raises:
        MsfnetError: there is none.
    """
    throughput = _THROUGHPUT.search(log)
    if throughput is None:
        raise MsfnetError("trtexec printed no performance summary; this version is unknown")
    stages = {
        name: {
            f"p{percentile}" if percentile else word: float(value)
            for word, percentile, value in _VALUE.findall(values)
        }
        for name, values in _LINE.findall(log)
    }
    return ToolSummary(_version(log), float(throughput[1]), stages)


def _version(log: str) -> str:
    if plain := _VERSION.search(log):
        return plain[1]
    packed = _PACKED_VERSION.search(log)
    return ".".join(str(int(part)) for part in packed.groups()) if packed else ""


@dataclass(frozen=True)
class ToolRun:
    """The measurements of trtexec."""

    tool: str
    """The tool's name and TensorRT's version."""
    stages: dict[str, Samples]
    """One round of its runs, by stage."""
    runs_per_s: float


def measure_with_trtexec(
    artifact: EngineArtifact,
    *,
    cuda_graph: bool,
    transfers: bool,
    iterations: int,
    shape: tuple[str, Sequence[int]] | None = None,
) -> ToolRun:
    """Run the flavour's trtexec on an engine; arguments as :func:`build_command` takes them.

    Raises:
        MsfnetError: the tool is missing, fails, or answers in an unknown format.
    """
    tool = find_tool(artifact.flavour)
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "times.json"
        command = build_command(
            tool,
            read_flags(tool),
            artifact.path,
            times,
            cuda_graph=cuda_graph,
            transfers=transfers,
            iterations=iterations,
            shape=shape,
        )
        status, log = _run(command)
        if status:
            raise MsfnetError(
                f"{tool.name} failed with status {status}: {_last_error(log)}; run it by hand: "
                f"{tool.name} --loadEngine={artifact.path}"
            )
        if not times.exists():
            raise MsfnetError(f"{tool.name} exported no times; run it by hand to see why")
        timings = parse_times(times.read_text(encoding="utf-8"))
    summary = parse_summary(log)
    name = f"{tool.name} {summary.version}".strip()
    runs = [device_times(run, transfers=transfers) for run in timings]
    stages = {stage: Samples(name, np.array([[run[stage] for run in runs]])) for stage in runs[0]}
    return ToolRun(name, stages, summary.throughput)


def _run(command: Sequence[str]) -> tuple[int, str]:
    """Run a command; return its status and all it printed.

    Raises:
        MsfnetError: it cannot be run, or does not end.
    """
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_S,
            check=False,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise MsfnetError(
            f"{command[0]} did not end within {_TIMEOUT_S} s; run it by hand to see why"
        ) from None
    except OSError as error:
        raise MsfnetError(
            f"{command[0]} cannot be run: {error.strerror}; put NVIDIA's own on the PATH"
        ) from None
    return done.returncode, done.stdout


def _last_error(log: str) -> str:
    """Return the last line that trtexec marks as an error, without its time."""
    lines = log.strip().splitlines() or ["it printed nothing"]
    errors = [line.partition("[E] ")[2] for line in lines if "[E] " in line]
    return (errors or lines)[-1].strip()
