"""trtexec's options and output, in the formats of 10.x, 11.x and TensorRT for RTX.

The samples were written from the documented formats: the help of each release, the performance
summary, and the keys of ``--exportTimes``. The tool that is run is a script that imitates them.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msfnet_benchmarks.timing.trtexec import (
    PERCENTILES,
    build_command,
    find_tool,
    measure_with_trtexec,
    parse_summary,
    parse_times,
    read_flags,
)
from msfnet_runtime import EngineArtifact, MsfnetError
from tests.manifests import write_engine

COMMON = {"--loadEngine", "--exportTimes", "--warmUp", "--iterations", "--percentile", "--shapes"}
FLAGS = {
    "10": COMMON | {"--useCudaGraph", "--noDataTransfers", "--useSpinWait"},
    "11": COMMON
    | {"--noCudaGraph", "--useCudaGraph", "--includeDataTransfers", "--noDataTransfers"},
    "rtx": COMMON | {"--rtxCudaGraphStrategy", "--noDataTransfers"},
}

HEADS = {
    "10": "&&&& RUNNING TensorRT.trtexec [TensorRT v101303] [b9] # trtexec --loadEngine=m.engine",
    "11": "&&&& RUNNING TensorRT.trtexec [TensorRT v110100] [b106] # trtexec --loadEngine=m.engine"
    "\n[11/23/2026-10:00:00] [I] TensorRT version: 11.1.0",
    "rtx": "[11/23/2026-10:00:00] [I] TensorRT version: 1.7.1",
}

SUMMARY = """
[11/23/2026-10:00:07] [I] === Performance summary ===
[11/23/2026-10:00:07] [I] Throughput: 412.5 qps
[11/23/2026-10:00:07] [I] Latency: min = 2.1 ms, max = 4.9 ms, mean = 2.5 ms, median = 2.4 ms, \
percentile(50%) = 2.4 ms, percentile(90%) = 2.8 ms, percentile(95%) = 3.1 ms, percentile(99%) = 4 ms
[11/23/2026-10:00:07] [I] Enqueue Time: min = 0.01 ms, max = 0.2 ms, mean = 0.02 ms, \
median = 0.015 ms, percentile(50%) = 0.015 ms, percentile(90%) = 1e-02 ms
[11/23/2026-10:00:07] [I] H2D Latency: min = 0 ms, max = 0 ms, mean = 0 ms, median = 0 ms
[11/23/2026-10:00:07] [I] GPU Compute Time: min = 2 ms, max = 4.5 ms, mean = 2.25 ms, median = 2.2 ms
[11/23/2026-10:00:07] [I] D2H Latency: min = 0 ms, max = 0 ms, mean = 0 ms, median = 0 ms
[11/23/2026-10:00:07] [I] Total Host Walltime: 3.00182 s
[11/23/2026-10:00:07] [I] Total GPU Compute Time: 2.96536 s
"""  # noqa: E501 - as it is printed


def exported(rng: np.random.Generator, number: int) -> list[dict[str, float]]:
    """Return runs as ``--exportTimes`` writes them."""
    runs = []
    for start, (h2d, compute, d2h, enqueue) in enumerate(rng.uniform(0.1, 2.0, (number, 4))):
        ends = np.cumsum([10.0 * start, h2d, compute, d2h])
        runs.append(
            {
                "startEnqMs": 9.0 * start,
                "endEnqMs": 9.0 * start + enqueue,
                "startH2dMs": ends[0],
                "endH2dMs": ends[1],
                "startComputeMs": ends[1],
                "endComputeMs": ends[2],
                "startD2hMs": ends[2],
                "endD2hMs": ends[3],
                "h2dMs": h2d,
                "computeMs": compute,
                "d2hMs": d2h,
                "latencyMs": h2d + compute + d2h,
            }
        )
    return runs


@pytest.mark.parametrize(
    ("version", "cuda_graph", "transfers", "words"),
    [
        ("10", True, True, ["--useCudaGraph"]),
        ("10", False, True, []),
        ("10", True, False, ["--useCudaGraph", "--noDataTransfers"]),
        ("10", False, False, ["--noDataTransfers"]),
        ("11", True, True, ["--includeDataTransfers"]),
        ("11", False, True, ["--noCudaGraph", "--includeDataTransfers"]),
        ("11", True, False, []),
        ("11", False, False, ["--noCudaGraph"]),
        ("rtx", True, True, ["--rtxCudaGraphStrategy=wholeGraph"]),
        ("rtx", False, False, ["--noDataTransfers"]),
    ],
)
def test_each_release_gets_its_own_options(
    version: str, cuda_graph: bool, transfers: bool, words: list[str]
) -> None:
    """A release's defaults are not passed, and nothing deprecated is used."""
    command = build_command(
        Path("/opt/trtexec"),
        FLAGS[version],
        Path("m.engine"),
        Path("t.json"),
        cuda_graph=cuda_graph,
        transfers=transfers,
        iterations=50,
    )

    assert command == [
        "/opt/trtexec",
        "--loadEngine=m.engine",
        "--exportTimes=t.json",
        "--warmUp=200",
        "--duration=3",
        "--iterations=50",
        "--percentile=50,90,95,99",
        *words,
    ]


