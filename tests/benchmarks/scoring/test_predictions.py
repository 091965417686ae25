from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_benchmarks.scoring.accuracy import evaluate
from msfnet_benchmarks.scoring.metrics import DepthMetrics
from msfnet_benchmarks.scoring.predictions import PredictionFolder
from msfnet_benchmarks.scoring.protocols import PROTOCOLS
from msfnet_datasets.ground_truth import read_depth
from msfnet_datasets.sample import Sample
from msfnet_runtime import Frame, MsfnetError
from msfnet_runtime.depth_storage import ENCODINGS, PngStorage

HU = PROTOCOLS["nyu_hu"]


def truth(index: int, size: tuple[int, int] = (480, 640)) -> NDArray[np.float32]:
    """Return depth of 1 to 9 m in whole millimetres."""
    millimetres = np.random.default_rng(index).integers(1000, 9000, (480, 640))
    return (millimetres / 1000).astype(np.float32)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Return two samples of one room and one of another that has the same number."""
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), np.full((480, 640, 3), 90, np.uint8))
    names = ("bath/1", "bath/2", "kitchen/2")
    return [
        Sample(name, image, tmp_path / f"{i}.png", partial(truth, i))
        for i, name in enumerate(names)
    ]


def write(folder: Path, name: str, depth: NDArray[np.floating], counts: int = 1000) -> Path:
    """Write 16-bit PNG."""
    path = folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.rint(depth * counts).astype(np.uint16))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return maps 10 % too far, in millimetres, named as each may be."""
    made = tmp_path / "maps"
    for index, name in enumerate(("1", "bath/2", "kitchen/2")):
        write(made, name, 1.1 * truth(index))
    return made


def test_maps_of_whole_frames_are_scored_as_a_model_is(samples: list[Sample], folder: Path) -> None:
    """Resampled as the protocol resamples ground truth: 10 % too far is REL 0.1."""
    stored = PredictionFolder(folder, samples, HU, "uint16_mm")

    assert evaluate(stored, samples, HU).summary.rel == pytest.approx(0.1, rel=1e-3)


def test_maps_of_what_the_protocol_shows_are_taken_as_they_are(
    samples: list[Sample], tmp_path: Path
) -> None:
    """The half-size centre, as a program that follows the paper writes it."""
    for index, sample in enumerate(samples):
        half = cv2.resize(truth(index), (320, 240), interpolation=cv2.INTER_NEAREST)
        shown = np.asarray(half, np.float32)[6:234, 8:312]
        write(tmp_path / "maps", sample.name, shown, counts=256)

    stored = PredictionFolder(tmp_path / "maps", samples, HU, "uint16_256")

    assert evaluate(stored, samples, HU).summary.rel < 1e-3


def test_a_manifest_declares_the_unit(samples: list[Sample], folder: Path) -> None:
    """``msfnet stream`` writes such manifests; an option that contradicts one is refused."""
    with pytest.raises(MsfnetError, match="unit of the predictions"):
        PredictionFolder(folder, samples, HU)
    (folder / "manifest.jsonl").write_text('{"counts_per_metre": 1000}\n{"file": "1.png"}\n')

    depth = PredictionFolder(folder, samples, HU)(samples[0].frame())

    assert np.median(depth.values) == pytest.approx(5.5, abs=0.1)
    with pytest.raises(MsfnetError, match=r"manifest\.jsonl says 1000"):
        PredictionFolder(folder, samples, HU, "uint16_256")
    for broken in ("{}", "no json", '{"counts_per_metre": "mm"}'):
        (folder / "manifest.jsonl").write_text(broken)
        with pytest.raises(MsfnetError, match=r"manifest\.jsonl"):
            PredictionFolder(folder, samples, HU)


def test_missing_maps_are_counted_and_the_first_is_named(
    samples: list[Sample], folder: Path
) -> None:
    """Fewer samples may be asked for."""
    (folder / "kitchen/2.png").unlink()
    (folder / "1.png").unlink()

    with pytest.raises(MsfnetError, match=r"lacks 2 of 3 depth maps, the first is .*/1\.png"):
        PredictionFolder(folder, samples, HU, "uint16_mm")
    assert PredictionFolder(folder, samples[1:2], HU, "uint16_mm")


def test_a_bare_number_that_two_rooms_share_answers_neither(
    samples: list[Sample], folder: Path
) -> None:
    """Nor where only one of the two is asked for: the map may be the other's."""
    (folder / "kitchen/2.png").rename(folder / "2.png")

    for asked in (samples, samples[2:]):
        with pytest.raises(MsfnetError, match=r"/2\.png could be of 2 frames .*kitchen/2\.png"):
            PredictionFolder(folder, asked, HU, "uint16_mm", among=samples)
    assert PredictionFolder(folder, samples[:2], HU, "uint16_mm", among=samples)


def test_a_map_of_another_size_is_named(samples: list[Sample], folder: Path) -> None:
    """Neither the frame's nor the protocol's."""
    path = write(folder, "bath/2", np.ones((100, 200)))
    stored = PredictionFolder(folder, samples, HU, "uint16_mm")

    with pytest.raises(MsfnetError, match=rf"{path} has another size .*228x304"):
        evaluate(stored, samples, HU)


