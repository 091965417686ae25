"""What is said of the data that was scored, and the warnings that follow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msfnet_benchmarks.scoring.accuracy import AccuracyAccumulator
from msfnet_benchmarks.scoring.facts import DataFacts, ModelFacts, data_facts, scoring_warnings
from msfnet_benchmarks.scoring.protocols import PROTOCOLS
from msfnet_datasets import Sample, open_dataset
from msfnet_datasets.synthesize import synthesize_nyu
from msfnet_runtime import DepthMap
from tests.specs import network_spec

NYU = PROTOCOLS["nyu_bts"]
DATA = DataFacts("rooms", "nyu", "test", 9, 0)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a generated data set with the lists train and test."""
    made = tmp_path_factory.mktemp("facts") / "rooms"
    synthesize_nyu(made, scenes=3, frames=2)
    return made


@pytest.mark.parametrize(
    ("split", "name", "all_trained"), [(None, "test", False), ("train", "train", True)]
)
def test_the_list_is_named_and_known_as_a_training_list(
    rooms: Path, split: str | None, name: str, all_trained: bool
) -> None:
    """The data set's own choice has a name, too."""
    found = open_dataset(rooms, split=split)

    facts = data_facts(rooms, split, NYU, len(found), found)

    assert (facts.layout, facts.split, facts.listed) == ("nyu", name, len(found))
    assert facts.training == (len(found) if all_trained else 0)


def test_a_list_file_that_holds_frames_of_the_training_list_is_known(
    rooms: Path, tmp_path: Path
) -> None:
    """Two frames of the test list and one of the training list, whatever the file's name."""
    lines = [
        (rooms / f"data/nyu2_{name}.csv").read_text().splitlines() for name in ("test", "train")
    ]
    file = tmp_path / "mixed.csv"
    file.write_text("\n".join([*lines[0][:2], lines[1][0]]))
    found = open_dataset(rooms, split=str(file))

    facts = data_facts(rooms, str(file), NYU, len(found), found)

    assert (facts.split, facts.listed, facts.training) == (str(file), 3, 1)
    (warning,) = scoring_warnings(facts, 3, NYU, None)
    assert warning.startswith("1 of 3 scored frames is from a training list")


@pytest.mark.parametrize(
    ("highest_m", "protocol", "words"),
    [
        (10.0, "kitti_raw", "ends at 10 m, and kitti_raw scores depth up to 80 m"),
        (10.0, "outdoor", "ends at 10 m, and outdoor"),
        (80.0, "nyu_hu", "goes up to 80 m, and nyu_hu is for depth up to 10 m"),
        (80.0, "indoor", "goes up to 80 m, and indoor"),
        (80.0, "kitti_raw", None),
        (100.0, "outdoor", None),
        (10.0, "nyu_bts", None),
    ],
)
def test_a_model_of_another_range_is_said(
    highest_m: float, protocol: str, words: str | None
) -> None:
    """In both directions; ranges that differ a little are usual."""
    spec = network_spec(depth_range_m=(0.5, highest_m))

    found = list(scoring_warnings(DATA, 9, PROTOCOLS[protocol], spec))

    assert [words in line for line in found if words] == ([True] if words else [])
    assert bool(found) == bool(words)


def test_ground_truth_beyond_the_protocol_is_said() -> None:
    """Half of a street lies beyond the 10 m that rooms are scored to; a room does not."""
    spec = network_spec(depth_range_m=(0.1, 10.0))

    def warnings(far_m: float) -> tuple[str, ...]:
        accumulator = AccuracyAccumulator(PROTOCOLS["indoor"])
        truth = np.full((8, 10), 4, np.float32)
        truth[:4] = far_m
        sample = Sample("s", Path("s.png"), Path("s.npy"), lambda size: truth)
        accumulator.add(sample, DepthMap(1.01 * truth, truth > 0), truth)
        model = ModelFacts("m.onnx", "fp32", None)
        report = accumulator.report().described(model, DATA, PROTOCOLS["indoor"], spec)
        assert report.beyond == (0.5 if far_m > 10 else 0)
        return report.warnings

    assert any("50% of the measured depth lies beyond the 10 m" in line for line in warnings(30))
    assert not any("beyond" in line for line in warnings(9))
