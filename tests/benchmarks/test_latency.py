"""Latency on the device as trtexec defines it, against NumPy and times known beforehand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_benchmarks.candidates import Candidate
from msfnet_benchmarks.latency import LatencyPlan, measure_latency
from msfnet_benchmarks.report.report import BenchmarkReport
from msfnet_benchmarks.report.tables import latency_text
from msfnet_benchmarks.timing.core import Samples
from msfnet_benchmarks.timing.costs import DeviceRun
from msfnet_benchmarks.timing.generated import generated_batch, usual_shape
from msfnet_runtime import TensorSpec
from msfnet_runtime.engine import Timings
from msfnet_runtime.engines.fake import FakeEngine
from msfnet_runtime.typed import build, to_json
from tests.specs import deploy_spec, network_spec


def runs(rng: np.random.Generator, number: int = 57) -> list[Timings]:
    """Return so many runs with different times in each stage."""
    rows = rng.uniform(0.05, 4.0, (number, 4))
    return [
        Timings(h2d, compute, d2h, enqueue, h2d + compute + d2h + 0.3)
        for h2d, compute, d2h, enqueue in rows
    ]


class KnownEngine(FakeEngine):
    """Reports known times, after thirty runs of a warm-up that never settles."""

    def __init__(self, timings: Sequence[Timings]) -> None:
        super().__init__(network_spec(), lambda batch: np.ones((1, 1, 16, 32), np.float32))
        warm_up = [Timings(0, 0, 0, 0, total) for total in np.geomspace(1, 1e3, 30)]
        self.runs = iter([*warm_up, *timings])
        self.asked: list[tuple[NDArray[Any], bool | None, bool]] = []

    def timed(
        self, batch: NDArray[Any], *, cuda_graph: bool | None = None, transfers: bool = True
    ) -> Timings:
        """Return the times of the next run."""
        self.asked.append((batch, cuda_graph, transfers))
        return next(self.runs)


def measured(timings: Sequence[Timings], **settings: bool) -> BenchmarkReport:
    """Return the report of an engine whose runs take these times."""
    engine = KnownEngine(timings)
    candidate = Candidate("x", "fp32", lambda: engine, False, 1, open_device=lambda: engine)
    return measure_latency(candidate, LatencyPlan(**settings, iterations=len(timings)))


def test_percentiles_are_numpys(rng: np.random.Generator) -> None:
    """Each stage is compared, and the sum of three stages run by run."""
    timings = runs(rng)
    (row,) = measured(timings).rows

    columns = {
        "H2D": [t.h2d for t in timings],
        "GPU compute": [t.compute for t in timings],
        "D2H": [t.d2h for t in timings],
        "latency": [t.h2d + t.compute + t.d2h for t in timings],
        "enqueue": [t.enqueue for t in timings],
        "end to end": [t.total for t in timings],
    }
    assert list(row.stages) == list(columns)
    for name, values in columns.items():
        stage = row.stages[name]
        expected = [np.mean(values), *np.percentile(values, (50, 90, 95, 99))]
        np.testing.assert_allclose(
            [stage.mean_ms, stage.p50_ms, stage.p90_ms, stage.p95_ms, stage.p99_ms], expected
        )
    assert row.throughput[0].images_per_s == pytest.approx(1e3 / np.mean(columns["end to end"]))


def test_latency_is_not_the_sum_of_percentiles() -> None:
    """Slow copies and slow kernels fall on different runs here."""
    timings = [Timings(9, 1, 1, 0.1, 11), Timings(1, 9, 1, 0.1, 11), Timings(1, 1, 9, 0.1, 11)]

    assert measured(timings).rows[0].stages["latency"].p99_ms == pytest.approx(11)


def test_without_transfers_the_copies_are_not_counted(rng: np.random.Generator) -> None:
    """Latency is the GPU's compute time then; end to end is still the host's."""
    timings = runs(rng)
    report = measured(timings, transfers=False)

    (row,) = report.rows
    compute = [t.compute for t in timings]
    assert list(row.stages) == ["GPU compute", "latency", "enqueue", "end to end"]
    assert row.stages["latency"].p90_ms == pytest.approx(np.percentile(compute, 90))
    rate = row.throughput[0].images_per_s
    assert rate == pytest.approx(1e3 / np.mean([t.total for t in timings]))
    assert "without transfers" in latency_text(report)


def test_runs_of_the_warm_up_are_not_counted() -> None:
    """Thirty of them, then five that are, all with the same batch and settings."""
    engine, reported = KnownEngine([Timings(0.1, n, 0.2, 0.3, 0.4) for n in range(5)]), []
    candidate = Candidate("x", "fp32", lambda: engine, False, 1, open_device=lambda: engine)
    report = measure_latency(
        candidate,
        LatencyPlan(cuda_graph=False, transfers=False, iterations=5),
        progress=lambda *words: reported.append(words),
    )

    (compute,) = zip(*report.rows[0].stages["GPU compute"].samples_ms, strict=True)
    assert compute == (0, 1, 2, 3, 4)
    batch = engine.asked[0][0]
    assert len(engine.asked) == 35
    assert all(asked[0] is batch and asked[1:] == (False, False) for asked in engine.asked)
    assert reported[-1] == (5, 5, "x")


def test_other_models_are_timed_from_batch_to_answer() -> None:
    """They report no stage on the device."""
    engine = FakeEngine(network_spec(), lambda batch: np.ones((1, 1, 16, 32), np.float32))
    candidate = Candidate("x", "fp32", lambda: engine, False, 1)
    report = measure_latency(candidate, LatencyPlan(iterations=3))

    (row,) = report.rows
    assert list(row.stages) == ["end to end"]
    assert row.device_run is None
    assert row.engine_latency == row.stages["end to end"]
    assert "fake: from batch to answer, 3 runs" in latency_text(report)


def side_by_side(rng: np.random.Generator, **settings: bool) -> BenchmarkReport:
    """Return a report with a second tool, whose times are half of the first's."""
    report = measured(runs(rng))
    (ours,) = report.rows
    halved = {
        name: Samples(name, np.asarray(stage.samples_ms) / 2).summary()
        for name, stage in ours.stages.items()
        if "end" not in name
    }
    run = replace(DeviceRun(cuda_graph=True, transfers=True, overlapped=True), **settings)
    theirs = replace(ours, name="theirs", engine="theirs", stages=halved, device_run=run)
    return replace(report, rows=(replace(ours, engine="ours"), theirs))


