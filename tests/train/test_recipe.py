"""Recipes are typed; an error names the file, the key, and what was expected."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from msfnet_benchmarks.scoring.protocols import PROTOCOLS
from msfnet_runtime import MsfnetError
from msfnet_train.network import PRESETS, TABLE_III
from msfnet_train.recipe import Recipe, load_recipe, recipe_names

MINIMAL = """
[data]
layout = "nyu"
dataset = "test"
crop = [64, 96]
inference_size = [64, 97]
protocol = "nyu_hu"
depth_kind = "inverse"
depth_range_m = [0.1, 10]
inverse_scale = 10
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    """Return a recipe file with the required keys only."""
    path = tmp_path / "small.toml"
    path.write_text(MINIMAL)
    return path


SHIPPED = (
    *("folder", "kitti", "nyu", "nyu_ablation", "nyu_lite", "nyu_mini"),
    *("nyu_mobilenetv3", "nyu_nano"),
)


def test_the_shipped_recipes_are_these() -> None:
    """Three of the paper, one for anybody's data, the light ones, and the demo's."""
    assert recipe_names() == [*SHIPPED, "quick"]


@pytest.mark.parametrize("name", [*SHIPPED, "quick"])
def test_every_shipped_recipe_loads(name: str) -> None:
    """It has its file's name, notes, a known protocol and a spec of its inference size."""
    recipe = load_recipe(name)

    assert recipe.name == name
    assert recipe.notes
    assert recipe.data.protocol in PROTOCOLS
    spec = recipe.spec()
    height, width = recipe.data.inference_size
    assert spec.inputs[0].shape == (1, 3, height, width)
    assert spec.outputs[0].shape == (1, 1, -(-height // 2), -(-width // 2))


def test_the_papers_recipes_have_the_papers_values() -> None:
    """Sec. IV: Adam 1e-4, weight decay 1e-4, lambda and mu, sizes, 8 and 16 pairs on two GPUs."""
    nyu, kitti = load_recipe("nyu"), load_recipe("kitti")

    for recipe in (nyu, kitti):
        assert recipe.network == load_recipe("nyu").network
        assert recipe.network.encoder == "legacy_senet154"
        optimizer = recipe.optimizer
        assert (optimizer.learning_rate, optimizer.betas) == (1e-4, (0.9, 0.999))
        assert (optimizer.weight_decay, optimizer.step_epochs) == (1e-4, 5)
        assert (optimizer.schedule, optimizer.step_factor) == ("step", 0.05)
        assert recipe.trainer.epochs == 20
    assert (nyu.loss.batch_weight, nyu.loss.auxiliary_weight) == (0.1, 0.1)
    assert (kitti.loss.batch_weight, kitti.loss.auxiliary_weight) == (1.0, 1.0)
    assert (nyu.trainer.batch_size, kitti.trainer.batch_size) == (8, 4)
    assert (nyu.data.crop, kitti.data.crop) == ((228, 304), (385, 513))
    assert nyu.spec().prediction_range == pytest.approx((1, 100))


def test_a_recipe_survives_a_round_trip(minimal: Path) -> None:
    """Through plain values and through JSON, as a run's folder stores it."""
    for recipe in (load_recipe(minimal), load_recipe("kitti")):
        assert Recipe.from_dict(recipe.to_dict(), "test") == recipe
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())), "test") == recipe


