"""Defines recipes: one typed TOML file holds everything that decides a training run.

An unknown key, a wrong type or a value out of range is an error of one line that names the recipe,
the key and, for a misspelt key, the most similar known one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from msfnet_benchmarks.scoring.protocols import PROTOCOLS, find_protocol
from msfnet_datasets.ground_truth import GroundTruth
from msfnet_datasets.layouts import LAYOUTS, Layout
from msfnet_datasets.sample import HELD_OUT
from msfnet_runtime import ModelSpec, MsfnetError, TensorSpec
from msfnet_runtime.depth_storage import DepthStorage
from msfnet_runtime.typed import build, check_values, parse_toml, read_text, to_plain
from msfnet_train.losses import LossConfig
from msfnet_train.network import PRESETS, TABLE_III, NetworkConfig
from msfnet_train.pretrained import normalisation

MIN_SIDE, MAX_SIDE = 32, 8192
"""The least that an encoder takes, and more than any camera has, pixels."""
MAX_EPOCHS, MAX_BATCH, MAX_PROCESSES = 1_000_000, 65_536, 1024
"""More than any run has; a number beyond it is a mistake."""
LARGEST = 1e6
"""The largest depth in metres, or inverse depth in its own unit."""


@dataclass(frozen=True)
class DataConfig:
    """The data of a run, and the network's view of it. Sizes are (height, width)."""

    layout: Layout
    """NYU's labelled set, DenseDepth's NYU, KITTI raw drives, BTS's folders of NYU, or pairs of
    images and depth of your own."""
    dataset: str
    """The data set's name, for the model's spec."""
    crop: tuple[int, int]
    """What the network sees in training, pixels; the target is half of it, rounded up."""
    inference_size: tuple[int, int]
    """What the network sees in validation, and the size it is exported at by default."""
    protocol: str
    """The evaluation protocol that validation scores by."""
    depth_kind: Literal["metric", "inverse"]
    """Predict metres, or ``inverse_scale`` / metres."""
    depth_range_m: tuple[float, float]
    """Targets are kept within it, and so are answers, metres."""
    inverse_scale: float = 1.0
    """10 is DenseDepth's convention: 0.1 to 10 m become 100 to 1."""
    image_size: tuple[int, int] | None = None
    """Scale frames to this before cropping, pixels; left out: as they are."""
    train_list: str = ""
    """What to train on: ``nyu``: the list ``nyu2_<name>.csv``; ``nyu_labelled``: ``train`` or
    ``test`` of the official split; ``nyu_sync`` and ``kitti``: a list file, from here or from the
    data; ``folder``: the list ``<name>.csv``. Left out: ``train``, or without lists all but the
    last frames of every drive or scene."""
    validation_list: str = ""
    """What to validate on, likewise; left out: ``val`` (``nyu``), ``test`` (``nyu_labelled``)."""
    train_depth: DepthStorage | None = None
    """How the training depth is stored; left out: as the layout's own convention has it."""
    validation_depth: DepthStorage | None = None
    """How the validation depth is stored."""
    validation_share: float = HELD_OUT
    """Without lists the last frames of every drive or scene are held out, this share of them."""
    max_train: int = 0
    """Use only so many training pairs, spread over the list; 0: all."""
    max_validation: int = 0
    """Use only so many validation pairs, spread over the list; 0: all."""

    def __post_init__(self) -> None:
        """Refuse what no run could use."""
        for name in ("crop", "inference_size", "image_size"):
            sides = getattr(self, name) or (MIN_SIDE,)
            rule = f"have sides of {MIN_SIDE} to {MAX_SIDE} pixels"
            _require(self, f"data.{name}", MIN_SIDE <= min(sides) <= max(sides) <= MAX_SIDE, rule)
        for name in ("max_train", "max_validation"):
            _require(self, f"data.{name}", getattr(self, name) >= 0, "be 0 or more")
        rule = f"be positive and at most {LARGEST:g}"
        _require(self, "data.inverse_scale", 0 < self.inverse_scale <= LARGEST, rule)
        if not 0 < self.validation_share < 1:
            raise MsfnetError("data.validation_share must lie between 0 and 1")
        if not 1e-6 <= self.depth_range_m[0] < self.depth_range_m[1] <= LARGEST:
            raise MsfnetError(
                "data.depth_range_m must be [min, max] in metres with 1e-6 <= min < max <= 1e6"
            )
        if bool(self.train_list) != bool(self.validation_list):
            raise MsfnetError("data.train_list and validation_list go together; give both or none")
        if LAYOUTS[self.layout].needs_list and not self.train_list:
            raise MsfnetError(
                f"data.train_list and validation_list are missing; layout {self.layout} needs them"
            )
        if not find_protocol(self.protocol).scores(self.ground_truth):
            names = [p.name for p in PROTOCOLS.values() if p.scores(self.ground_truth)]
            raise MsfnetError(
                f"data.protocol {self.protocol} scores other ground truth than layout "
                f"{self.layout} has; choose one of {', '.join(names)}"
            )

    @property
    def ground_truth(self) -> GroundTruth:
        """The kind of the validation depth, as protocols name it."""
        return LAYOUTS[self.layout].kind(self.validation_depth)


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes to training pairs (Sec. IV)."""

    flip: float = 0.5
    """Probability of a horizontal flip."""
    channel_permutation: float = 0.5
    """Probability of a random permutation of the colour channels."""
    colour_jitter: float = 0.0
    """Largest relative change of brightness and of contrast; that of each channel is half of it.
    The paper has none; small data sets need it."""
    zoom: float = 1.0
    """Largest factor by which a random window is enlarged and its depth divided; 1: no zoom."""
    erase: float = 0.0
    """Probability that a rectangle of the image is painted over."""
    random_crop: bool = False
    """Crop at a random place (KITTI) instead of at the centre (NYU)."""

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        for name in ("flip", "channel_permutation", "erase"):
            _require(self, f"augmentation.{name}", 0 <= getattr(self, name) <= 1, "be from 0 to 1")
        _require(self, "augmentation.zoom", 1 <= self.zoom <= 4, "be from 1 to 4")
        _require(self, "augmentation.colour_jitter", 0 <= self.colour_jitter < 1, _BELOW_1)


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam and its schedule; the defaults are the paper's."""

    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    """Coupled (L2), as in Adam, not as in AdamW."""
    schedule: Literal["step", "onecycle", "constant"] = "step"
    """``step``: multiply the rate by ``step_factor`` every ``step_epochs``; ``onecycle``: raise
    the rate to ``learning_rate``, then lower it to about 0."""
    step_epochs: int = 5
    step_factor: float = 0.05
    """The paper says "reduced to 5 %"; 0.95 is the other possible reading."""
    warmup_share: float = 0.2
    """``onecycle``: the share of all steps in which the rate rises."""

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        for name in ("learning_rate", "step_factor"):
            holds = 0 < getattr(self, name) <= 1000
            _require(self, f"optimizer.{name}", holds, "be positive and at most 1000")
        _require(
            self, "optimizer.weight_decay", 0 <= self.weight_decay <= 1000, "be from 0 to 1000"
        )
        _require(self, "optimizer.betas", all(0 <= beta < 1 for beta in self.betas), _BELOW_1)
        _require(self, "optimizer.step_epochs", self.step_epochs >= 1, "be 1 or more")
        _require(self, "optimizer.warmup_share", 0 < self.warmup_share < 1, "be between 0 and 1")


