"""Finds the pairs a run trains on and validates on, and checks them before the first step."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msfnet_datasets.bad_data import BadSample, find_bad
from msfnet_datasets.layout import ALL
from msfnet_datasets.layouts import LAYOUTS, open_dataset
from msfnet_datasets.sample import Sample, hold_out, spread
from msfnet_runtime import MsfnetError
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.typed import read_json, write_json
from msfnet_train.recipe import DataConfig

RECORD = "data.json"
"""The record of a run's data, in its folder."""

_FILES_IN_WORDS = 3
"""An error names at most this many bad files; the record names all."""


@dataclass(frozen=True)
class Split:
    """The samples of a run."""

    train: Sequence[Sample]
    validation: Sequence[Sample]
    without_ground_truth: int = 0
    """Entries of the lists that say themselves that they have none; they are left out."""
    skipped: int = 0
    """Bad samples that were left out."""

    def fingerprint(self) -> dict[str, Any]:
        """Return the counts, and a SHA-256 over the names and file sizes of all samples.

        It tells one data set from another and from itself with files missing or exchanged; it
        does not read the files.
        """
        digest = hashlib.sha256()
        for samples in (self.train, self.validation):
            for sample in samples:
                sizes = [_size_and_time(path)[0] for path in (sample.image_path, sample.depth_path)]
                digest.update(f"{sample.name} {sizes}\n".encode())
            digest.update(b"\n")
        return {
            "train": len(self.train),
            "validation": len(self.validation),
            "sha256": digest.hexdigest(),
        }

    def reading(self) -> str:
        """Return a SHA-256 over what decides how the samples are read.

        These are the declarations, such as how depth is stored and the camera, and the names,
        sizes and times of change of all files.
        """
        digest = hashlib.sha256()
        for sample in (*self.train, *self.validation):
            files = [_size_and_time(path) for path in (sample.image_path, sample.depth_path)]
            digest.update(pickle.dumps((sample, files)))
        return digest.hexdigest()


def _size_and_time(path: Path) -> tuple[int, int]:
    """Return a file's size in bytes and its time of change in ns; -1 when it is absent."""
    if not path.is_file():
        return -1, -1
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def open_split(config: DataConfig, path: Path) -> Split:
    """Find the training and the validation samples of a data set.

    Raises:
        MsfnetError: missing folder, another layout, or nothing to train or validate on.
    """
    named = (config.train_list, config.validation_list) if config.train_list else None
    lists = named or LAYOUTS[config.layout].training_lists(path)
    if lists is None:
        opened = [open_dataset(path, config.layout, ALL, depth=config.train_depth)]
        train, validation = hold_out(opened[0], config.validation_share)
    else:
        storages = config.train_depth, config.validation_depth
        opened = [
            open_dataset(path, config.layout, name, depth=storage)
            for name, storage in zip(lists, storages, strict=True)
        ]
        train, validation = (list(samples) for samples in opened)
    if not (train and validation):
        raise MsfnetError(f"{path} has too few pairs to hold some out; at least two are needed")
    return Split(
        spread(train, config.max_train or None),
        spread(validation, config.max_validation or None),
        sum(len(samples.without_ground_truth) for samples in opened),
    )


@dataclass(frozen=True)
class _Record:
    """The record of the check of a run's data."""

    data: Mapping[str, Any]
    """See :meth:`Split.fingerprint`."""
    without_ground_truth: int
    bad: tuple[BadSample, ...]
    reading: str = ""
    """See :meth:`Split.reading`; empty in records of earlier versions."""


def check_split(
    split: Split,
    folder: Path,
    *,
    skip_bad: bool = False,
    just_checked: bool = False,
    progress: Progress = silent,
) -> Split:
    """Open every file once, so that none stops the run later; write what was found.

    A record in ``folder`` of good files that are read in the same way and have not changed is used
    instead of opening them again: a resumed run starts at once. Where some were bad, all are opened
    again, as what was wrong may lie in other files.

    Args:
        split: what was found.
        folder: of the run; ``data.json`` there is the record.
        skip_bad: leave bad samples out instead of refusing them.
        just_checked: another process of this run has just written the record: use it, bad samples
            and all.
        progress: called after every sample.

    Returns:
        The split without its bad samples.

    Raises:
        MsfnetError: there are bad samples and they are not to be skipped, or too few are left.
    """
    reading = split.reading()
    bad = _read_record(folder / RECORD, reading)
    if bad is None or (bad and not just_checked):
        samples = [*split.train, *split.validation]
        bad = tuple(find_bad(samples, progress=progress))
        record = _Record(split.fingerprint(), split.without_ground_truth, bad, reading)
        write_json(folder / RECORD, record)
    if bad and not skip_bad:
        raise MsfnetError(
            f"{len(bad)} of {len(split.train) + len(split.validation)} samples are bad, "
            f"for example {'; '.join(b.reason for b in bad[:_FILES_IN_WORDS])}; repair them, or "
            f"skip all bad samples ({folder / RECORD} names them)",
            parameter="skip_bad",
        )
    names = {b.name for b in bad}
    train, validation = (
        [sample for sample in samples if sample.name not in names]
        for samples in (split.train, split.validation)
    )
    if not (train and validation):
        raise MsfnetError("no good pair is left to train or to validate on; check the data set")
    return replace(split, train=train, validation=validation, skipped=len(bad))


def _read_record(path: Path, reading: str) -> tuple[BadSample, ...] | None:
    """Return the bad samples of a record of these very files; None where there is none."""
    try:
        record = read_json(path, _Record)
    except MsfnetError:
        return None
    return record.bad if record.reading == reading else None