def test_files_that_are_no_depth_are_named(samples: list[Sample], folder: Path) -> None:
    """Eight bits, and nothing at all."""
    stored = PredictionFolder(folder, samples, HU, "uint16_mm")
    frame = Frame(samples[0].frame().image, name="bath/1")
    cv2.imwrite(str(folder / "1.png"), np.ones((480, 640), np.uint8))
    with pytest.raises(MsfnetError, match=r"1\.png is uint8"):
        stored(frame)
    write(folder, "1", np.zeros((480, 640)))
    with pytest.raises(MsfnetError, match=r"1\.png holds no depth"):
        stored(frame)


def test_a_wrong_unit_is_found_before_the_work(samples: list[Sample], folder: Path) -> None:
    """Millimetres read as 256 to the metre are 3.9 times too deep, in every frame."""
    wrong = PredictionFolder(folder, samples, HU, "uint16_256")
    with pytest.raises(
        MsfnetError, match=r"1\.png is 4\.\d\d times .* like uint16_mm, not uint16_256"
    ):
        wrong.check_unit(samples)

    PredictionFolder(folder, samples, HU, "uint16_mm").check_unit(samples)
    write(folder, "1", truth(0), counts=256)  # one right frame: the unit is not to blame
    PredictionFolder(folder, samples, HU, "uint16_256").check_unit(samples)


def test_a_missing_folder_is_refused(samples: list[Sample], folder: Path) -> None:
    """The error is one line."""
    with pytest.raises(MsfnetError, match="not a folder"):
        PredictionFolder(folder / "none", samples, HU, "uint16_mm")


@pytest.mark.parametrize("name", ["kitti_bts", "kitti_adabins"])
def test_whole_frames_are_cropped_where_the_protocol_crops(tmp_path: Path, name: str) -> None:
    """KITTI's benchmark crop of a whole map: the same score as of the crop itself."""
    rng = np.random.default_rng(4)
    depth = rng.uniform(5, 60, (375, 1242)).astype(np.float32)
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), np.full((375, 1242, 3), 90, np.uint8))
    sample = Sample("drive/7", image, tmp_path / "7.png", lambda size: depth)
    write(tmp_path / "whole", "7", 1.2 * depth, counts=256)
    write(tmp_path / "crop", "drive/7", 1.2 * depth[23:, 13:1229], counts=256)
    protocol = PROTOCOLS[name]

    scores = [
        evaluate(
            PredictionFolder(tmp_path / made, [sample], protocol, "uint16_256"), [sample], protocol
        )
        for made in ("whole", "crop")
    ]

    assert scores[0].summary == scores[1].summary
    assert scores[0].summary.rel == pytest.approx(0.2, abs=2e-3)


@pytest.mark.parametrize(
    ("counts", "declared", "words"),
    [
        (1000, "uint16_256", "like uint16_mm, not uint16_256"),
        (256, "uint16_mm", "like uint16_256, not uint16_mm"),
        (5000, "uint16_mm", "not stored as uint16_mm"),
        (100, "uint16_mm", "not stored as uint16_mm"),
    ],
)
def test_a_wrong_unit_is_found_though_the_model_is_a_poor_one(
    samples: list[Sample], tmp_path: Path, counts: int, declared: PngStorage, words: str
) -> None:
    """The model is off by 0.6 to 1.4; the unit, by much more in every frame."""
    for index, (sample, scale) in enumerate(zip(samples, (0.6, 1.0, 1.4), strict=True)):
        write(tmp_path / "maps", sample.name, scale * truth(index), counts=counts)
    stored = PredictionFolder(tmp_path / "maps", samples, HU, declared)

    with pytest.raises(MsfnetError, match=words) as caught:
        stored.check_unit(samples)
    assert caught.value.parameter == "prediction_unit"


@pytest.mark.parametrize("protocol", ["nyu_bts", "nyu_hu", "nyu_densedepth", "indoor"])
@pytest.mark.parametrize("unit", ["uint16_mm", "uint16_256"])
def test_stored_depth_whose_ratio_is_a_threshold_is_not_within_it(
    tmp_path: Path, unit: PngStorage, protocol: str
) -> None:
    """Whole counts, ratio 5/4 in both directions; the same file as prediction has no error."""
    image, chosen = tmp_path / "image.png", PROTOCOLS[protocol]
    cv2.imwrite(str(image), np.full((480, 640, 3), 90, np.uint8))
    rng, counts = np.random.default_rng(0), int(ENCODINGS[unit].counts_per_metre)
    base = rng.integers(counts // 4, 7 * counts // 5, (480, 640))

    def score(predicted: int, truth: int) -> DepthMetrics:
        file = tmp_path / f"truth{truth}.png"
        cv2.imwrite(str(file), (truth * base).astype(np.uint16))
        cv2.imwrite(str(tmp_path / "maps/1.png"), (predicted * base).astype(np.uint16))
        reader = partial(read_depth, file, ENCODINGS[unit])
        samples = [Sample("1", image, file, reader)]
        stored = PredictionFolder(tmp_path / "maps", samples, chosen, unit)
        return evaluate(stored, samples, chosen).summary

    (tmp_path / "maps").mkdir()
    for predicted, truth in ((5, 4), (4, 5)):
        found = score(predicted, truth)
        assert (found.delta1, found.delta2) == (0, 1)
    assert score(5, 5).rel == score(4, 4).rmse == 0
