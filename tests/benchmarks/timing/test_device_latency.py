"""Latency in trtexec's words, against NumPy and times that are known beforehand."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_benchmarks.timing.device_latency import (
    PERCENTILES,
    Latency,
    side_by_side,
    summarise,
    time_stages,
    time_whole,
    write_json,
)
from msfnet_benchmarks.timing.generated import generated_batch, usual_shape
from msfnet_runtime import MsfnetError, TensorSpec
from msfnet_runtime.engines.fake import FakeEngine
from msfnet_runtime.timings import Timings
from tests.specs import deploy_spec, network_spec


def runs(rng: np.random.Generator, number: int = 57) -> list[Timings]:
    """Return so many runs with different times in each stage."""
    rows = rng.uniform(0.05, 4.0, (number, 4))
    return [
        Timings(h2d, compute, d2h, enqueue, h2d + compute + d2h + 0.3)
        for h2d, compute, d2h, enqueue in rows
    ]


def test_percentiles_are_numpys(rng: np.random.Generator) -> None:
    """Of each stage, and of the sum of three of them, run by run."""
    timings = runs(rng)
    latency = summarise(timings, tool="x", cuda_graph=True, transfers=True)

    columns = {
        "H2D": [t.h2d for t in timings],
        "GPU compute": [t.compute for t in timings],
        "D2H": [t.d2h for t in timings],
        "latency": [t.h2d + t.compute + t.d2h for t in timings],
        "enqueue": [t.enqueue for t in timings],
        "end to end": [t.total for t in timings],
    }
    assert list(latency.stages) == list(columns)
    for name, values in columns.items():
        stage = latency.stages[name]
        expected = [np.mean(values), *np.percentile(values, PERCENTILES)]
        np.testing.assert_allclose(
            [stage.mean, stage.p50, stage.p90, stage.p95, stage.p99], expected
        )
    assert latency.throughput == pytest.approx(1e3 / np.mean(columns["end to end"]))


def test_latency_is_not_the_sum_of_percentiles() -> None:
    """Slow copies and slow kernels fall on different runs here."""
    timings = [Timings(9, 1, 1, 0.1, 11), Timings(1, 9, 1, 0.1, 11), Timings(1, 1, 9, 0.1, 11)]
    latency = summarise(timings, tool="x", cuda_graph=False, transfers=True)

    assert latency.stages["latency"].p99 == pytest.approx(11)


def test_without_transfers_the_copies_are_not_counted(rng: np.random.Generator) -> None:
    """Latency is the GPU's compute time then; end to end is still the host's."""
    timings = runs(rng)
    latency = summarise(timings, tool="x", cuda_graph=True, transfers=False)

    compute = [t.compute for t in timings]
    assert list(latency.stages) == ["GPU compute", "latency", "enqueue", "end to end"]
    assert latency.stages["latency"].p90 == pytest.approx(np.percentile(compute, 90))
    assert latency.throughput == pytest.approx(1e3 / np.mean([t.total for t in timings]))
    assert "without transfers" in latency.text()


def test_no_runs_are_refused() -> None:
    """There is nothing to summarise."""
    with pytest.raises(MsfnetError, match="at least one iteration"):
        summarise([], tool="x", cuda_graph=True, transfers=True)


class KnownEngine:
    """Says that its n-th run took n milliseconds."""

    def __init__(self) -> None:
        self.calls = count(1)
        self.asked: list[tuple[NDArray[Any], bool | None, bool]] = []

    def timed(
        self, batch: NDArray[Any], *, cuda_graph: bool | None = None, transfers: bool = True
    ) -> Timings:
        """Count the run."""
        self.asked.append((batch, cuda_graph, transfers))
        return Timings(0.1, float(next(self.calls)), 0.2, 0.3, 0.4)


def test_runs_of_the_warm_up_are_not_counted() -> None:
    """Three of them, then five that are, all with the same batch."""
    engine, told = KnownEngine(), []
    batch = np.ones((1, 2), np.float32)
    timings = time_stages(
        engine,
        batch,
        cuda_graph=False,
        transfers=False,
        iterations=5,
        warmup=3,
        progress=lambda *words: told.append(words),
    )

    assert [t.compute for t in timings] == [4, 5, 6, 7, 8]
    assert all(asked[0] is batch and asked[1:] == (False, False) for asked in engine.asked)
    assert told[-1] == (5, 5, "runs")


def test_other_models_are_timed_from_batch_to_answer() -> None:
    """By the clock that is given: 2 ms, then 4 ms, and so on."""
    spec = network_spec()
    answers = np.ones((1, 1, 16, 32), np.float32)
    readings = iter(np.cumsum([0.0, 0.002, 5.0, 0.004, 5.0, 0.006]))
    latency = time_whole(
        FakeEngine(spec, lambda batch: answers),
        generated_batch(spec, usual_shape(spec)),
        iterations=3,
        clock=lambda: float(next(readings)),
    )

    assert list(latency.stages) == ["end to end"]
    assert "fake: from batch to answer, 3 runs" in latency.text()
    assert latency.stages["end to end"].p50 == pytest.approx(4.0)
    assert latency.throughput == pytest.approx(250)


def latencies(rng: np.random.Generator) -> tuple[Latency, Latency]:
    """Return two measurements, the other's times half of the first's."""
    timings = runs(rng)
    halved = [
        Timings(t.h2d / 2, t.compute / 2, t.d2h / 2, t.enqueue / 2, t.total / 2) for t in timings
    ]
    ours = summarise(timings, tool="ours", cuda_graph=True, transfers=True)
    theirs = summarise(halved, tool="theirs", cuda_graph=True, transfers=True)
    return ours, theirs


def test_side_by_side_gives_ours_over_theirs(rng: np.random.Generator) -> None:
    """Of the stages that both measured; settings first."""
    ours, theirs = latencies(rng)
    theirs = replace(
        theirs, stages={name: stage for name, stage in theirs.stages.items() if "end" not in name}
    )
    first, second, _, _, *rows = side_by_side(ours, theirs).splitlines()

    assert (first.split(":")[0], second.split(":")[0]) == ("ours", "theirs")
    assert [row.split("  ")[0] for row in rows] == list(theirs.stages)
    for row in rows:
        assert row.split()[-1] == row.split()[-4] == "2.00"
    compute = ours.stages["GPU compute"]
    assert f"{compute.p50:.3f}" in rows[1]
    assert f"{compute.p99 / 2:.3f}" in rows[1]


def test_different_settings_are_called_incomparable(rng: np.random.Generator) -> None:
    """Whichever differs; a stage of no time has no ratio."""
    ours, theirs = latencies(rng)

    assert "do not compare" not in side_by_side(ours, theirs)
    assert "do not compare" in side_by_side(ours, replace(theirs, cuda_graph=False))
    assert "do not compare" in side_by_side(replace(ours, transfers=False), theirs)
    nothing = summarise([Timings(0, 0, 0, 0, 0)], tool="none", cuda_graph=True, transfers=True)
    assert side_by_side(ours, nothing).splitlines()[4].split()[-1] == "-"


def test_everything_lands_in_the_json(rng: np.random.Generator, tmp_path: Path) -> None:
    """Settings and every percentile, readable back."""
    ours, theirs = latencies(rng)
    write_json(tmp_path / "latency.json", [ours, theirs])
    first, second = json.loads((tmp_path / "latency.json").read_text())

    assert first["stages"]["H2D"]["p95"] == ours.stages["H2D"].p95
    assert (second["tool"], second["cuda_graph"], second["iterations"]) == ("theirs", True, 57)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (network_spec(), (1, 3, 32, 64)),
        (deploy_spec(), (1, 48, 80, 3)),
        (
            network_spec(inputs=(TensorSpec("image", "float32", ("batch", 3, "height", "width")),)),
            (1, 3, 32, 64),
        ),
    ],
)
def test_a_generated_batch_has_the_inputs_shape_and_type(spec: Any, shape: tuple[int, ...]) -> None:
    """Open sides are the spec's own size; every image of a batch is the same picture, not flat."""
    assert usual_shape(spec) == shape
    batch = generated_batch(spec, (3, *shape[1:]))

    assert (batch.shape, batch.dtype) == ((3, *shape[1:]), np.dtype(spec.inputs[0].dtype))
    np.testing.assert_array_equal(batch[0], batch[2])
    assert batch[0].std() > 0.1


def test_a_dynamic_engine_is_shown_its_most_frequent_size() -> None:
    """Of its first profile, one image at a time."""
    profile = ((1, 3, 32, 32), (4, 3, 96, 128), (8, 3, 192, 256))

    assert usual_shape(
        network_spec(inputs=(TensorSpec("image", "float32", ("batch", 3, "height", "width")),)),
        [profile],
    ) == (1, 3, 96, 128)