def test_side_by_side_gives_ours_over_theirs(rng: np.random.Generator) -> None:
    """The table has the stages that both measured, after the settings."""
    report = side_by_side(rng)
    ours, theirs = report.rows
    first, second, _, _, *rows = latency_text(report).split("\n\n")[-1].splitlines()

    assert (first.split(":")[0], second.split(":")[0]) == ("ours", "theirs")
    assert [row.split("  ")[0] for row in rows] == list(theirs.stages)
    for row in rows:
        assert row.split()[-1] == row.split()[-4] == "2.00"
    compute = ours.stages["GPU compute"]
    assert f"{compute.p50_ms:.3f}" in rows[1]
    assert f"{compute.p99_ms / 2:.3f}" in rows[1]


def test_different_settings_are_called_incomparable(rng: np.random.Generator) -> None:
    """Whichever differs; a stage of no time has no ratio."""
    report = side_by_side(rng)

    assert "do not compare" not in latency_text(report)
    assert "do not compare" in latency_text(side_by_side(rng, cuda_graph=False))
    assert "do not compare" in latency_text(side_by_side(rng, transfers=False))
    ours, theirs = report.rows
    nothing = replace(theirs, stages={"H2D": Samples("x", np.zeros((1, 3))).summary()})
    assert latency_text(replace(report, rows=(ours, nothing))).split()[-1] == "-"


def test_everything_is_in_the_json(rng: np.random.Generator) -> None:
    """Settings, every percentile and every run, read back as they were."""
    report = side_by_side(rng)
    stored = json.loads(to_json(report))

    assert stored["rows"][0]["stages"]["H2D"]["p95_ms"] == report.rows[0].stages["H2D"].p95_ms
    assert stored["rows"][1]["device_run"]["overlapped"] is True
    assert build(BenchmarkReport, stored, "latency.json") == report


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
    """It is the size of its first profile, one image at a time."""
    profile = ((1, 3, 32, 32), (4, 3, 96, 128), (8, 3, 192, 256))

    assert usual_shape(
        network_spec(inputs=(TensorSpec("image", "float32", ("batch", 3, "height", "width")),)),
        [profile],
    ) == (1, 3, 96, 128)