def test_missing_keys_have_the_papers_values(minimal: Path) -> None:
    """And whole numbers are accepted where a number is expected."""
    recipe = load_recipe(minimal)

    assert recipe.name == "small"
    assert recipe.optimizer.learning_rate == 1e-4
    assert recipe.data.depth_range_m == (0.1, 10.0)
    assert isinstance(recipe.data.inverse_scale, float)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[trainer]\nepoch = 5", r"unknown key trainer\.epoch in .*did you mean trainer\.epochs\?"),
        ("[optimiser]\nlr = 1", r"unknown key optimiser in .*did you mean optimizer\?"),
        ("[optimizer]\nlr = 1", r"unknown key optimizer\.lr in .*known are learning_rate, "),
        ('[trainer]\nepochs = "5"', r"trainer\.epochs in .* must be a whole number, not '5'"),
        ("[trainer]\nepochs = 5.0", r"trainer\.epochs in .* must be a whole number, not 5\.0"),
        ("[loss]\nssim = 1", r"loss\.ssim in .* must be true or false, not 1"),
        ('[loss]\nweighting = "image"', r'loss\.weighting in .* one of "sample", "pixel"'),
        ("[network]\npretrained = 3", r"network\.pretrained in .* true or false or a string"),
        ("[optimizer]\nbetas = [0.9]", r"optimizer\.betas in .* \[a number, a number\]"),
        ('network = "senet"', r"network in .* must be a table"),
    ],
)
def test_wrong_keys_and_types_are_named(tmp_path: Path, text: str, words: str) -> None:
    """Unknown keys with the most similar known one, and wrong types; each with the file."""
    path = tmp_path / "wrong.toml"
    path.write_text(f"{text}\n{MINIMAL}" if text.startswith("network") else f"{MINIMAL}\n{text}")

    with pytest.raises(MsfnetError, match=words) as caught:
        load_recipe(path)

    assert "wrong.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("trainer.epochs=0", "trainer.epochs is 0.* from 1 to"),
        ("trainer.validate_every=3", "trainer.epochs.*multiple of validate_every"),
        ("trainer.workers=-1", "trainer.workers is -1"),
        ("trainer.seed=-1", "trainer.seed is -1"),
        ("optimizer.learning_rate=-1", "learning_rate"),
        ("optimizer.betas=[0.9, 1.0]", r"betas is \(0\.9, 1\.0\)"),
        ("optimizer.warmup_share=1.5", "warmup_share"),
        ("augmentation.flip=2", "augmentation.flip"),
        ("loss.dynamic_range=0", "dynamic_range positive"),
        ("data.crop=[16, 64]", r"data.crop is \(16, 64\).* 32 to 8192 pixels"),
        ("data.depth_range_m=[10, 1]", "depth_range_m"),
        ("data.inverse_scale=0", "inverse_scale"),
        ("data.validation_share=1.0", "validation_share"),
        ("data.protocol=nyu", "unknown protocol 'nyu'"),
        ("data.protocol=kitti_raw", "choose one of nyu_hu, nyu_densedepth, nyu_bts"),
        ("data.protocol=kitti_bts", "scores other ground truth"),
        ("network.usf=false", "needs the USF"),
        ("network.usf_width=200000", "usf_width is 200000.* from 2 to 1024"),
        ("network.usf_output=100000000", "usf_output is 100000000"),
        ("network.decoder_width=nan", "decoder_width is nan"),
        ("data.crop=[1000000, 1000000]", "data.crop is .* 32 to 8192 pixels"),
        ("data.image_size=[100000, 64]", "data.image_size"),
        ("data.max_train=-5", "data.max_train is -5"),
        ("data.max_validation=-1", "data.max_validation is -1"),
        ("data.inverse_scale=nan", "data.inverse_scale is nan"),
        ("data.inverse_scale=inf", "data.inverse_scale is inf"),
        ("data.depth_range_m=[nan, 5.0]", "depth_range_m"),
        ("data.depth_range_m=[1e-300, 1e300]", "depth_range_m"),
        ("optimizer.learning_rate=nan", "learning_rate is nan"),
        ("optimizer.learning_rate=1e300", "learning_rate is 1e"),
        ("loss.batch_weight=nan", "loss.batch_weight must be a finite number"),
        ("trainer.initial_prediction=inf", "initial_prediction is inf"),
        ("trainer.workers=100000", "trainer.workers is 100000"),
        ("trainer.batch_size=1000000000", "trainer.batch_size is 1000000000"),
        ("trainer.epochs=999999999999", "trainer.epochs is 999999999999"),
        ("data.dataset=\x1b[2J", "data.dataset must be one line of printable characters"),
        ("network=3", "network .* must be a table"),
    ],
)
def test_values_out_of_range_are_refused(minimal: Path, setting: str, words: str) -> None:
    """Before any data is read or any weight is made."""
    with pytest.raises(MsfnetError, match=words):
        load_recipe(minimal, [setting])


