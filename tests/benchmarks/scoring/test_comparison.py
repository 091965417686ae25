from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_benchmarks.scoring.accuracy import evaluate
from msfnet_benchmarks.scoring.comparison import compare_models
from msfnet_benchmarks.scoring.parity import ParityAccumulator
from msfnet_benchmarks.scoring.protocols import PROTOCOLS
from msfnet_benchmarks.scoring.sheet import pick_rows, write_sheet
from msfnet_datasets.sample import Sample
from msfnet_runtime import DepthMap, Frame, MsfnetError

RAW = PROTOCOLS["kitti_raw_full"]
SIZE = (60, 90)


def truth(index: int, size: tuple[int, int] = SIZE) -> NDArray[np.float32]:
    """Return sparse depth of 5 to 60 m."""
    rng = np.random.default_rng(index)
    depth = rng.uniform(5, 60, SIZE).astype(np.float32)
    return np.where(rng.random(SIZE) < 0.1, depth, 0).astype(np.float32)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Return five samples whose images say which they are."""
    for index in range(5):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((*SIZE, 3), index, np.uint8))
    return [
        Sample(f"d/{i}", tmp_path / f"{i}.png", tmp_path / f"{i}.bin", partial(truth, i))
        for i in range(5)
    ]


def model(frame: Frame, scale: float = 1.0) -> DepthMap:
    """Answer 10 m and more, a little more for every image, scaled."""
    index = int(frame.image[0, 0, 0])
    rows = np.linspace(10, 30 + index, SIZE[0], dtype=np.float32)[:, None]
    values = np.repeat(rows, SIZE[1], axis=1) * np.float32(scale)
    return DepthMap(values, np.ones(SIZE, np.bool_))


def test_a_comparison_is_two_evaluations_and_their_difference(samples: list[Sample]) -> None:
    """Scored as alone, on the same frames; parity sees every pixel, by range of the reference."""
    candidate = partial(model, scale=1.02)

    report = compare_models(candidate, model, samples, RAW, skipped=3)

    alone = [evaluate(estimator, samples, RAW, skipped=3) for estimator in (candidate, model)]
    assert [report.candidate, report.reference] == alone
    assert report.change()["rel"] == pytest.approx(alone[0].summary.rel - alone[1].summary.rel)
    assert report.parity.p50 == pytest.approx(0.02, rel=3e-3)
    assert report.parity.agreement == 0
    assert report.parity.pixels == 5 * 60 * 90
    assert [r.low_m for r in report.parity.ranges] == [10, 20]
    assert sum(r.pixels for r in report.parity.ranges) == report.parity.pixels
    for words in ("against", "change", "p99.9", "10-20 m"):
        assert words in report.text()


def test_ranges_are_told_apart_by_the_reference() -> None:
    """Near pixels agree, far ones are 10 % off, those beyond the last edge 50 %."""
    reference = np.array([[2.0, 5.0, 10.0, 15.0, 50.0]], np.float32)
    candidate = reference * np.array([[1, 1, 1.1, 1.1, 1.5]], np.float32)
    everywhere = np.ones(reference.shape, np.bool_)

    accumulator = ParityAccumulator((0, 10, 40))
    accumulator.add(
        candidate=DepthMap(candidate, everywhere), reference=DepthMap(reference, everywhere)
    )
    near, far, beyond = accumulator.report().ranges

    assert [(r.low_m, r.high_m, r.pixels) for r in (near, far, beyond)] == [
        *[(0, 10, 2), (10, 40, 2), (40, None, 1)]
    ]
    assert (near.p99, near.agreement) == (0, 1)
    assert far.p50 == pytest.approx(0.1, rel=3e-3)
    assert far.agreement == 0
    assert beyond.p50 == pytest.approx(0.5, rel=3e-3)


def test_nothing_to_compare_is_an_error() -> None:
    """An empty data set has no mean."""
    with pytest.raises(MsfnetError, match="no frame to score"):
        compare_models(model, model, [], RAW)


def test_the_sheet_shows_best_median_and_worst(samples: list[Sample], tmp_path: Path) -> None:
    """Frames are ordered by REL and show what was scored; the picture has three rows."""
    report = evaluate(model, samples, RAW)

    rows = pick_rows(report, model, samples, RAW)
    write_sheet(tmp_path / "sheet.png", rows, RAW)

    by_rel = sorted(report.scores, key=lambda score: score.metrics.rel)
    for row, score, word in zip(
        rows, (by_rel[0], by_rel[2], by_rel[4]), ("best", "median", "worst"), strict=True
    ):
        assert row.title.startswith(f"{word} of 5: {score.name}, REL {score.metrics.rel:.3f}")
        assert row.valid.sum() == score.metrics.pixels
        index = int(score.name[-1])
        np.testing.assert_array_equal(row.ground_truth, truth(index))
        assert (row.image == index).all()
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    assert picture is not None
    assert picture.shape[1] == 4 * 420
    assert picture.std() > 20


def test_sparse_points_are_widened_for_the_eye_alone(tmp_path: Path) -> None:
    """Ten points are seen as ten spots of red, near, in the picture; the map keeps ten."""
    from msfnet_benchmarks.scoring.sheet import SheetRow

    depth = np.zeros((100, 300), np.float32)
    depth[50, 30:300:30] = np.linspace(5, 50, 9)
    row = SheetRow(
        "t", np.full((100, 300, 3), 200, np.uint8), depth, np.full_like(depth, 9), depth > 0
    )
    colourful = []
    for name in ("kitti_raw_full", "nyu_hu"):  # sparse, and dense: drawn as it is
        write_sheet(tmp_path / f"{name}.png", [row], PROTOCOLS[name])
        picture = np.asarray(cv2.imread(str(tmp_path / f"{name}.png")))[:, 430:720].astype(int)
        colourful.append(int((np.ptp(picture, axis=2) > 60).sum()))

    assert (depth > 0).sum() == 9
    assert colourful[0] > 5 * colourful[1]