@dataclass(frozen=True)
class TrainerConfig:
    """The length and the devices of a run."""

    epochs: int = 20
    batch_size: int = 16
    """Pairs per process and step."""
    workers: int = 2
    """Processes that read data; 0 reads in the training process."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    devices: int = 0
    """GPUs (or CPU processes); 0: all GPUs of the machine, or one CPU process."""
    nodes: int = 1
    sync_batchnorm: bool = False
    """Compute batch norms over the batches of all GPUs instead of each GPU's own."""
    tf32: bool = False
    """Allow TF32 in 32-bit matrix products on GPUs that have it."""
    channels_last: bool = False
    """Keep images and weights as NHWC in memory, which is faster on tensor cores."""
    compile: bool = False
    """Compile the network with ``torch.compile``: it starts minutes later, and steps are faster."""
    gradient_clip: float = 0.0
    """Largest gradient norm; 0: no clipping."""
    seed: int = 0
    initial_prediction: float = 0.0
    """What the untrained network predicts, in the target's unit. A value near the median saves
    light recipes many steps. The paper does not mention it."""
    average_decay: float = 0.0
    """Decay per step of an exponential moving average of the weights, which is then scored and
    saved; 0: no average."""
    validate_every: int = 1
    """Epochs between validations."""

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        limits = {
            "epochs": (1, MAX_EPOCHS),
            "validate_every": (1, MAX_EPOCHS),
            "batch_size": (1, MAX_BATCH),
            "nodes": (1, MAX_PROCESSES),
            "devices": (0, MAX_PROCESSES),
            "workers": (0, MAX_PROCESSES),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            _require(self, f"trainer.{name}", low <= value <= high, f"be from {low} to {high}")
        small = abs(self.initial_prediction) <= LARGEST
        _require(self, "trainer.initial_prediction", small, f"be within ±{LARGEST:g}")
        _require(self, "trainer.gradient_clip", self.gradient_clip >= 0, "be 0 or more")
        _require(self, "trainer.average_decay", 0 <= self.average_decay < 1, _BELOW_1)
        _require(self, "trainer.seed", 0 <= self.seed < 2**32, "be from 0 to 4294967295")
        rule = f"be a multiple of validate_every ({self.validate_every}): the last epoch is scored"
        _require(self, "trainer.epochs", self.epochs % self.validate_every == 0, rule)


_BELOW_1 = "be 0 or more and below 1"


def _require(config: object, key: str, holds: bool, rule: str) -> None:
    """Refuse the value of a key (``table.field``) that breaks a rule such as ``be positive``."""
    if not holds:
        value = getattr(config, key.rpartition(".")[2])
        raise MsfnetError(f"{key} is {value}; it must {rule}")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides one training run."""

    name: str
    data: DataConfig
    notes: str = ""
    """What the recipe is for, and the paper's figures to compare with."""
    ablation: str = ""
    """A row of Table III, which sets ``network.usf``, ``network.attention`` and ``loss.batch``."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        """Refuse numbers without an end, and texts that are not one line; notes may be longer."""
        for f in fields(self):
            if f.name != "notes":
                check_values(getattr(self, f.name), f.name)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that :meth:`from_dict` reads; None for keys without a value."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> Recipe:
        """Build a recipe from the tables of a TOML file.

        ``network.preset`` selects one of :data:`PRESETS`; other keys of the table override it.

        Args:
            values: the tables.
            source: where they come from, for messages.

        Raises:
            MsfnetError: unknown key or preset, wrong type or missing key.
        """
        recipe = build(cls, _with_preset(values, source), f"recipe {source}")
        return recipe.ablated(recipe.ablation) if recipe.ablation else recipe

    def ablated(self, row: str) -> Recipe:
        """Return the recipe of one row of Table III.

        Raises:
            MsfnetError: there is no such row.
        """
        if row not in TABLE_III:
            raise MsfnetError(f"unknown ablation {row!r}; choose one of {', '.join(TABLE_III)}")
        usf, attention, batch_loss = TABLE_III[row]
        return replace(
            self,
            ablation=row,
            network=replace(self.network, usf=usf, attention=attention),
            loss=replace(self.loss, batch=batch_loss),
        )

    def spec(self) -> ModelSpec:
        """Return the spec of the network graph at the recipe's inference size."""
        data = self.data
        mean, std = normalisation(self.network.encoder)
        spec = ModelSpec(
            graph="network",
            inputs=(),
            outputs=(),
            size=data.inference_size,
            mean=mean,
            std=std,
            depth_kind=data.depth_kind,
            depth_range_m=data.depth_range_m,
            dataset=data.dataset,
            encoder=self.network.encoder,
            inverse_scale=data.inverse_scale,
            recipe=self.name,
            ablation=self.ablation,
        )
        return at_size(spec, data.inference_size)


def _with_preset(values: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Return the tables with ``network.preset`` replaced by the preset's values."""
    network = values.get("network")
    if not isinstance(network, Mapping) or network.get("preset") is None:
        return values
    others = dict(network)
    name = others.pop("preset")
    if not isinstance(name, str) or name not in PRESETS:
        raise MsfnetError(
            f"unknown network.preset {name!r} in recipe {source}; choose one of "
            f"{', '.join(PRESETS)}"
        )
    return {**values, "network": {**asdict(PRESETS[name]), **others}}


def load_network(settings: Mapping[str, str], source: str) -> NetworkConfig:
    """Return the network that settings describe.

    Args:
        settings: TOML values by field of :class:`NetworkConfig`; a bare word is a string.
            ``preset`` selects one of :data:`PRESETS`, which the other settings override.
        source: where they come from, for messages.

    Raises:
        MsfnetError: unknown field or preset, or a value of another type or out of range.
    """
    values: dict[str, Any] = {}
    for name, text in settings.items():
        _override(values, f"network.{name}={text}")
    network = _with_preset(values, source)["network"]
    return build(NetworkConfig, network, f"recipe {source}", "network")


def at_size(spec: ModelSpec, size: tuple[int, int]) -> ModelSpec:
    """Return a network graph's spec for another input size (height, width), pixels."""
    height, width = size
    return replace(
        spec,
        size=size,
        inputs=(TensorSpec("image", "float32", (1, 3, height, width)),),
        outputs=(TensorSpec("prediction", "float32", (1, 1, *half(size)), "depth"),),
    )


def half(size: tuple[int, int]) -> tuple[int, int]:
    """Return the grid of the prediction for an input (height, width): half, rounded up."""
    return -(-size[0] // 2), -(-size[1] // 2)


def recipe_names() -> list[str]:
    """Return the names of the recipes that are part of msfnet."""
    folder = resources.files("msfnet_train") / "recipes"
    return sorted(f.name[: -len(".toml")] for f in folder.iterdir() if f.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or from a TOML file.

    Args:
        name_or_path: one of :func:`recipe_names`, or a file ending in ``.toml``.
        overrides: ``table.key=value`` with a TOML value; a bare word is a string.

    Raises:
        MsfnetError: no such recipe, not TOML, unknown key, wrong type or value out of range.
    """
    name = str(name_or_path)
    if name in recipe_names():
        text = (resources.files("msfnet_train") / f"recipes/{name}.toml").read_text("utf-8")
    elif name.endswith(".toml"):
        text = read_text(name, f"recipe {name}")
    else:
        raise MsfnetError(
            f"unknown recipe {name!r}; choose one of {', '.join(recipe_names())} or a .toml file"
        )
    values = parse_toml(text, f"recipe {name}")
    for override in overrides:
        _override(values, override)
    return Recipe.from_dict({"name": Path(name).stem, **values}, name)


def _override(values: dict[str, Any], override: str) -> None:
    """Apply one ``table.key=value`` to the tables in place."""
    path, equals, text = override.partition("=")
    *tables, key = path.strip().split(".")
    if not equals or not key:
        raise MsfnetError(f"{override!r} is not key=value; write for example trainer.epochs=5")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise MsfnetError(f"{override!r}: {table} is a value, not a table; use its own key")
    try:
        values[key] = parse_toml(f"value = {text}", override)["value"]
    except MsfnetError:
        values[key] = text.strip()
