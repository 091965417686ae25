"""Runs write complete checkpoints, resume exactly, report progress, and name what is wrong."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from msfnet_benchmarks.scoring.accuracy import evaluate
from msfnet_benchmarks.scoring.metrics import MetricsAccumulator
from msfnet_benchmarks.scoring.protocols import PROTOCOLS
from msfnet_runtime import DepthEstimator, Engine, MsfnetError
from msfnet_runtime.files import sha256
from msfnet_runtime.images import read_image
from msfnet_train import MSFNet, load_checkpoint
from msfnet_train.checkpoint import save_checkpoint
from msfnet_train.module import DepthModule, check_batch
from msfnet_train.recipe import Recipe
from msfnet_train.run import TrainReport, train
from msfnet_train.split import open_split
from msfnet_train.torch_engine import TorchEngine
from tests.train.datasets import SCENES, nyu_recipe, write_nyu


@dataclass(frozen=True)
class Run:
    """A finished run and its progress reports."""

    recipe: Recipe
    data: Path
    folder: Path
    report: TrainReport
    reports: list[tuple[int, int, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run of two epochs on eight pairs."""
    root = tmp_path_factory.mktemp("run")
    data, recipe = write_nyu(root / "data set"), nyu_recipe()
    reports: list[tuple[int, int, str]] = []
    report = train(recipe, data, root / "out", progress=lambda *step: reports.append(step))
    return Run(recipe, data, root / "out", report, reports)


