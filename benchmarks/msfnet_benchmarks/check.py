"""Looks a data set over before anyone trains on it: what is there, what is missing, which unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from msfnet_benchmarks.bad_data import find_bad
from msfnet_benchmarks.check_report import (
    BIN_EDGES_M,
    DataCheck,
    DepthCheck,
    ListCheck,
    counted,
)
from msfnet_benchmarks.ground_truth import DepthStorage
from msfnet_benchmarks.kitti_samples import mapped_frames, scanned_frames
from msfnet_benchmarks.nyu_samples import is_labelled
from msfnet_benchmarks.sample import Sample, SampleList
from msfnet_benchmarks.samples import Layout, open_list
from msfnet_runtime import MsfnetError
from msfnet_runtime.images import IMAGE_SUFFIXES, read_image
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sources import kitti, nyu

READ_AT_MOST = 64
"""Frames of each list that are opened, spread evenly."""

SHOWN_AT_MOST = 12
"""Frames of each list that a contact sheet shows."""

PLAUSIBLE_MEDIAN_M = (0.2, 60.0)
"""A list whose median depth lies outside was written in another unit than its layout declares."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class _Look:
    """How a data set is looked at."""

    every: bool
    progress: Progress


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
        path: a drive, a date, a root of dates, the root of NYU's ``data/``, NYU's labelled set,
            the root of BTS's folders, or a folder of images.
        layout: with ``name`` and ``depth`` as in :func:`msfnet_benchmarks.samples.open_list`;
            found out if left out.
        name: one list; all that there are if left out.
        depth: how its depth is stored.
        every: open every file and collect what is bad, instead of up to :data:`READ_AT_MOST`
            frames of each list.
        progress: called after every opened frame.

    Raises:
        MsfnetError: missing folder, none of the layouts, depth that contradicts the declared
            unit, or, but for ``every``, unreadable files.
    """
    if not path.exists():
        raise MsfnetError(f"no data at {path}; check the path of the data set")
    look = _Look(every, progress)
    found = layout or _find_layout(path, name)
    if found == "nyu" and not name:
        lists = {f"list {n}": open_list(path, "nyu", n, depth) for n in nyu.find_lists(path)}
        return _check_lists(path, found, lists, look)
    if found == "kitti" and not (name or depth):
        return _check_drives(path, look)
    if found is not None:
        title = f"list {Path(name).name}" if name else "all frames"
        return _check_lists(path, found, {title: open_list(path, found, name, depth)}, look)
    return _check_images(path, progress)


def _find_layout(path: Path, name: str) -> Layout | None:
    """Tell in which layout a data set lies; None for none of them."""
    if is_labelled(path):
        return "nyu_labelled"
    if _answers(nyu.find_lists, path):
        return "nyu"
    if _answers(kitti.find_drives, path):
        return "kitti"
    return "nyu_sync" if name else None


def _answers(find: Callable[[Path], object], path: Path) -> bool:
    """Tell whether a layout's finder finds it at ``path``."""
    try:
        find(path)
    except MsfnetError:
        return False
    return True


_LAYOUTS: Mapping[Layout, str] = MappingProxyType(
    {
        "nyu": "NYU Depth V2 in DenseDepth's layout",
        "nyu_labelled": "NYU Depth V2, labelled set",
        "nyu_sync": "NYU Depth V2 in BTS's folders",
        "kitti": "KITTI raw",
    }
)


def _check_lists(
    path: Path, layout: Layout, lists: Mapping[str, SampleList], look: _Look
) -> DataCheck:
    checks = []
    for title, samples in lists.items():
        whole, missing = _split_missing(samples)
        if not whole:
            raise MsfnetError(
                f"{title}: no frame has both of its files ({missing[0]} is missing); check the path"
            )
        checked = _check_samples(title, whole, missing, look)
        checks.append(replace(checked, without_ground_truth=len(samples.without_ground_truth)))
    return DataCheck(path, _LAYOUTS[layout], tuple(checks))


def _check_drives(path: Path, look: _Look) -> DataCheck:
    drives = kitti.find_drives(path)
    images = {drive: kitti.frame_files(drive) for drive in drives}
    checks = []
    for drive, files in images.items():
        scanned = scanned_frames(drive)
        bare = _without(files, scanned)
        if scanned:
            checks.append(_check_samples(f"{drive.name}, velodyne", scanned, bare, look))
        else:
            checks.append(_check_files(f"{drive.name}, no velodyne", files, look.progress))
    mapped = mapped_frames(path)
    if mapped:
        bare = _without([file for files in images.values() for file in files], mapped)
        checks.append(_check_samples("improved depth maps", mapped, bare, look))
    return DataCheck(path, f"KITTI raw, {counted(len(drives), 'drive')}", tuple(checks))