def test_overrides_take_toml_values_and_bare_words(minimal: Path) -> None:
    """Numbers, lists, true and false, strings with and without quotes."""
    recipe = load_recipe(
        minimal,
        [
            "trainer.epochs=4",
            "data.crop = [96, 128]",
            "network.pretrained=false",
            "network.encoder=resnet18",
            'notes="a = b"',
            "optimizer.learning_rate=1e-3",
        ],
    )

    assert recipe.trainer.epochs == 4
    assert recipe.data.crop == (96, 128)
    assert recipe.network.pretrained is False
    assert recipe.network.encoder == "resnet18"
    assert recipe.notes == "a = b"
    assert recipe.optimizer.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("trainer.epochs", "'trainer.epochs' .*key=value"),
        ("=5", "'=5' .*key=value"),
        ("data.crop.height=5", "crop .*not a table"),
        ("trainer.epocs=5", r"did you mean trainer\.epochs\?"),
    ],
)
def test_a_malformed_override_is_refused(minimal: Path, setting: str, words: str) -> None:
    """The error quotes the override or names the key that was probably meant."""
    with pytest.raises(MsfnetError, match=words):
        load_recipe(minimal, [setting])


def test_files_that_are_not_recipes_are_refused_in_one_line(tmp_path: Path) -> None:
    """Missing, a folder, not TOML, not text, without a required key; and unknown names."""
    (tmp_path / "bad.toml").write_text("[data\nlayout = ")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "short.toml").write_text('[data]\nlayout = "nyu"')
    (tmp_path / "folder.toml").mkdir()
    for name, words in {
        "absent.toml": r"absent\.toml.*No such file",
        "folder.toml": r"folder\.toml.*directory",
        "bad.toml": r"bad\.toml.*not TOML",
        "bytes.toml": r"bytes\.toml.*not text",
        "short.toml": r"data\.dataset is missing in .*short\.toml",
    }.items():
        with pytest.raises(MsfnetError, match=words) as caught:
            load_recipe(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(MsfnetError, match="unknown recipe 'nyu_mni'; choose one of folder, kitti"):
        load_recipe("nyu_mni")


def test_a_preset_sets_its_keys_and_others_override_it(minimal: Path) -> None:
    """It is in the file or an override. A run stores the keys, so it does not need the preset."""
    settings = ["network.preset=nano", "network.pretrained=false", "network.usf_width=24"]

    recipe = load_recipe(minimal, settings)

    assert recipe.network == replace(PRESETS["nano"], pretrained=False, usf_width=24)
    assert "preset" not in recipe.to_dict()["network"]
    assert Recipe.from_dict(recipe.to_dict(), "test") == recipe
    minimal.write_text(f'{MINIMAL}\n[network]\npreset = "lite"\n')
    assert load_recipe(minimal).network == PRESETS["lite"]


@pytest.mark.parametrize("preset", ["litle", "3", "[]"])
def test_an_unknown_preset_is_refused_with_the_known_ones(minimal: Path, preset: str) -> None:
    """The error is one line with the recipe's name; also for a number and a list."""
    with pytest.raises(
        MsfnetError,
        match=r"unknown network\.preset .* in recipe .*small\.toml; "
        "choose one of paper, lite, nano$",
    ) as caught:
        load_recipe(minimal, [f"network.preset={preset}"])

    assert "\n" not in str(caught.value)


def test_the_recipes_of_the_presets_differ_in_the_network_only() -> None:
    """Data, loss, schedule and sizes are the same, so that their scores can be compared."""
    reference = load_recipe("nyu_mobilenetv3")

    for name, preset in {"nyu_lite": "lite", "nyu_nano": "nano"}.items():
        recipe = load_recipe(name)
        assert recipe.network == replace(PRESETS[preset], pretrained=False)
        named = replace(reference, name=name, notes=recipe.notes)
        assert recipe == replace(named, network=recipe.network)
        assert recipe.data.inference_size == (192, 256)


def test_the_rows_of_table_iii_are_recipes() -> None:
    """Only network and loss change; an unknown row is refused with the known ones."""
    nyu = load_recipe("nyu")

    for row in TABLE_III:
        ablated = nyu.ablated(row)
        assert ablated.loss.batch == (row == "usf+eda+batch_loss")
        assert ablated.network.usf == (row != "baseline")
        assert ablated.data == nyu.data
    assert asdict(nyu.ablated("usf+eda+batch_loss").network) == asdict(nyu.network)
    with pytest.raises(MsfnetError, match="choose one of baseline, usf"):
        nyu.ablated("eda")