def test_a_dynamic_engine_gets_a_shape() -> None:
    """The shape names the engine's input."""
    command = build_command(
        Path("trtexec"),
        FLAGS["11"],
        Path("m.engine"),
        Path("t.json"),
        cuda_graph=True,
        transfers=False,
        iterations=1,
        shape=("image", (1, 3, 96, 128)),
    )

    assert command[-1] == "--shapes=image:1x3x96x128"


def test_a_tool_without_cuda_graphs_says_so() -> None:
    """Rather than measuring something else."""
    with pytest.raises(MsfnetError, match="no option for CUDA graphs"):
        build_command(
            Path("trtexec"),
            COMMON,
            Path("m.engine"),
            Path("t.json"),
            cuda_graph=True,
            transfers=True,
            iterations=1,
        )


@pytest.mark.parametrize(
    ("release", "version"), [("10", "10.13.3"), ("11", "11.1.0"), ("rtx", "1.7.1")]
)
def test_the_summary_is_read(release: str, version: str) -> None:
    """Version, throughput, and every figure of every stage."""
    summary = parse_summary(HEADS[release] + SUMMARY)

    assert (summary.version, summary.throughput) == (version, 412.5)
    assert summary.stages["Latency"] == {
        "min": 2.1, "max": 4.9, "mean": 2.5, "median": 2.4,
        "p50": 2.4, "p90": 2.8, "p95": 3.1, "p99": 4.0,
    }  # fmt: skip
    assert summary.stages["Enqueue Time"]["p90"] == 0.01
    assert summary.stages["GPU Compute Time"]["max"] == 4.5
    assert set(summary.stages) == {
        *("Latency", "Enqueue Time", "H2D Latency", "GPU Compute Time", "D2H Latency"),
    }


def test_exported_times_are_read(rng: np.random.Generator) -> None:
    """Stage by stage; the enqueue time is the difference of the host's two readings."""
    runs = exported(rng, 7)
    timings = parse_times(json.dumps(runs))

    assert [t.latency for t in timings] == pytest.approx([run["latencyMs"] for run in runs])
    assert [t.total for t in timings] == pytest.approx([run["latencyMs"] for run in runs])
    assert [t.enqueue for t in timings] == pytest.approx(
        [run["endEnqMs"] - run["startEnqMs"] for run in runs]
    )


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", '[{"h2dMs": 1}]', '{"a": 1}'])
def test_other_files_are_refused_as_times(text: str) -> None:
    """The error is one line."""
    with pytest.raises(MsfnetError, match="trtexec") as error:
        parse_times(text)

    assert "\n" not in str(error.value)


def test_a_log_without_summary_is_refused() -> None:
    """It was cut short, or is another tool's."""
    with pytest.raises(MsfnetError, match="no performance summary"):
        parse_summary("[I] TensorRT version: 10.13.3\n[I] Engine loaded\n")


