"""Recipes: everything that decides a training run, in one typed TOML file.

The typed models below are the truth: an unknown key, a wrong type or a value out of range is an
error of one line that names the key, the recipe and, where there is one, the key that was meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from msfnet_benchmarks.scoring.protocols import PROTOCOLS, find_protocol
from msfnet_datasets.ground_truth import DepthStorage, GroundTruth
from msfnet_datasets.samples import Layout
from msfnet_runtime import ModelSpec, MsfnetError, TensorSpec
from msfnet_runtime.typed import build, parse_toml, read_text, to_plain
from msfnet_train.losses import LossConfig
from msfnet_train.network import PRESETS, TABLE_III, NetworkConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""RGB mean of ImageNet's images scaled to 0..1."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB standard deviation of ImageNet's images scaled to 0..1."""


@dataclass(frozen=True)
class DataConfig:
    """Which data a run reads, and what the network sees of it. Sizes are (height, width)."""

    layout: Layout
    """DenseDepth's NYU, NYU's labelled set, BTS's folders of NYU, or KITTI raw drives."""
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
    data. Left out: ``train``, or KITTI's drives but for their last frames."""
    validation_list: str = ""
    """What to validate on, likewise; left out: ``val`` (``nyu``), ``test`` (``nyu_labelled``)."""
    train_depth: DepthStorage | None = None
    """How the training depth is stored; left out: as the layout's own convention has it."""
    validation_depth: DepthStorage | None = None
    """How the validation depth is stored."""
    validation_share: float = 0.1
    """KITTI without lists: the last frames of every drive are held out, this share of them."""
    max_train: int = 0
    """Use only so many training pairs, spread over the list; 0: all."""
    max_validation: int = 0
    """Use only so many validation pairs, spread over the list; 0: all."""

    def __post_init__(self) -> None:
        """Refuse what no run could use."""
        for name in ("crop", "inference_size", "image_size"):
            if min(getattr(self, name) or (32,)) < 32:
                raise MsfnetError(f"data.{name} is below 32 pixels; the encoder needs 32 or more")
        if self.inverse_scale <= 0:
            raise MsfnetError("data.inverse_scale must be positive")
        if not 0 < self.validation_share < 1:
            raise MsfnetError("data.validation_share must lie between 0 and 1")
        if not 0 < self.depth_range_m[0] < self.depth_range_m[1]:
            raise MsfnetError("data.depth_range_m must be [min, max] in metres with 0 < min < max")
        if bool(self.train_list) != bool(self.validation_list):
            raise MsfnetError("data.train_list and validation_list go together; give both or none")
        if self.layout == "nyu_sync" and not self.train_list:
            raise MsfnetError("data.train_list and validation_list name nyu_sync's list files")
        if find_protocol(self.protocol).ground_truth != self.ground_truth:
            names = [p.name for p in PROTOCOLS.values() if p.ground_truth == self.ground_truth]
            raise MsfnetError(
                f"data.protocol {self.protocol} scores other ground truth than layout "
                f"{self.layout} has; choose one of {', '.join(names)}"
            )

    @property
    def ground_truth(self) -> GroundTruth:
        """What the validation depth is, in the protocols' words."""
        if self.layout != "kitti":
            return "nyu_depth"
        return "improved" if self.validation_depth == "uint16_256" else "velodyne"

    @property
    def lists(self) -> tuple[str, str]:
        """The names of the lists to train and to validate on; empty for whole KITTI drives."""
        if self.train_list or self.layout == "kitti":
            return self.train_list, self.validation_list
        return "train", {"nyu": "val", "nyu_labelled": "test"}[self.layout]


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes to training pairs (Sec. IV)."""

    flip: float = 0.5
    """Probability of a horizontal flip."""
    channel_permutation: float = 0.5
    """Probability that the colour channels change places."""
    colour_jitter: float = 0.0
    """Largest relative change of brightness, of contrast, and half of it of every channel. The
    paper has none; small data sets need it."""
    zoom: float = 1.0
    """Enlarge a random window by up to this, and divide depth by as much; 1: never."""
    erase: float = 0.0
    """Probability that a rectangle of the image is painted over."""
    random_crop: bool = False
    """Crop anywhere (KITTI) instead of at the centre (NYU)."""

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        chances = (self.flip, self.channel_permutation, self.erase)
        if not (min(chances) >= 0 and max(chances) <= 1):
            raise MsfnetError(
                "augmentation.flip, channel_permutation and erase must lie between 0 and 1"
            )
        if not 1 <= self.zoom <= 4:
            raise MsfnetError("augmentation.zoom must lie between 1 and 4")
        if not 0 <= self.colour_jitter < 1:
            raise MsfnetError("augmentation.colour_jitter must be at least 0 and below 1")


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam and its schedule; the defaults are the paper's."""

    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    """Coupled (L2), as in Adam, not AdamW."""
    schedule: Literal["step", "onecycle", "constant"] = "step"
    """``step``: times ``step_factor`` every ``step_epochs``; ``onecycle``: up, then down to 0."""
    step_epochs: int = 5
    step_factor: float = 0.05
    """The paper's "reduced to 5 %"; 0.95 is the other way to read it."""
    warmup_share: float = 0.2
    """``onecycle``: the share of all steps in which the rate rises."""

    def __post_init__(self) -> None:
        """Refuse what Adam or the schedule would."""
        if not (self.learning_rate > 0 and self.weight_decay >= 0 and self.step_factor > 0):
            raise MsfnetError(
                "optimizer.learning_rate and step_factor must be positive, weight_decay 0 or more"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise MsfnetError("optimizer.betas must be at least 0 and below 1")
        if self.step_epochs < 1 or not 0 < self.warmup_share < 1:
            raise MsfnetError(
                "optimizer.step_epochs must be at least 1, warmup_share between 0 and 1"
            )


@dataclass(frozen=True)
class TrainerConfig:
    """How long and on what a run trains."""

    epochs: int = 20
    batch_size: int = 16
    """Pairs per process and step."""
    workers: int = 2
    """Processes that read data; 0 reads in the training process."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    devices: int = 0
    """GPUs (or CPU processes); 0: all GPUs there are, or one CPU process."""
    nodes: int = 1
    sync_batchnorm: bool = False
    """Batch norm over all GPUs' batches instead of each one's own."""
    tf32: bool = False
    """Let 32-bit products use TF32 on GPUs that have it."""
    channels_last: bool = False
    """Keep images and weights as NHWC in memory, which tensor cores prefer."""
    compile: bool = False
    """Compile the network with ``torch.compile``: minutes at the start, faster steps."""
    gradient_clip: float = 0.0
    """Largest gradient norm; 0: no clipping."""
    seed: int = 0
    initial_prediction: float = 0.0
    """What the untrained head answers, in the target's unit; near the median saves light recipes
    many steps. The paper says nothing of it."""
    average_decay: float = 0.0
    """Score and keep an exponential moving average of the weights, with this decay per step;
    0: the weights themselves."""
    validate_every: int = 1
    """Epochs between validations."""

    def __post_init__(self) -> None:
        """Refuse counts that are none."""
        for name in ("epochs", "batch_size", "nodes", "validate_every"):
            if getattr(self, name) < 1:
                raise MsfnetError(f"trainer.{name} must be at least 1")
        if min(self.workers, self.devices, self.gradient_clip) < 0:
            raise MsfnetError("trainer.workers, devices and gradient_clip must not be negative")
        if not 0 <= self.average_decay < 1:
            raise MsfnetError("trainer.average_decay must be at least 0 and below 1")
        if not 0 <= self.seed < 2**32:
            raise MsfnetError("trainer.seed must lie between 0 and 4294967295")
        if self.epochs % self.validate_every:
            raise MsfnetError(
                "trainer.epochs must be a multiple of validate_every, so that the last is scored"
            )


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    name: str
    data: DataConfig
    notes: str = ""
    """What the recipe is for, and the paper's figures to compare with."""
    ablation: str = ""
    """A row of Table III; it decides ``network.usf``, ``network.attention`` and ``loss.batch``."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as :meth:`from_dict` reads them; None where a key was left out."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> Recipe:
        """Build a recipe from the tables of a TOML file.

        ``network.preset`` stands for the keys of one of :data:`PRESETS`; other keys override it.

        Raises:
            MsfnetError: unknown key, preset, wrong type or missing key; the line names ``source``.
        """
        recipe = build(cls, _with_preset(values, source), f"recipe {source}")
        return recipe.ablated(recipe.ablation) if recipe.ablation else recipe

    def ablated(self, row: str) -> Recipe:
        """Return the recipe of one row of Table III.

        Raises:
            MsfnetError: no such row.
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
        spec = ModelSpec(
            graph="network",
            inputs=(),
            outputs=(),
            size=data.inference_size,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            depth_kind=data.depth_kind,
            depth_range_m=data.depth_range_m,
            dataset=data.dataset,
            encoder=self.network.encoder,
            inverse_scale=data.inverse_scale,
            notes={"recipe": self.name, **({"ablation": self.ablation} if self.ablation else {})},
        )
        return at_size(spec, data.inference_size)


def _with_preset(values: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Return the tables with ``network.preset`` replaced by what it stands for."""
    network = values.get("network")
    if not isinstance(network, Mapping) or network.get("preset") is None:
        return values
    own = dict(network)
    name = own.pop("preset")
    if not isinstance(name, str) or name not in PRESETS:
        raise MsfnetError(
            f"unknown network.preset {name!r} in recipe {source}; choose one of "
            f"{', '.join(PRESETS)}"
        )
    return {**values, "network": {**asdict(PRESETS[name]), **own}}


def load_network(settings: Mapping[str, str], source: str) -> NetworkConfig:
    """Return the network that settings describe, ``preset`` among them, others overriding it.

    Args:
        settings: TOML values by field of :class:`NetworkConfig`; a bare word is a string.
        source: where they come from, for messages.

    Raises:
        MsfnetError: unknown field or preset, or a value that does not fit.
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
        outputs=(TensorSpec("prediction", "float32", (1, 1, *half(size))),),
    )


def half(size: tuple[int, int]) -> tuple[int, int]:
    """Return the grid of the prediction for an input (height, width): half, rounded up."""
    return -(-size[0] // 2), -(-size[1] // 2)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with msfnet."""
    folder = resources.files("msfnet_train") / "recipes"
    return sorted(f.name[: -len(".toml")] for f in folder.iterdir() if f.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or from a TOML file.

    Args:
        name_or_path: one of :func:`recipe_names`, or a file ending in ``.toml``.
        overrides: ``table.key=value`` with a TOML value; a bare word is taken as a string.

    Raises:
        MsfnetError: no such recipe, not TOML, or a key or value that does not fit.
    """
    name = str(name_or_path)
    source, text = _read(name)
    values = parse_toml(text, f"recipe {source}")
    for override in overrides:
        _override(values, override)
    return Recipe.from_dict({"name": Path(name).stem, **values}, source)


def _read(name: str) -> tuple[str, str]:
    """Return the recipe's name for messages, and its text."""
    if name in recipe_names():
        return name, (resources.files("msfnet_train") / f"recipes/{name}.toml").read_text("utf-8")
    if not name.endswith(".toml"):
        raise MsfnetError(
            f"unknown recipe {name!r}; choose one of {', '.join(recipe_names())} or a .toml file"
        )
    return name, read_text(name, f"recipe {name}")


def _override(values: dict[str, Any], override: str) -> None:
    """Set one ``table.key=value`` in place."""
    path, equals, text = override.partition("=")
    *tables, key = path.strip().split(".")
    if not equals or not key:
        raise MsfnetError(f"--set {override!r} is not key=value; write e.g. trainer.epochs=5")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise MsfnetError(f"--set {override!r}: {table} is a value, not a table")
    try:
        values[key] = parse_toml(f"value = {text}", override)["value"]
    except MsfnetError:
        values[key] = text.strip()
