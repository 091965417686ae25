from __future__ import annotations

import csv
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_benchmarks.scoring.accuracy import evaluate
from msfnet_benchmarks.scoring.evaluation import EvaluationOptions, evaluate_model
from msfnet_benchmarks.scoring.protocols import PROTOCOLS
from msfnet_datasets.sample import Sample
from msfnet_runtime import CameraIntrinsics, DepthMap, Frame, MsfnetError

SIZE = (375, 1242)


def truth(index: int, size: tuple[int, int] = SIZE) -> NDArray[np.float32]:
    """Return depth of 5 to 60 m with holes, another one for every index."""
    rng = np.random.default_rng(index)
    depth = rng.uniform(5, 60, SIZE).astype(np.float32)
    depth[rng.random(SIZE) < 0.3] = 0
    return depth


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Return three samples whose images say which they are."""
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((*SIZE, 3), 10 * index, np.uint8))
    return [
        Sample(f"s{i}", tmp_path / f"{i}.png", tmp_path / f"{i}.bin", partial(truth, i))
        for i in range(3)
    ]


def oracle(frame: Frame, scale: float = 1.0) -> DepthMap:
    """Answer with the truth of the sample that the image shows, scaled; holes get 7 m."""
    depth = truth(int(frame.image[0, 0, 0]) // 10)
    height, width = frame.image.shape[:2]
    top, left = SIZE[0] - height, (SIZE[1] - width) // 2
    depth = depth[top : top + height, left : left + width]
    values = np.where(depth > 0, depth, 7).astype(np.float32) * np.float32(scale)
    return DepthMap(values, np.ones(values.shape, np.bool_))


@pytest.mark.parametrize("name", ["kitti_raw", "kitti_raw_full", "kitti_adabins", "kitti_bts"])
def test_a_perfect_model_has_no_error_and_a_scaled_one_its_scale(
    samples: list[Sample], name: str
) -> None:
    """Also where the model sees a crop: its answer is put back in the right place."""
    perfect = evaluate(oracle, samples, PROTOCOLS[name])
    scaled = evaluate(partial(oracle, scale=1.1), samples, PROTOCOLS[name])

    assert perfect.summary.rel == pytest.approx(0, abs=1e-6)
    assert perfect.summary.delta1 == 1
    assert scaled.summary.rel == pytest.approx(0.1, rel=1e-4)
    assert (perfect.images, perfect.protocol) == (3, name)


def test_means_are_over_images(samples: list[Sample]) -> None:
    """An image with a third of the pixels counts as much as the others."""

    def third(frame: Frame) -> DepthMap:
        return oracle(frame, scale=1.3 if frame.image[0, 0, 0] == 0 else 1.0)

    report = evaluate(third, samples, PROTOCOLS["kitti_raw"])

    assert report.summary.rel == pytest.approx(0.1, rel=1e-4)
    assert [s.metrics.rel for s in report.scores] == pytest.approx([0.3, 0, 0], abs=1e-5)


def test_pixels_without_an_answer_are_an_error_that_names_the_file(samples: list[Sample]) -> None:
    """A model cannot leave out what it finds hard."""

    def gives_up(frame: Frame) -> DepthMap:
        depth = oracle(frame)
        return DepthMap(depth.values, depth.values < 20)

    with pytest.raises(MsfnetError, match=r"0\.bin: the prediction is not positive"):
        evaluate(gives_up, samples, PROTOCOLS["kitti_raw"])


def test_a_cropped_frame_loses_the_intrinsics_of_the_whole(samples: list[Sample]) -> None:
    """They would place its rays wrongly; a frame seen whole keeps them."""
    camera = CameraIntrinsics(721.5, 721.5, 609.6, 172.9, 1242, 375)
    known = [replace(sample, intrinsics=camera) for sample in samples[:1]]
    seen = []

    def remembers(frame: Frame) -> DepthMap:
        seen.append(frame)
        return oracle(frame)

    for name in ("kitti_raw", "kitti_bts"):
        evaluate(remembers, known, PROTOCOLS[name])

    assert [frame.intrinsics for frame in seen] == [camera, None]
    assert [frame.image.shape for frame in seen] == [(375, 1242, 3), (352, 1216, 3)]
    assert {frame.name for frame in seen} == {"s0"}


def test_progress_is_reported_after_every_image(samples: list[Sample]) -> None:
    """The report names the image, its number and the total."""
    reported: list[tuple[int, int, str]] = []

    evaluate(oracle, samples, PROTOCOLS["kitti_raw"], progress=lambda *call: reported.append(call))

    assert reported == [(1, 3, "s0"), (2, 3, "s1"), (3, 3, "s2")]


def test_nothing_to_score_is_an_error() -> None:
    """An empty data set has no mean."""
    with pytest.raises(MsfnetError, match="no frame to score"):
        evaluate(oracle, [], PROTOCOLS["kitti_raw"])


def test_the_report_names_its_protocol_everywhere(samples: list[Sample], tmp_path: Path) -> None:
    """The text and every row of the table of images name it; aligned metrics are labelled."""
    report = evaluate(
        partial(oracle, scale=1.3), samples, PROTOCOLS["kitti_raw"], skipped=2, alignment="median"
    )
    report.write_csv(tmp_path / "report.csv")

    with (tmp_path / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["protocol"], row["name"]) for row in rows] == [
        ("kitti_raw", name) for name in ("s0", "s1", "s2")
    ]
    assert [float(row["rel"]) for row in rows] == pytest.approx([0.3] * 3, rel=1e-4)
    assert [float(row["median_rel"]) for row in rows] == pytest.approx([0] * 3, abs=1e-5)
    assert report.aligned is not None
    assert (report.summary.rel, report.aligned.rel) == pytest.approx((0.3, 0), abs=1e-5)
    assert "protocol kitti_raw: 3 images, 2 skipped" in report.text()
    assert "aligned: median" in report.text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (EvaluationOptions(data=Path(), predictions=Path()), "data and protocol go together"),
        (EvaluationOptions(protocol="indoor", model=Path()), "data and protocol go together"),
        (EvaluationOptions(static="camera"), "static source needs a model"),
        (EvaluationOptions(model=Path()), "nothing to score"),
    ],
)
def test_options_that_would_be_ignored_are_refused(options: EvaluationOptions, words: str) -> None:
    """Otherwise the report would be empty, and no error would say why."""
    with pytest.raises(MsfnetError, match=words):
        evaluate_model(options)
