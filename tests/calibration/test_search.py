"""The search on engines whose speed and harm are known: a clock that only they move."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from msfnet_benchmarks.scoring.protocols import PROTOCOLS
from msfnet_calibration import trials
from msfnet_calibration.blocks import find_homes
from msfnet_calibration.budget import Budget
from msfnet_calibration.onnx_files import load_model
from msfnet_calibration.quantize import NARROW
from msfnet_calibration.search import PrecisionSearch
from msfnet_calibration.variants import Variants
from msfnet_datasets import open_dataset
from msfnet_datasets.sample import SampleList
from msfnet_datasets.synthesize import synthesize_nyu
from msfnet_export.parity import random_image
from msfnet_runtime import Frame, MsfnetError
from msfnet_runtime.engines.fake import FakeEngine
from msfnet_runtime.onnx_metadata import read_onnx_spec
from tests.networks import FRAME_SIZE, Exports

FP32_MS = 100.0


class Machine:
    """Opens models as engines of a known latency and a known depth error.

    Args:
        saves: milliseconds that each unit saves in INT8; others save 0.
        harms: what each unit in INT8 adds to depth, as a factor's distance from 1.
        half: milliseconds that FP16 saves.
    """

    def __init__(
        self, saves: Mapping[str, float], harms: Mapping[str, float], half: float = -20
    ) -> None:
        self.now = 0.0
        self.opened = 0
        self._saves, self._harms, self._half = saves, harms, half

    def clock(self) -> float:
        """Return the seconds that calls took."""
        return self.now

    def open(self, path: Path) -> FakeEngine:
        """Read from the file itself which units are quantised."""
        self.opened += 1
        model, spec = load_model(path), read_onnx_spec(path)
        homes = find_homes(model)
        units = {
            homes[node] + NARROW * (node.attributes.get_int("group", 1) > 1)
            for node in model.graph
            if node.op_type == "Conv"
            and "DequantizeLinear" in {before.op_type for before in node.predecessors()}
        }
        half = any(value.dtype == 10 for value in model.graph.initializers.values())
        ms = FP32_MS - sum(self._saves.get(unit, 0) for unit in units) - half * self._half
        factor = 1.05 + sum(self._harms.get(unit, 0) for unit in units)

        def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
            self.now += ms / 1e3
            depth = (batch[0, :, :, 0] / 40 + 1) * factor
            return np.asarray(depth[None, None], np.float32)

        return FakeEngine(spec, run)


@pytest.fixture
def variants(exports: Exports, tmp_path: Path) -> Variants:
    """Return the forms of the light network."""
    frames = [Frame(random_image(FRAME_SIZE, seed), seed) for seed in range(8)]
    return Variants(
        exports.deploy.artifact.path,
        frames,
        method="minmax",
        runs_on="cpu",
        folder=tmp_path / "work",
    )


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> SampleList:
    """Return six ramps whose depth follows from their red channel, as in the machine."""
    folder = tmp_path_factory.mktemp("rooms")
    synthesize_nyu(folder, scenes=2, frames=6)
    found = open_dataset(folder, split="test", ground_truth="nyu_depth")
    ramp = np.linspace(20, 220, 640, dtype=np.float32)
    for index, sample in enumerate(found):
        red = np.tile(np.rint(ramp * (1 - index / 20)), (480, 1))
        cv2.imwrite(str(sample.image_path), np.dstack([0 * red, 0 * red, red]))
        cv2.imwrite(str(sample.depth_path), np.rint(1e3 * (red / 40 + 1)).astype(np.uint16))
    return found


@pytest.fixture
def search(
    variants: Variants, samples: SampleList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Machine], PrecisionSearch]:
    """Return a function that opens a search on a machine."""

    def start(machine: Machine) -> PrecisionSearch:
        monkeypatch.setattr(trials, "_clock", machine.clock)
        return PrecisionSearch(
            variants, machine.open, samples, PROTOCOLS["nyu_hu"], folder=tmp_path / "work"
        )

    return start


def test_every_unit_is_measured_alone(
    search: Callable[[Machine], PrecisionSearch], variants: Variants
) -> None:
    """REL, delta1 and latency of each are the machine's; the blanket has all wide units."""
    harmful, slow = "decoder.stage3", "eda"
    with search(Machine({harmful: 10, slow: -5}, {harmful: 0.02})) as opened:
        report = opened.measure_units()

    rows = {row.unit: row for row in report.rows}
    assert set(rows) == set(variants.units)
    assert report.reference.rel == pytest.approx(0.05, rel=0.05)
    assert rows[harmful].rel == pytest.approx(0.4, rel=0.05)
    assert rows[harmful].p99 == pytest.approx(0.02 / 1.05, rel=0.05)
    assert rows[harmful].saved == pytest.approx(0.1)
    assert rows[slow].saved == pytest.approx(-0.05)
    assert rows[slow].rel == pytest.approx(0, abs=1e-6)
    assert report.blanket.choice.int8 == tuple(sorted(u for u in rows if not u.endswith(NARROW)))
    assert report.blanket.speedup == pytest.approx(100 / 95)
    assert (report.frames, report.engine) == ((3, 3), "fake")