@pytest.fixture(scope="module")
def longer(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return an uninterrupted run of three epochs on the same pairs."""
    recipe, folder = nyu_recipe(trainer_epochs=3), tmp_path_factory.mktemp("longer")
    return Run(recipe, run.data, folder, train(recipe, run.data, folder), [])


def weights(path: Path) -> dict[str, Tensor]:
    """Return the network's weights in a checkpoint, read without running any code in it."""
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def copy_of(run: Run, folder: Path) -> Path:
    """Return a folder that holds the run's checkpoints."""
    folder.mkdir()
    for path in (run.report.best, run.report.last):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_run_leaves_two_checkpoints_its_recipe_and_logs(run: Run) -> None:
    """Best and last, recipe, data and summary as JSON, logs and pictures; no other files."""
    names = {path.name for path in run.folder.iterdir()}
    assert names == {
        *("best.ckpt", "last.ckpt", "recipe.json", "data.json", "summary.json"),
        *("csv", "tensorboard", "curves.png", "predictions.png"),
    }
    assert (run.report.best, run.report.last) == tuple(
        run.folder / name for name in ("best.ckpt", "last.ckpt")
    )
    kept = json.loads((run.folder / "recipe.json").read_text())
    assert Recipe.from_dict(kept, "test") == run.recipe
    with (run.folder / "csv/metrics.csv").open() as file:
        rels = [float(row["rel"]) for row in csv.DictReader(file) if row["rel"]]
    assert len(rels) == 2
    assert min(rels) == pytest.approx(run.report.best_rel, rel=1e-4)
    assert rels[-1] == pytest.approx(run.report.validation.rel, rel=1e-4)


def test_every_training_step_is_reported(run: Run) -> None:
    """Eight pairs in batches of four, twice: four steps, each with its epoch and loss."""
    steps = [report for report in run.reports if "loss" in report[2]]

    assert [(done, total) for done, total, _ in steps] == [(n, 4) for n in (1, 2, 3, 4)]
    epochs = [re.sub(r"loss [\d.]+.*", "loss", what) for _, _, what in steps]
    assert epochs == ["epoch 1/2: loss"] * 2 + ["epoch 2/2: loss"] * 2


def test_checking_validating_and_saving_are_reported(run: Run) -> None:
    """Ten samples are checked; then every phase of an epoch counts the run's training steps."""
    others = [report for report in run.reports if "loss" not in report[2]]

    assert [report[:2] for report in others[:10]] == [(n, 10) for n in range(1, 11)]
    assert all(what.startswith("checking the data") for _, _, what in others[:10])
    assert others[10] == (0, 0, "preparing the network")
    epoch = ["validation batch 1/1", "saving a checkpoint", "saving a checkpoint"]
    assert others[11:] == [
        *((2, 4, f"epoch 1/2: {what}") for what in epoch),
        *((4, 4, f"epoch 2/2: {what}") for what in epoch),
        (4, 4, "drawing the curves"),
    ]


def test_the_command_prints_progress_while_it_runs(tmp_path: Path) -> None:
    """Without a terminal, lines with the steps, the epoch and the loss reach standard error."""
    write_nyu(tmp_path / "data set")
    settings = {
        "network.encoder": "mobilenetv3_small_050",
        "network.pretrained": "false",
        "network.decoder_width": "0.0625",
        "data.crop": "[64, 64]",
        "data.inference_size": "[64, 96]",
        "trainer.epochs": "2",
        "trainer.workers": "0",
        "trainer.batch_size": "4",
    }
    command = [sys.executable, "-m", "msfnet", "train", "nyu_mini", "--data", "data set"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    process = subprocess.Popen(
        [*command, "--out", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append((line, process.poll() is None))

    assert process.wait(timeout=60) == 0, "".join(line for line, _ in lines)
    assert re.match(r"train: \d+/10 ", lines[0][0])
    assert any(
        running and re.search(r"train: [1-4]/4 .*epoch [12]/2: .*loss \d", line)
        for line, running in lines
    ), lines


def test_the_report_counts_epochs_and_images(run: Run) -> None:
    """It has images per second of wall time, and the name of the protocol."""
    report = run.report

    assert (report.epochs, report.protocol, report.validation.images) == (2, "nyu_hu", 2)
    assert report.images_per_second == pytest.approx(2 * SCENES / report.seconds)
    assert "trained 2 epochs" in report.text()
    assert f"REL {report.validation.rel:.3f} (best {report.best_rel:.3f})" in report.text()
    assert TrainReport.read(run.folder) == report


def test_the_report_compares_with_the_best_constant_depth(run: Run) -> None:
    """A REL means little without it; the line says so where the run is no better."""
    constant = run.report.constant

    assert constant is not None
    assert constant.summary.pixels == run.report.validation.pixels
    line = f"for comparison, {constant.text()}"
    assert line in run.report.text()
    worse = replace(run.report, validation=replace(run.report.validation, rel=9.0))
    better = replace(run.report, validation=replace(run.report.validation, rel=0.001))
    assert f"{line}, which this run does not beat" in worse.text()
    assert "does not beat" not in better.text()


def test_pictures_are_drawn_and_logged(run: Run) -> None:
    """Curves and predictions are PNG files in many colours; TensorBoard has the frames too."""
    for name in ("curves.png", "predictions.png"):
        picture = read_image(run.folder / name)
        assert min(picture.shape[:2]) > 200
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    events = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert sorted(tags["images"]) == ["validation/room/0", "validation/room/1"]
    assert {"rel", "train/loss", "train/batch", "eda_zero_minimum"} <= set(tags["scalars"])
    (first, second) = events.Images("validation/room/0")
    assert (first.step, second.step) == (0, 1)
    assert (second.height, second.width) == (2 * 228, 304)


def test_validation_and_evaluation_give_the_same_metrics(run: Run) -> None:
    """The training loop's REL and `msfnet evaluate` agree on the same frames."""
    split = open_split(run.recipe.data, run.data)
    with TorchEngine(run.report.last, "cpu") as engine:
        report = evaluate(DepthEstimator(engine), split.validation, PROTOCOLS["nyu_hu"])

    assert report.summary.rel == pytest.approx(run.report.validation.rel, rel=1e-4)
    assert report.summary.rmse == pytest.approx(run.report.validation.rmse, rel=1e-4)


def test_a_checkpoint_holds_its_network_and_its_origin(run: Run) -> None:
    """It has recipe, spec, its own hash and its data's fingerprint, and is in evaluation mode."""
    checkpoint = load_checkpoint(run.report.best)

    assert not checkpoint.network.training
    assert checkpoint.recipe == run.recipe
    spec = checkpoint.spec
    assert spec == replace(
        run.recipe.spec(),
        checkpoint_sha256=sha256(run.report.best),
        git_revision=spec.git_revision,
    )
    described = torch.load(run.report.best, weights_only=True)["msfnet"]
    assert described["data"] == open_split(run.recipe.data, run.data).fingerprint()


def test_a_saved_network_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    """Without any training, buffers included."""
    recipe = nyu_recipe()
    network = MSFNet(recipe.network)
    network(torch.randn(2, 3, 64, 96))
    save_checkpoint(tmp_path / "network.ckpt", network, recipe)

    loaded = load_checkpoint(tmp_path / "network.ckpt").network

    assert set(loaded.state_dict()) == set(network.state_dict())
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_a_checkpoint_runs_as_an_engine(run: Run, rng: np.random.Generator) -> None:
    """The output is ``network(x)`` in float32, for a batch of the spec's shape."""
    network = load_checkpoint(run.report.best).network
    batch = rng.normal(size=(1, 3, 64, 96)).astype(np.float32)

    with TorchEngine(run.report.best, "cpu") as engine:
        answer = engine.infer(batch)
        assert isinstance(engine, Engine)
        assert "PyTorch" in engine.describe()

    with torch.no_grad():
        expected = network(torch.from_numpy(batch)).numpy()
    np.testing.assert_array_equal(answer, expected)
    assert answer.shape == engine.spec.outputs[0].shape
    with pytest.raises(MsfnetError, match="closed"):
        engine.infer(batch)


class StopError(Exception):
    """Interrupts a run from outside."""


def stop_after(steps: int) -> Callable[[int, int, str], None]:
    """Return a ``Progress`` that interrupts the run once more than ``steps`` steps are done."""

    def progress(done: int, total: int, what: str) -> None:
        if done > steps and "loss" in what:
            raise StopError

    return progress


def drop_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the network a random part, as encoders with dropout have one."""
    plain = MSFNet.forward

    def forward(network: MSFNet, image: Tensor) -> Any:
        return plain(network, torch.nn.functional.dropout(image, 0.2, network.training))

    monkeypatch.setattr(MSFNet, "forward", forward)


RANDOM = {
    "augmentation_random_crop": True,
    "augmentation_zoom": 1.5,
    "augmentation_colour_jitter": 0.2,
    "augmentation_erase": 0.5,
}
"""Settings of a recipe that make every pair differ from epoch to epoch."""


def test_the_number_of_reading_processes_changes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are equal bit for bit: order and augmentation are the same in any process."""
    drop_pixels(monkeypatch)
    ends = []
    for workers in (0, 1, 2):
        recipe = nyu_recipe(trainer_workers=workers, **RANDOM)
        ends.append(weights(train(recipe, run.data, tmp_path / str(workers)).last))

    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name
        assert torch.equal(value, ends[2][name]), name


@pytest.mark.parametrize(
    ("schedule", "decay", "workers"),
    [
        ("constant", 0.0, 2),
        pytest.param("onecycle", 0.0, 0, marks=pytest.mark.slow),
        pytest.param("step", 0.0, 1, marks=pytest.mark.slow),
        pytest.param("step", 0.8, 0, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    schedule: str,
    decay: float,
    workers: int,
) -> None:
    """The weights are equal: order, augmentation, optimiser, schedule and average continue."""
    drop_pixels(monkeypatch)
    recipe = nyu_recipe(
        trainer_workers=workers,
        **RANDOM,
        optimizer_schedule=schedule,
        optimizer_step_epochs=1,
        trainer_epochs=3,
        trainer_average_decay=decay,
    )
    whole = train(recipe, run.data, tmp_path / "whole")
    with pytest.raises(StopError):
        train(recipe, run.data, tmp_path / "cut", progress=stop_after(3))

    resumed = train(recipe, run.data, tmp_path / "cut", resume=True)

    assert (resumed.epochs, whole.epochs) == (3, 3)
    assert resumed.best_rel == pytest.approx(whole.best_rel, rel=1e-4)
    ends = weights(whole.last), weights(resumed.last)
    for name in ends[0]:
        torch.testing.assert_close(ends[1][name], ends[0][name], rtol=1e-4, atol=1e-5)
    before = torch.load(whole.last, weights_only=True), torch.load(resumed.last, weights_only=True)
    assert before[0]["global_step"] == before[1]["global_step"] == 6
    moments = [state["optimizer_states"][0]["state"][0]["exp_avg_sq"] for state in before]
    torch.testing.assert_close(moments[1], moments[0], rtol=1e-3, atol=1e-9)
    logs = sorted(path.name for path in (tmp_path / "cut").glob("csv*"))
    assert logs == ["csv", "csv-2"]


def test_averaged_weights_are_scored_and_saved(run: Run, tmp_path: Path) -> None:
    """The saved weights have the reported REL; the plain run's weights are kept beside them."""
    report = train(
        nyu_recipe(trainer_average_decay=0.8),
        run.data,
        tmp_path / "averaged",
    )

    split = open_split(run.recipe.data, run.data)
    with TorchEngine(report.last, "cpu") as engine:
        scored = evaluate(DepthEstimator(engine), split.validation, PROTOCOLS["nyu_hu"])
    assert scored.summary.rel == pytest.approx(report.validation.rel, rel=1e-4)
    state = torch.load(report.last, weights_only=True)
    ends = weights(run.report.last)
    name = next(name for name in ends if name.endswith("head.weight"))
    torch.testing.assert_close(state["current_model_state"][name], ends[name], rtol=1e-3, atol=1e-5)
    assert not torch.allclose(state["state_dict"][name], ends[name], rtol=1e-3, atol=1e-5)


def test_resuming_a_finished_run_reports_its_result(run: Run, tmp_path: Path) -> None:
    """A run with nothing left to train is validated again and is not an error."""
    report = train(run.recipe, run.data, copy_of(run, tmp_path / "done"), resume=True)

    assert report.epochs == 2
    assert report.validation.rel == pytest.approx(run.report.validation.rel, rel=1e-4)


def test_best_and_last_checkpoint_are_of_the_best_and_the_last_epoch(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when validation gets worse, and across a resumed run."""
    rels = iter([0.3, 0.2, 0.4, 0.25])
    plain = MetricsAccumulator.summary
    monkeypatch.setattr(
        "msfnet_train.module.MetricsAccumulator.summary",
        lambda self: replace(plain(self), rel=next(rels)),
    )
    recipe = nyu_recipe(trainer_epochs=4)
    with pytest.raises(StopError):
        train(recipe, run.data, tmp_path / "out", progress=stop_after(7))

    states = [torch.load(tmp_path / f"out/{n}.ckpt", weights_only=True) for n in ("best", "last")]
    assert [state["epoch"] for state in states] == [1, 2]
    report = train(recipe, run.data, tmp_path / "out", resume=True)

    assert (report.best_rel, report.validation.rel) == pytest.approx((0.2, 0.25))
    states = [torch.load(path, weights_only=True) for path in (report.best, report.last)]
    assert [state["epoch"] for state in states] == [1, 3]


def test_the_initial_prediction_is_the_bias_of_the_head() -> None:
    """So that the untrained network predicts about that value everywhere."""
    module = DepthModule(nyu_recipe(trainer_initial_prediction=7.5), {})

    assert module.network.decoder.head.bias is not None
    assert module.network.decoder.head.bias.tolist() == [7.5]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network_usf_width": 16}, r"trained with another \[network\]"),
        ({"optimizer_learning_rate": 1e-5}, r"trained with another \[optimizer\]"),
        ({"data_inverse_scale": 2.0}, r"trained with another data\.inverse_scale"),
        ({"trainer_epochs": 9}, "one-cycle schedule of .* ends after 2 epochs"),
    ],
)
def test_a_recipe_that_does_not_fit_the_checkpoint_is_refused(
    run: Run, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    """Before training, and without silently using the old recipe."""
    with pytest.raises(MsfnetError, match=words):
        train(nyu_recipe(**changes), run.data, copy_of(run, tmp_path / "run"), resume=True)


def test_a_folder_that_holds_a_run_is_not_overwritten(run: Run) -> None:
    """The error says so, and the last checkpoint keeps its bytes."""
    before = sha256(run.report.last)

    with pytest.raises(MsfnetError, match="already holds a run"):
        train(run.recipe, run.data, run.folder)

    assert sha256(run.report.last) == before


def test_an_unusable_folder_is_refused(run: Run, tmp_path: Path) -> None:
    """A folder with nothing to resume, and folders that cannot be made."""
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(MsfnetError, match=r"nothing to resume.*last\.ckpt"):
        train(run.recipe, run.data, tmp_path / "empty", resume=True)
    for out in ("file", "file/run"):
        with pytest.raises(MsfnetError, match=rf"cannot write .*{out}"):
            train(run.recipe, run.data, tmp_path / out)


def test_training_overfits_four_pairs(tmp_path: Path) -> None:
    """Their colour gives their depth: loss and error fall far below their start."""
    recipe = nyu_recipe(
        trainer_epochs=30,
        trainer_validate_every=30,
        optimizer_learning_rate=5e-3,
        augmentation_channel_permutation=0.0,
    )
    data = write_nyu(tmp_path / "data set", scenes=4)
    losses: list[float] = []

    def progress(done: int, total: int, what: str) -> None:
        losses.extend(map(float, re.findall(r"loss ([\d.]+)", what)))

    report = train(recipe, data, tmp_path / "out", progress=progress)

    assert len(losses) == 30
    assert np.mean(losses[-3:]) < 0.5 * losses[0]
    assert report.validation.rel < 0.25


class NotANumber(torch.nn.Module):
    """A loss that is not a number."""

    def forward(self, *tensors: object) -> dict[str, Tensor]:
        """Return NaN."""
        return {"loss": torch.tensor(torch.nan, requires_grad=True)}


def test_a_loss_that_is_nan_names_its_samples(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the step and all pairs of the batch; no checkpoint is written."""
    monkeypatch.setattr("msfnet_train.module.MSFNetLoss", lambda config: NotANumber())

    with pytest.raises(MsfnetError, match=r"nan at step 0, on .*room/\d, room/\d, room"):
        train(run.recipe, run.data, tmp_path / "out")

    assert not (tmp_path / "out/last.ckpt").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pair_without_depth_is_one_line_from_any_process(tmp_path: Path, workers: int) -> None:
    """The line begins with its name, without the traceback of the process that read it."""
    data = write_nyu(tmp_path / "data set")
    recipe = nyu_recipe(
        trainer_workers=workers, data_depth_kind="metric", data_depth_range_m=(50.0, 80.0)
    )

    with pytest.raises(MsfnetError, match=r"^room/\d .*no depth.*crop") as caught:
        train(recipe, data, tmp_path / "out")

    assert "\n" not in str(caught.value)


def wide(recipe: dict[str, Any], **network: Any) -> dict[str, Any]:
    """Return a checkpoint's recipe with other values in its network."""
    return {**recipe, "network": {**recipe["network"], **network}}


def test_files_that_are_not_checkpoints_are_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    """Missing, a folder, text, truncated, foreign, of another format, of another network."""
    content = torch.load(run.report.last, weights_only=True)
    (tmp_path / "text.ckpt").write_text("weights")
    whole = run.report.last.read_bytes()
    (tmp_path / "short.ckpt").write_bytes(whole[: len(whole) // 2])
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "other.ckpt")
    torch.save(torch.ones(3), tmp_path / "tensor.ckpt")
    torch.save({**content, "msfnet": {**content["msfnet"], "format": 2}}, tmp_path / "newer.ckpt")
    state = {k: v for k, v in content["state_dict"].items() if "decoder" not in k}
    torch.save({**content, "state_dict": state}, tmp_path / "part.ckpt")
    ours = content["msfnet"]
    first = next(iter(state))
    changed: dict[str, dict[str, Any]] = {
        "bare": {"msfnet": {"format": 1}},
        "unspecified": {"msfnet": {k: v for k, v in ours.items() if k != "spec"}},
        "list": {"msfnet": {**ours, "recipe": [1]}},
        "deep": {"msfnet": {**ours, "spec": "[" * 100_000}},
        "wide": {"msfnet": {**ours, "recipe": wide(ours["recipe"], usf_width=1024)}},
        "widest": {"msfnet": {**ours, "recipe": wide(ours["recipe"], usf_width=10**9)}},
        "word": {"state_dict": {**content["state_dict"], first: "weight"}},
        "empty": {"state_dict": {**content["state_dict"], first: state[first].to("meta")}},
        "number": {"state_dict": {**content["state_dict"], 5: torch.ones(1)}},
    }
    for name, parts in changed.items():
        torch.save({**content, **parts}, tmp_path / f"{name}.ckpt")
    with (
        zipfile.ZipFile(run.report.last) as stored,
        zipfile.ZipFile(tmp_path / "deflated.ckpt", "w", zipfile.ZIP_DEFLATED) as deflated,
    ):
        for entry in stored.infolist():
            deflated.writestr(entry.filename, stored.read(entry.filename))
    os.mkfifo(tmp_path / "pipe.ckpt")
    torch.save(content, tmp_path / "legacy.ckpt", _use_new_zipfile_serialization=False)
    for name, words in {
        "absent.ckpt": r"absent\.ckpt does not exist",
        ".": "is a folder",
        "text.ckpt": "corrupt or not a checkpoint",
        "short.ckpt": "corrupt or not a checkpoint",
        "other.ckpt": "not an msfnet checkpoint",
        "tensor.ckpt": "not an msfnet checkpoint",
        "newer.ckpt": "format 2.* reads 1",
        "part.ckpt": "do not fit the network",
        "bare.ckpt": r"recipe is missing in .*bare\.ckpt",
        "unspecified.ckpt": "spec is missing in",
        "list.ckpt": "recipe in .* must be",
        "deep.ckpt": "not JSON",
        "wide.ckpt": "do not fit the network",
        "widest.ckpt": "usf_width is 1000000000",
        "word.ckpt": "not tensors",
        "empty.ckpt": "not tensors",
        "number.ckpt": "not tensors",
        "deflated.ckpt": "corrupt or not a checkpoint",
        "pipe.ckpt": "cannot read .*pipe",
        "legacy.ckpt": "corrupt or not a checkpoint",
    }.items():
        with pytest.raises(MsfnetError, match=words) as caught:
            load_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)


class Hostile:
    """An object that runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    """Only tensors and plain values are unpickled."""
    torch.save({"state_dict": {}, "msfnet": Hostile(tmp_path / "ran")}, tmp_path / "bad.ckpt")

    with pytest.raises(MsfnetError, match="corrupt or not a checkpoint"):
        load_checkpoint(tmp_path / "bad.ckpt")

    assert not (tmp_path / "ran").exists()


def test_a_moved_folder_keeps_its_best_checkpoint(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worse epoch after the move does not replace it, and the old folder stays as it was."""
    rels = iter([0.2, 0.3, 0.4])
    plain = MetricsAccumulator.summary
    monkeypatch.setattr(
        "msfnet_train.module.MetricsAccumulator.summary",
        lambda self: replace(plain(self), rel=next(rels)),
    )
    recipe = nyu_recipe(trainer_epochs=3)
    with pytest.raises(StopError):
        train(recipe, run.data, tmp_path / "old", progress=stop_after(4))
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    before = {path: sha256(path) for path in (tmp_path / "old").glob("*.ckpt")}
    best = sha256(tmp_path / "new/best.ckpt")

    report = train(recipe, run.data, tmp_path / "new", resume=True)

    assert report.best_rel == pytest.approx(0.2)
    assert sha256(report.best) == best
    assert before == {path: sha256(path) for path in (tmp_path / "old").glob("*.ckpt")}


def test_a_run_without_its_best_checkpoint_is_not_resumed(run: Run, tmp_path: Path) -> None:
    """A later and worse one would take its place."""
    folder = copy_of(run, tmp_path / "run")
    (folder / "best.ckpt").unlink()

    with pytest.raises(MsfnetError, match=r"best\.ckpt is missing"):
        train(run.recipe, run.data, folder, resume=True)


def test_a_run_resumes_from_its_best_checkpoint_where_it_has_no_last(
    longer: Run, tmp_path: Path
) -> None:
    """The disk was full between the two; the best holds all that is needed."""
    with pytest.raises(StopError):
        train(longer.recipe, longer.data, tmp_path / "cut", progress=stop_after(2))
    (tmp_path / "cut/last.ckpt").unlink()

    with pytest.raises(MsfnetError, match="already holds a run"):
        train(longer.recipe, longer.data, tmp_path / "cut")
    resumed = train(longer.recipe, longer.data, tmp_path / "cut", resume=True)

    assert resumed.best_rel == pytest.approx(longer.report.best_rel, rel=1e-4)
    ends = weights(longer.report.last), weights(resumed.last)
    for name in ends[0]:
        torch.testing.assert_close(ends[1][name], ends[0][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"trainer_batch_size": 1, "data_crop": (32, 32)},
        {"trainer_batch_size": 1, "network_encoder": "skresnet18"},
        {"data_max_train": 1, "data_crop": (32, 32)},
    ],
)
def test_a_batch_that_leaves_one_value_to_normalise_is_refused(
    run: Run, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Before any file is written: a crop at stride 32, a global pooling, too few pairs."""
    with pytest.raises(MsfnetError, match=r"a batch of 1 pair .*trainer\.batch_size .*data\.crop"):
        train(nyu_recipe(**changes), run.data, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_one_pair_at_a_time_is_enough_where_its_crop_is() -> None:
    """Nothing is refused that trains."""
    check_batch(nyu_recipe(trainer_batch_size=1), pairs=8)
    check_batch(nyu_recipe(data_crop=(32, 32)), pairs=2)


def test_two_trainings_do_not_share_a_folder(run: Run, tmp_path: Path) -> None:
    """The second is refused at once, with and without resuming; the first goes on."""
    refused: list[str] = []

    def progress(done: int, total: int, what: str) -> None:
        if "loss" in what and not refused:
            for resume in (False, True):
                with pytest.raises(MsfnetError) as caught:
                    train(run.recipe, run.data, tmp_path / "run", resume=resume)
                refused.append(str(caught.value))

    train(run.recipe, run.data, tmp_path / "run", progress=progress)

    assert "another process is writing" in refused[0]
    assert "nothing to resume" in refused[1]


def test_the_data_set_is_no_folder_for_a_run(run: Run) -> None:
    """Nothing is written into it."""
    before = sorted(run.data.rglob("*"))

    with pytest.raises(MsfnetError, match="is the data set; choose another"):
        train(run.recipe, run.data, run.data)

    assert sorted(run.data.rglob("*")) == before


@pytest.mark.parametrize("writer", ["checkpoint", "metrics"])
def test_a_full_disk_keeps_the_last_checkpoint(
    longer: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    """One line says what is wrong and what is left to resume from."""
    full = False

    def progress(done: int, total: int, what: str) -> None:
        nonlocal full
        full = done > 2

    def failing(plain: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **named: Any) -> Any:
            if full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return plain(*arguments, **named)

        return write

    owner, name = (torch, "save") if writer == "checkpoint" else (CSVLogger, "save")
    monkeypatch.setattr(owner, name, failing(getattr(owner, name)))

    with pytest.raises(MsfnetError, match="No space left") as caught:
        train(longer.recipe, longer.data, tmp_path / "cut", progress=progress)

    assert "make room" in str(caught.value)
    assert re.search(r"last\.ckpt holds 1 of 3 epochs", str(caught.value))
    assert caught.value.parameter == "resume"
    assert not list((tmp_path / "cut").glob(".*"))
    assert torch.load(tmp_path / "cut/last.ckpt", weights_only=True)["epoch"] == 0


def test_the_systems_error_behind_that_of_pytorchs_writer_is_told(tmp_path: Path) -> None:
    """PyTorch answers a full disk with a RuntimeError; the old file stays."""
    checkpoint = tmp_path / "network.ckpt"
    checkpoint.write_text("old")
    script = (
        "import resource, sys, torch\n"
        "from msfnet_train.checkpoint import write_checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "write_checkpoint(sys.argv[1], {'a': torch.zeros(100_000)})\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert re.search(r"MsfnetError: cannot write .*network\.ckpt: File too large", done.stderr)
    assert checkpoint.read_text() == "old"
    assert list(tmp_path.iterdir()) == [checkpoint]
