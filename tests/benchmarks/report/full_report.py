"""A report in which everything is measured, for tests: figures made up, but such as real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.report.report import BenchmarkReport, BenchmarkRow
from msfnet_benchmarks.scoring.accuracy import AccuracyReport, ImageScore
from msfnet_benchmarks.scoring.constant import ConstantAccumulator
from msfnet_benchmarks.scoring.facts import DataFacts, ModelFacts
from msfnet_benchmarks.scoring.metrics import MetricsAccumulator, depth_metrics
from msfnet_benchmarks.scoring.parity import ParityReport
from msfnet_benchmarks.timing.core import Samples, Summary, speedup
from msfnet_benchmarks.timing.costs import ColdStart, Energy, FlopBound, LayerCost, Throughput

STAGES = ("decode", "prepare", "copy", "infer", "finish", "write")

NAMES = ("PyTorch senet154.ckpt", "model_fp32.onnx", "model_int8.onnx", "slow_and_wrong.onnx")
MEDIANS_MS = (90.0, 30.0, 12.0, 60.0)
SCALES = (1.08, 1.08, 1.09, 1.2)
"""REL is a model's scale less one: the ground truth times the scale is what it answers."""


def latency(name: str, median_ms: float, seed: int, unstable: str | None = None) -> Summary:
    """Return three rounds of 20 calls around a median, with a tail."""
    samples = median_ms * np.random.default_rng(seed).lognormal(0, 0.06, (3, 20))
    return replace(Samples(name, samples).summary(), unstable=unstable)


def accuracy(scale: float, images: int = 8) -> AccuracyReport:
    """Return the scores of images that a model sees larger by ``scale``."""
    accumulator, constant, scores = MetricsAccumulator(), ConstantAccumulator(), []
    for index in range(images):
        generator = np.random.default_rng(index)
        truth = generator.uniform(1, 9, (8, 9))
        metrics = depth_metrics(
            prediction=truth * (1 + (scale - 1) * generator.uniform(0.8, 1.2)),
            ground_truth=truth,
            valid=np.ones((8, 9), np.bool_),
        )
        accumulator.add(metrics)
        constant.add(truth.ravel())
        scores.append(ImageScore(f"image{index}", metrics))
    return AccuracyReport(
        protocol="nyu_hu",
        summary=accumulator.summary(),
        scores=tuple(scores),
        constant=constant.best(),
        model=ModelFacts("models/model.onnx", "fp32", 64 * "0"),
        data=DataFacts("data/rooms", "nyu", "test", images, 0),
    )


def layers(total_ms: float, seed: int) -> tuple[LayerCost, ...]:
    """Return forty layers by falling time."""
    shares: NDArray[np.float64] = np.random.default_rng(seed).dirichlet(np.full(40, 0.5))
    kinds: Sequence[str] = ("Conv", "Conv", "Conv", "Resize", "Relu", "Concat")
    blocks = ("encoder", "encoder", "decoder", "fusion")
    return tuple(
        LayerCost(
            f"/encoder/blocks.{i}/conv_pw/Conv_{i}", kinds[i % 6], blocks[i % 4], s * total_ms, s
        )
        for i, s in enumerate(float(share) for share in np.sort(shares)[::-1])
    )


def row(index: int, baseline: Summary | None) -> BenchmarkRow:
    """Return the row of a model of :data:`NAMES`."""
    name, median = NAMES[index], MEDIANS_MS[index]
    whole = latency(name, median, index, "rounds differ by 14 %" if index == 3 else None)
    inner = latency(name, 0.8 * median, 10 + index)
    split = dict(zip(STAGES, np.array([2.0, 1.5, 0.3, 0.8 * median, 2.5, 4.0]), strict=True))
    return BenchmarkRow(
        name=name,
        engine="an <engine> of tests",
        precision="int8" if "int8" in name else "fp32",
        size_bytes=56_000_000 // (index + 1),
        latency=whole,
        speedup=speedup(whole, baseline or whole),
        accuracy=accuracy(SCALES[index]),
        parity=ParityReport(1e-4, 2e-3, 3e-3, 4e-3, 0.99, 8, 576) if baseline else None,
        engine_latency=inner,
        stages={n: Samples(n, np.array([[v, v, 1.3 * v]])).summary() for n, v in split.items()},
        throughput=tuple(
            Throughput(b, 1e3 / median * b**0.2, median * b**0.8) for b in (1, 2, 4, 8)
        ),
        cold_start=ColdStart(0.9 + index, 0.3, 0.5 + 0.5 * index, 300_000_000 * (index + 1), 3),
        energy=Energy(0.5 * median, 210.0),
        device_bytes=500_000_000,
        macs=1_500_000_000,
        parameters=3_400_000,
        layers=layers(0.8 * median, index) if index else (),
    )


def full_report() -> BenchmarkReport:
    """Return four models compared, and a fifth of which the engine alone was timed."""
    first = row(0, None)
    others = [row(index, first.latency) for index in range(1, len(NAMES))]
    peer = BenchmarkRow(
        name="peer <engine only>",
        engine="",
        precision="fp32",
        size_bytes=20_000_000,
        latency=None,
        speedup=None,
        accuracy=accuracy(1.06),
        parity=None,
        engine_latency=latency("peer <engine only>", 26.0, 20),
    )
    return BenchmarkReport(
        title="Depth models & a peer",
        rows=(first, *others, peer),
        baseline=NAMES[0],
        protocol="nyu_hu",
        data="data/nyu_mini",
        frames=8,
        frame_size=(228, 304),
        environment={"processor": "a processor", "cores": "2", "numpy": "2.0"},
        created="2026-11-24T02:00:00+00:00",
        flop_bound=FlopBound(90.0, 2, 2048),
    )
