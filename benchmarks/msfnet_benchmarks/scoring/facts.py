"""What was scored, and on what; and what makes a score mean less than it seems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from msfnet_benchmarks.scoring.protocols import Protocol
from msfnet_datasets.layout import ALL
from msfnet_datasets.layouts import find_layout
from msfnet_datasets.sample import Sample
from msfnet_runtime import ModelSpec
from msfnet_runtime.files import sha256
from msfnet_runtime.words import counted

_SHOWN_DIGITS = 12
"""Digits of a hash in text; the JSON has all."""

_FAR_APART = 2.0
"""Ranges of a model and a protocol whose ends differ by more than this factor are said."""


@dataclass(frozen=True)
class ModelFacts:
    """What was scored."""

    path: str
    """The model's file, or the folder of stored depth."""
    precision: str
    """The model's precision, or how the depth is stored."""
    sha256: str | None
    """Of the file's bytes; None for a folder."""

    @classmethod
    def of(cls, path: Path, precision: str) -> ModelFacts:
        """Return the facts of a file or a folder."""
        return cls(str(path), precision, sha256(path) if path.is_file() else None)

    def text(self) -> str:
        """Return them in a line."""
        digest = f", sha256 {self.sha256[:_SHOWN_DIGITS]}" if self.sha256 else ""
        return f"{self.path} ({self.precision}{digest})"


@dataclass(frozen=True)
class DataFacts:
    """What it was scored on."""

    path: str
    """Where the data set lies."""
    layout: str
    """The kind of data set."""
    split: str
    """The list, by its name or its file; ``all``: every frame."""
    listed: int
    """Frames of the list that have ground truth, of which all or some were scored."""
    training: int
    """How many of the scored frames the data set's training list has, too."""

    def text(self) -> str:
        """Return them in a line."""
        chosen = "every frame" if self.split == ALL else f"list {self.split}"
        return f"{self.path} (layout {self.layout}), {chosen}: {counted(self.listed, 'frame')}"


def data_facts(
    path: Path, split: str | None, protocol: Protocol, listed: int, scored: Sequence[Sample]
) -> DataFacts:
    """Return the facts of a data set that was opened for a protocol.

    Args:
        path: where it lies.
        split: the list that was asked for; None: the data set's own choice.
        protocol: what it is scored under.
        listed: the frames that were found.
        scored: those of them that are scored.

    Raises:
        MsfnetError: the data set's training list cannot be read.
    """
    layout = find_layout(path, split, protocol.ground_truth)
    usual = layout.usual_split(path)
    lists = layout.training_lists(path)
    training = lists[0] if lists else layout.calibration_split(path)
    chosen = split or usual
    shared = 0
    if chosen == training or (training is None and "train" in Path(chosen).stem.lower()):
        shared = len(scored)
    elif training and chosen not in (usual, *(lists or ())):
        trained = layout.open(path, training, None, layout.kind(None, protocol.ground_truth))
        known = {_key(sample) for sample in trained}
        shared = sum(_key(sample) in known for sample in scored)
    return DataFacts(str(path), layout.name, chosen, listed, shared)


def _key(sample: Sample) -> tuple[Path, str]:
    """Return what tells a frame from others, whatever list it was read from."""
    return sample.image_path, sample.name if sample.image_reader else ""


def scoring_warnings(
    data: DataFacts, images: int, protocol: Protocol, spec: ModelSpec | None
) -> Iterator[str]:
    """Yield what makes a score mean less than it seems.

    Args:
        data: what was scored on.
        images: how many images were scored.
        protocol: by which protocol.
        spec: the model's; None: stored depth, whose model is unknown.
    """
    if data.training:
        frames = f"{data.training} of {counted(images, 'scored frame')}"
        yield (
            f"{frames} {'is' if data.training == 1 else 'are'} from a training list: a model that "
            "was trained on them scores better here than on new pictures"
        )
    if spec is None:
        return
    model, scored = spec.depth_range_m[1], protocol.bins_m[-1]
    if model * _FAR_APART < scored:
        yield (
            f"the depth of this model ends at {model:g} m, and {protocol.name} scores depth up to "
            f"{scored:g} m: it was made for nearer scenes, and depth beyond its end is always wrong"
        )
    elif model > scored * _FAR_APART:
        yield (
            f"the depth of this model goes up to {model:g} m, and {protocol.name} is for depth up "
            f"to {scored:g} m: it was made for other scenes"
        )