def test_the_fastest_choice_within_the_budget_is_written(
    search: Callable[[Machine], PrecisionSearch], variants: Variants, tmp_path: Path
) -> None:
    """Harmless units that save time, and of the harmful ones those that the budget has room for."""
    machine = Machine(
        {"decoder.stage4": 10, "decoder.stage3": 12, "decoder.bottom": 9, "eda": -8},
        {"decoder.stage3": 0.02, "decoder.bottom": 0.0002},
    )
    with search(machine) as opened:
        report = opened.choose(Budget.parse("rel +1%"), tmp_path / "out.onnx")

    assert report.chosen is not None
    chosen = set(report.chosen.choice.int8)
    assert {"decoder.stage4", "decoder.bottom"} <= chosen
    assert not chosen & {"decoder.stage3", "eda"}
    assert report.chosen.speedup == pytest.approx(100 / 81)
    blocks = {b.name: b.precision for b in read_onnx_spec(tmp_path / "out.onnx").blocks}
    assert blocks["decoder.stage4"].startswith("int8")
    assert blocks["decoder.stage3"] == "fp32"
    spec = read_onnx_spec(tmp_path / "out.onnx")
    assert spec.precision == "int8"
    assert spec.search is not None
    assert (spec.search.budget, spec.search.protocol, spec.search.frames) == (
        "rel +1%",
        "nyu_hu",
        3,
    )
    assert spec.search.speedup == pytest.approx(100 / 81)
    assert spec.search.change <= 0.01
    assert "under nyu_hu on 3 frames held out, 1.23 times as fast" in spec.search.text()
    names = [found.name for found in report.held_out]
    assert names == ["FP32", "FP16", "blanket INT8", "within rel +1%"]
    assert "decoder.stage4" in report.text()
    report.write(tmp_path / "plots")
    stored = json.loads((tmp_path / "plots/search.json").read_text())
    assert stored["chosen"]["choice"]["int8"] == sorted(chosen)
    for name in ("sensitivity.png", "pareto.png"):
        picture = cv2.imread(str(tmp_path / "plots" / name))
        assert picture is not None
        assert picture.std() > 10


def test_a_stopped_search_is_resumed(
    search: Callable[[Machine], PrecisionSearch], tmp_path: Path
) -> None:
    """Candidates that were tried are not tried again; the choice is that of the first run."""
    saves = {"decoder.stage4": 10.0}
    with search(Machine(saves, {})) as opened:
        opened.measure_units()
    again = Machine(saves, {})
    with search(again) as opened:
        opened.measure_units()
    assert again.opened == 1  # FP32
    (file,) = (tmp_path / "work").glob("trials-*.json")
    file.write_text("[1]")
    with pytest.raises(MsfnetError, match=rf"{file.name} must be a table, not 1; remove it"):
        search(again)


@pytest.mark.slow
def test_fp16_is_the_rest_where_it_is_faster(
    search: Callable[[Machine], PrecisionSearch], tmp_path: Path
) -> None:
    """A machine with fast FP16: INT8 blocks among FP16 ones; one slower in INT8 than in FP16 is
    left in FP16."""
    machine = Machine({"decoder.stage4": 10}, {}, half=40)
    with search(machine) as opened:
        report = opened.choose(Budget.parse("rel +1%"), tmp_path / "out.onnx")

    assert report.chosen is not None
    assert report.chosen.choice.half
    assert "decoder.stage4" in report.chosen.choice.int8
    blocks = {b.name: b.precision for b in read_onnx_spec(tmp_path / "out.onnx").blocks}
    assert blocks["decoder.stage2"].startswith("fp16")


@pytest.mark.slow
def test_fp16_alone_is_the_choice_where_int8_adds_nothing(
    search: Callable[[Machine], PrecisionSearch], variants: Variants, tmp_path: Path
) -> None:
    """Every unit is slower in INT8 than in FP16: the file has none."""
    with search(Machine(dict.fromkeys(variants.units, -1.0), {}, half=40)) as opened:
        report = opened.choose(Budget.parse("rel +1%"), tmp_path / "out.onnx")

    assert report.chosen is not None
    assert (report.chosen.choice.int8, report.chosen.choice.half) == ((), True)
    assert read_onnx_spec(tmp_path / "out.onnx").precision == "fp16"


def test_no_slower_file_is_ever_written(
    search: Callable[[Machine], PrecisionSearch], variants: Variants, tmp_path: Path
) -> None:
    """No file is written if INT8 saves no time."""
    out = tmp_path / "out.onnx"
    with (
        search(Machine(dict.fromkeys(variants.units, -1.0), {})) as opened,
        pytest.raises(MsfnetError, match="nothing is faster than FP32 on fake; keep"),
    ):
        opened.choose(Budget.parse("rel +1%"), out)
    assert not out.exists()


@pytest.mark.slow
def test_an_error_about_an_impossible_budget_names_the_best_choice(
    search: Callable[[Machine], PrecisionSearch], variants: Variants, tmp_path: Path
) -> None:
    """Every unit saves and harms: nothing faster is within the budget, nothing is written."""
    saves, harms = dict.fromkeys(variants.units, 2.0), dict.fromkeys(variants.units, 0.01)
    with (
        search(Machine(saves, harms)) as opened,
        pytest.raises(
            MsfnetError, match=r"within rel \+1%; the best that was reached is rel \+\d+\.\d+% at"
        ),
    ):
        opened.choose(Budget.parse("rel +1%"), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_one_frame_is_too_few_for_a_search(
    variants: Variants, samples: SampleList, tmp_path: Path
) -> None:
    """One has to be held out."""
    with pytest.raises(MsfnetError, match="two frames with ground truth"):
        PrecisionSearch(
            variants, Machine({}, {}).open, samples[:1], PROTOCOLS["nyu_hu"], folder=tmp_path
        )
