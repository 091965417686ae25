"""Depth maps that any program wrote as 16-bit PNG, scored as a model's predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import numpy as np

from msfnet_benchmarks.scoring.accuracy import read_sample
from msfnet_benchmarks.scoring.protocols import Protocol
from msfnet_datasets.ground_truth import read_depth
from msfnet_datasets.sample import Sample
from msfnet_runtime import DepthMap, Frame, MsfnetError
from msfnet_runtime.depth_storage import ENCODINGS, DepthEncoding, PngStorage
from msfnet_runtime.sinks.folder import MANIFEST
from msfnet_runtime.typed import parse_json, read_text
from msfnet_runtime.words import counted

_WRONG_UNIT = float(np.log(2))
"""Depth that is off by this much in every frame, as a logarithm, is of another unit."""


class PredictionFolder:
    """Returns stored depth for frames, from PNG files named after the samples, 0 = no depth.

    ``FOLDER/DRIVE/0000000005.png`` belongs to the sample ``DRIVE/0000000005``; so does
    ``FOLDER/0000000005.png`` where no other sample of the list has that last part. A map has the
    size of the whole frame or of what the protocol shows of it.
    """

    def __init__(
        self,
        folder: Path,
        samples: Sequence[Sample],
        protocol: Protocol,
        unit: PngStorage | None = None,
        *,
        among: Sequence[Sample] = (),
    ) -> None:
        """Find every sample's map.

        Args:
            folder: of the maps.
            samples: the samples that will be scored.
            protocol: the protocol they are scored under.
            unit: how the maps are stored; None: the folder's ``manifest.jsonl`` says it.
            among: the whole list that the samples were chosen from; a map may be of any of it.

        Raises:
            MsfnetError: no such folder, samples without a map, a map that could be of several
                samples, or an undeclared unit.
        """
        if not folder.is_dir():
            raise MsfnetError(f"{folder} is not a folder; name a folder of 16-bit PNG files")
        counts = _counts_per_metre(folder, unit)
        scale = "millimetres" if counts == 1000 else f"{counts:g} = 1 m"
        self._encoding = DepthEncoding("uint16", counts, scale)
        self._declared = unit
        self._protocol = protocol
        self._files = _match(
            folder, [sample.name for sample in samples], [s.name for s in among or samples]
        )

    def __call__(self, frame: Frame) -> DepthMap:
        """Return the map of a sample's frame.

        Raises:
            MsfnetError: unreadable, not 16 bits, without any depth, or of another size.
        """
        path = self._files[frame.name]
        depth = read_depth(path, self._encoding)
        size = frame.image.shape[:2]
        if depth.shape != size:
            try:
                depth = self._protocol.prepare_depth(depth)
            except MsfnetError:
                depth = np.zeros((0, 0), np.float32)
        if depth.shape != size:
            raise MsfnetError(
                f"{path} has another size than frame {frame.name}: neither the whole frame's nor "
                f"the {size[0]}x{size[1]} that {self._protocol.name} shows"
            )
        return DepthMap(depth, depth > 0, frame.index)

    @property
    def storage(self) -> str:
        """How the maps are stored, as text."""
        return f"stored depth, {self._encoding.text()}"

    def check_unit(self, samples: Sequence[Sample]) -> None:
        """Refuse a declared unit that contradicts the ground truth of some samples.

        Raises:
            MsfnetError: in every sample the median ratio of stored depth to ground truth is 2 or
                more, or in every sample 1/2 or less: no model is so far off, but a unit is.
        """
        if self._declared is None or not samples:
            return
        logs = [float(np.log(self._ratio(sample))) for sample in samples]
        if not (min(logs) >= _WRONG_UNIT or max(logs) <= -_WRONG_UNIT):
            return
        ratio = float(np.exp(np.median(logs)))
        offs = {unit: abs(np.log(ratio * self._times(unit))) for unit in get_args(PngStorage)}
        likely = min(offs, key=lambda unit: offs[unit])
        hint = f"it is not stored as {self._declared}"
        if offs[likely] < _WRONG_UNIT:
            hint = f"its unit looks like {likely}, not {self._declared}"
        raise MsfnetError(
            f"{self._files[samples[0].name]} is {np.exp(logs[0]):.2f} times as deep as its ground "
            f"truth, and {counted(len(logs) - 1, 'other map')} alike; {hint}",
            parameter="prediction_unit",
        )

    def _times(self, unit: PngStorage) -> float:
        """Return by what the stored depth would change if it were of another unit."""
        return self._encoding.counts_per_metre / ENCODINGS[unit].counts_per_metre

    def _ratio(self, sample: Sample) -> float:
        """Return the median ratio of stored depth to ground truth; 1 where they share no pixel."""
        frame, ground_truth = read_sample(sample, self._protocol)
        predicted = self(frame)
        whole = self._protocol.restore(
            np.where(predicted.valid, predicted.values, np.float32(np.nan)),
            (ground_truth.shape[0], ground_truth.shape[1]),
        )
        both = self._protocol.valid(ground_truth) & (whole > 0)
        return float(np.median(whole[both] / ground_truth[both])) if both.any() else 1.0


def _counts(unit: PngStorage) -> float:
    return ENCODINGS[unit].counts_per_metre


def _counts_per_metre(folder: Path, unit: PngStorage | None) -> float:
    """Return the declared unit; a manifest and a caller must not contradict each other."""
    stated = _manifest_counts(folder / MANIFEST)
    if unit is None and stated is None:
        raise MsfnetError(
            f"{folder} has no {MANIFEST} that says its unit; name the unit of the predictions: "
            f"{' or '.join(get_args(PngStorage))}",
            parameter="prediction_unit",
        )
    if unit is not None and stated is not None and _counts(unit) != stated:
        raise MsfnetError(
            f"{folder / MANIFEST} says {stated} counts per metre, the unit {unit} "
            f"{_counts(unit):g}; leave the unit out"
        )
    return _counts(unit) if unit is not None else float(stated or 0)


def _manifest_counts(path: Path) -> int | None:
    """Return the counts per metre of a manifest, as ``msfnet stream`` writes it."""
    if not path.is_file():
        return None
    try:
        head = read_text(path).partition("\n")[0]
        counts = parse_json(head, dict[str, Any], str(path))["counts_per_metre"]
    except (MsfnetError, KeyError):
        raise MsfnetError(f"{path} does not say counts_per_metre; correct or remove it") from None
    if not isinstance(counts, int) or counts < 1:
        raise MsfnetError(f"{path} says {counts!r} counts per metre; correct or remove it")
    return counts


def _match(folder: Path, names: Sequence[str], listed: Sequence[str]) -> dict[str, Path]:
    """Return each sample's file.

    Raises:
        MsfnetError: a sample has none, or only one that could be of another of the list as well.
    """
    known = Counter(PurePosixPath(name).name for name in listed)
    files: dict[str, Path] = {}
    missing = []
    for name in names:
        own, bare = folder / f"{name}.png", folder / f"{PurePosixPath(name).name}.png"
        shared = known[PurePosixPath(name).name]
        if own.is_file():
            files[name] = own
        elif shared > 1 and bare.is_file():
            raise MsfnetError(
                f"{bare} could be of {shared} frames of the list; name it {name}.png if it is of "
                "that one, as `msfnet stream` names the maps of a list"
            )
        elif bare.is_file():
            files[name] = bare
        else:
            missing.append(own if shared > 1 else bare)
    if missing:
        raise MsfnetError(
            f"{folder} lacks {len(missing)} of {len(names)} depth maps, the first is "
            f"{missing[0]}; write them, or score fewer frames",
            parameter="frames",
        )
    return files
