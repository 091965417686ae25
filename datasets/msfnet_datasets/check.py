"""Checks a data set before it is trained on: what it holds, what is missing, its unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from msfnet_datasets.bad_data import BadSample, open_all
from msfnet_datasets.check_report import DataCheck, ListCheck, figures_of, summarise
from msfnet_datasets.layout import Part
from msfnet_datasets.layouts import LAYOUTS, Layout, find_layout, recognise
from msfnet_datasets.sample import Sample, spread
from msfnet_runtime import MsfnetError
from msfnet_runtime.depth_storage import DepthStorage
from msfnet_runtime.images import IMAGE_SUFFIXES, read_image
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.words import counted

READ_AT_MOST = 64
"""Frames of each list that are opened, spread evenly."""

SHOWN_AT_MOST = 12
"""Frames of each list that a contact sheet shows."""


def check_data(
    path: Path,
    *,
    layout: Layout | None = None,
    name: str = "",
    depth: DepthStorage | None = None,
    every: bool = False,
    progress: Progress = silent,
) -> DataCheck:
    """Check a data set: everything at ``path``, or one list of it.

    Args:
        path: any data set that :func:`~msfnet_datasets.open_dataset` opens, or a folder of images.
        layout: how the data lies; recognised if None.
        name: one list; all that there are if left out.
        depth: how its depth is stored; None: as the layout has it.
        every: open every file and collect what is bad, instead of up to :data:`READ_AT_MOST`
            frames of each list.
        progress: called after every opened frame.

    Raises:
        MsfnetError: missing folder, none of the layouts, depth that contradicts the declared
            unit, or, but for ``every``, unreadable files.
    """
    if not path.exists():
        raise MsfnetError(f"no data at {path}; check the path of the data set")
    chosen = LAYOUTS[layout] if layout else recognise(path, name)
    if chosen is None:
        files = sorted(f for f in path.glob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        if not files or name:
            find_layout(path, name)
        checked = _check_files("images", files, every, progress)
        return DataCheck(path, "a folder of images", (checked,))
    chosen.kind(depth)
    parts = [_check_part(part, every, progress) for part in chosen.parts(path, name or None, depth)]
    far = max((part.depth.share_beyond_10_m for part in parts if part.depth), default=0.0)
    protocol = chosen.usual_protocol(far)
    return DataCheck(path, chosen.describe(path), tuple(parts), protocol)


def _check_part(part: Part, every: bool, progress: Progress) -> ListCheck:
    """Check one part; images without ground truth are counted beside those that have some."""
    samples = part.samples
    if not samples and part.unmeasured:
        return _check_files(part.title, part.unmeasured, every, progress)
    if not samples:
        raise MsfnetError(f"{part.title}: every frame is declared to have no ground truth")
    whole, missing = _split_missing(samples)
    if not whole:
        raise MsfnetError(
            f"{part.title}: none of {counted(len(samples), 'frame')} has both of its files "
            f"({missing[0]} is missing); check the path"
        )
    return replace(
        _check_samples(part.title, whole, every, progress),
        listed=len(samples) + len(part.unmeasured),
        missing=tuple(missing),
        unmeasured=tuple(str(file) for file in part.unmeasured),
        without_ground_truth=len(samples.without_ground_truth),
    )


def _split_missing(samples: Sequence[Sample]) -> tuple[list[Sample], list[str]]:
    """Return the samples whose files are both there, and the files that are absent."""
    missing = [
        str(path)
        for sample in samples
        for path in (sample.image_path, sample.depth_path)
        if not path.is_file()
    ]
    absent = set(missing)
    whole = [s for s in samples if not absent & {str(s.image_path), str(s.depth_path)}]
    return whole, missing


def _check_files(name: str, files: Sequence[Path], every: bool, progress: Progress) -> ListCheck:
    """Check images that have no ground truth; ``files`` is not empty."""
    chosen = files if every else spread(files, READ_AT_MOST)
    sizes: Counter[tuple[int, int]] = Counter()
    bad: list[BadSample] = []
    for done, file in enumerate(chosen, 1):
        try:
            height, width, _ = read_image(file).shape
            sizes[height, width] += 1
        except MsfnetError as error:
            bad.append(BadSample(file.stem, file, str(error)))
        progress(done, len(chosen), name)
    _refuse(name, bad, len(chosen), every)
    return ListCheck(
        name,
        len(files) - len(bad),
        len(files),
        _by_frequency(sizes),
        opened=len(chosen) - len(bad),
        depth=None,
        bad=tuple(bad),
    )


def _refuse(name: str, bad: Sequence[BadSample], opened: int, every: bool) -> None:
    """Raise if there are bad ones, unless every file was opened and some are good."""
    if bad and not (every and len(bad) < opened):
        raise MsfnetError(
            f"{name}: {len(bad)} of {counted(opened, 'opened frame')} cannot be used, for example "
            f"{bad[0].reason}"
        )


def _check_samples(
    name: str, samples: Sequence[Sample], every: bool, progress: Progress
) -> ListCheck:
    """Check frames that have ground truth; ``samples`` is not empty."""
    chosen = samples if every else spread(samples, READ_AT_MOST)
    opened = open_all(chosen, figures_of, progress=progress)
    bad = [found for found in opened if isinstance(found, BadSample)]
    good = [(s, f) for s, f in zip(chosen, opened, strict=True) if not isinstance(f, BadSample)]
    _refuse(name, bad, len(chosen), every)
    frames = [figures for _, figures in good]
    return ListCheck(
        name,
        len(samples) - len(bad),
        len(samples),
        _by_frequency(Counter(frame.size for frame in frames)),
        len(frames),
        summarise(frames, samples[0].unit),
        bad=tuple(bad),
        shown=tuple(spread([sample for sample, _ in good], SHOWN_AT_MOST)),
    )


def _by_frequency(sizes: Counter[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple(size for size, _ in sizes.most_common())