def _check_images(path: Path, progress: Progress) -> DataCheck:
    files = sorted(f for f in path.glob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise MsfnetError(
            f"{path} holds neither KITTI drives (DATE/DRIVE/image_02/data) nor NYU lists "
            "(data/nyu2_*.csv) nor images; check the path"
        )
    return DataCheck(path, "a folder of images", (_check_files("images", files, progress),))


def _without(files: Sequence[Path], samples: Sequence[Sample]) -> list[str]:
    """Return the images that no sample has."""
    measured = {sample.image_path for sample in samples}
    return [str(file) for file in files if file not in measured]


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


def _check_files(name: str, files: Sequence[Path], progress: Progress) -> ListCheck:
    """Check images that have no ground truth."""
    chosen = _spread(files, READ_AT_MOST)
    sizes: Counter[tuple[int, int]] = Counter()
    for done, file in enumerate(chosen, 1):
        height, width, _ = read_image(file).shape
        sizes[height, width] += 1
        progress(done, len(chosen), name)
    return ListCheck(name, len(files), (), _by_frequency(sizes), len(chosen), None)


def _check_samples(
    name: str, samples: Sequence[Sample], missing: Sequence[str], look: _Look
) -> ListCheck:
    """Check frames that have ground truth; ``samples`` is not empty."""
    bad = find_bad(samples, progress=look.progress) if look.every else []
    names = {sample.name for sample in bad}
    good = [sample for sample in samples if sample.name not in names]
    if not good:
        raise MsfnetError(f"{name}: every frame is bad, e.g. {bad[0].reason}")
    chosen = good if look.every else _spread(good, READ_AT_MOST)
    sizes: Counter[tuple[int, int]] = Counter()
    figures = _DepthFigures()
    for done, sample in enumerate(chosen, 1):
        height, width, _ = sample.frame().image.shape
        figures.add(sample, sample.ground_truth((height, width)))
        sizes[height, width] += 1
        look.progress(done, len(chosen), name)
    return ListCheck(
        name,
        len(good),
        tuple(missing),
        _by_frequency(sizes),
        len(chosen),
        figures.check(name, samples[0].unit),
        bad=tuple(bad),
        shown=tuple(_spread(good, SHOWN_AT_MOST)),
    )


class _DepthFigures:
    """Collects range, median, coverage and histogram of depth maps, one at a time."""

    def __init__(self) -> None:
        self._medians: list[float] = []
        self._range = (np.inf, 0.0)
        self._pixels = 0
        self._counts = np.zeros(len(BIN_EDGES_M) - 1, np.int64)

    def add(self, sample: Sample, depth: NDArray[np.float32]) -> None:
        """Count one map."""
        measured = depth[depth > 0]
        if not measured.size:
            raise MsfnetError(f"{sample.depth_path} gives its image no depth; remove the frame")
        self._medians.append(float(np.median(measured)))
        low, high = self._range
        self._range = min(low, float(measured.min())), max(high, float(measured.max()))
        self._pixels += depth.size
        self._counts += np.histogram(measured, BIN_EDGES_M)[0]

    def check(self, name: str, unit: str) -> DepthCheck:
        """Return the figures.

        Raises:
            MsfnetError: the median is implausible in the declared unit.
        """
        median = float(np.median(self._medians))
        if not PLAUSIBLE_MEDIAN_M[0] < median < PLAUSIBLE_MEDIAN_M[1]:
            raise MsfnetError(
                f"{name}: read as {unit}, the median depth is {median:.3g} m; its files are not "
                "in the unit that the layout declares; convert them"
            )
        total = int(self._counts.sum())
        return DepthCheck(
            unit,
            (self._range[0], median, self._range[1]),
            total / self._pixels,
            tuple(float(count / total) for count in self._counts),
        )


def _spread(items: Sequence[_Item], most: int) -> list[_Item]:
    """Return up to ``most`` items, spread evenly."""
    count = min(len(items), most)
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, count).round()]


def _by_frequency(sizes: Counter[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple(size for size, _ in sizes.most_common())