SCRIPT = """#!{python}
import json, sys
flags = {flags!r}
if "--help" in sys.argv:
    print("=== Inference Options ===", file=sys.stderr)
    print("\\n".join("  " + flag + "=N   what it does" for flag in sorted(flags)))
    sys.exit(0)
words = dict(word.partition("=")[::2] for word in sys.argv[1:])
if not set(words) <= flags | {{"--duration"}}:
    print("[E] Unknown option: " + str(sorted(set(words) - flags)))
    sys.exit(1)
if open(words["--loadEngine"], "rb").read() != b"plan" * 100:
    print("[11/23/2026-10:00:01] [E] Engine deserialization failed")
    sys.exit(1)
open("called.json", "w").write(json.dumps(sys.argv[1:]))
open(words["--exportTimes"], "w").write({times!r})
print({log!r})
"""


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, release: str, runs: list[dict[str, float]]
) -> None:
    """Put a script that imitates a release on the path, and work in the folder."""
    path = folder / "bin" / ("tensorrt_rtx" if release == "rtx" else "trtexec")
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        SCRIPT.format(
            python=sys.executable,
            flags=FLAGS[release],
            times=json.dumps(runs),
            log=HEADS[release] + SUMMARY,
        )
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(folder)


def engine(folder: Path, release: str) -> EngineArtifact:
    """Write an engine of the release's flavour."""
    rtx = release == "rtx"
    return replace(write_engine(folder), flavour="tensorrt-rtx" if rtx else "tensorrt")


@pytest.mark.parametrize("release", FLAGS)
@pytest.mark.parametrize("transfers", [True, False])
def test_the_tool_on_the_path_is_run(
    release: str,
    transfers: bool,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It refuses options of other releases; its times become samples, with our percentiles."""
    runs = exported(rng, 31)
    install(tmp_path, monkeypatch, release, runs)
    measured = measure_with_trtexec(
        engine(tmp_path, release), cuda_graph=True, transfers=transfers, iterations=31
    )

    compute = [run["computeMs"] for run in runs]
    whole = [run["latencyMs"] for run in runs] if transfers else compute
    stage = measured.stages["latency"].summary()
    assert [stage.p50_ms, stage.p90_ms, stage.p95_ms, stage.p99_ms] == pytest.approx(
        list(np.percentile(whole, PERCENTILES))
    )
    assert ("H2D" in measured.stages) is transfers
    assert measured.runs_per_s == 412.5
    assert stage.calls == 31
    assert measured.tool == {
        "10": "trtexec 10.13.3", "11": "trtexec 11.1.0", "rtx": "tensorrt_rtx 1.7.1"
    }[release]  # fmt: skip
    assert "--iterations=31" in json.loads((tmp_path / "called.json").read_text())


def test_a_tool_that_fails_is_quoted(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last error, without the time it happened."""
    install(tmp_path, monkeypatch, "10", exported(rng, 3))
    artifact = engine(tmp_path, "10")
    artifact.path.write_bytes(b"another engine")

    with pytest.raises(MsfnetError, match="status 1: Engine deserialization failed; run") as error:
        measure_with_trtexec(artifact, cuda_graph=False, transfers=True, iterations=3)

    assert "\n" not in str(error.value)


def test_a_tool_that_does_not_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and stopped."""
    tool = tmp_path / "trtexec"
    tool.write_text("#!/bin/sh\nexec sleep 30\n")
    tool.chmod(0o755)
    monkeypatch.setattr("msfnet_benchmarks.timing.trtexec._TIMEOUT_S", 0.2)

    with pytest.raises(MsfnetError, match=r"trtexec did not end within 0\.2 s"):
        read_flags(tool)


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the tool of the flavour, and the package that contains it."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MsfnetError, match="trtexec is not on the PATH"):
        find_tool("tensorrt")
    with pytest.raises(MsfnetError, match="tensorrt_rtx is not on the PATH"):
        find_tool("tensorrt-rtx")


def test_another_program_of_that_name_is_refused(tmp_path: Path) -> None:
    """It has no --loadEngine, or cannot be run at all."""
    other = tmp_path / "trtexec"
    other.write_text("#!/bin/sh\necho usage: something --else\n")
    other.chmod(0o755)
    with pytest.raises(MsfnetError, match="is not trtexec"):
        read_flags(other)
    other.write_text("#!/does/not/exist\n")
    with pytest.raises(MsfnetError, match="cannot be run"):
        read_flags(other)
