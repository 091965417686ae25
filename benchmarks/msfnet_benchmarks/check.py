"""Looks a data set over before anyone trains on it: what is there, what is missing, which unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from msfnet_benchmarks.kitti_samples import mapped_frames, scanned_frames
from msfnet_benchmarks.nyu_samples import nyu_samples
from msfnet_benchmarks.sample import Sample
from msfnet_runtime import MsfnetError
from msfnet_runtime.images import IMAGE_SUFFIXES, read_image
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sources import kitti, nyu

READ_AT_MOST = 64
"""Frames of each list that are opened, spread evenly."""

PLAUSIBLE_MEDIAN_M = (0.2, 60.0)
"""A list whose median depth lies outside was written in another unit than its layout declares."""

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class DepthCheck:
    """The ground truth of the frames that were opened."""

    unit: str
    """Type and unit that the layout declares, in words."""
    range_m: tuple[float, float, float]
    """Smallest, median and largest measured depth, metres."""
    coverage: float
    """Share of the pixels that carry depth."""

    def text(self) -> str:
        """Return the figures in one line."""
        low, median, high = self.range_m
        return (
            f"depth {low:.2f} to {high:.2f} m, median {median:.2f} m, on {self.coverage:.1%} of "
            f"the pixels ({self.unit})"
        )


@dataclass(frozen=True)
class ListCheck:
    """One list of frames, with ground truth or without."""

    name: str
    frames: int
    """Frames of the list that are whole: image and, where the list has it, ground truth."""
    missing: tuple[str, ...]
    """Files that are listed but absent, or frames without a measurement."""
    sizes: tuple[tuple[int, int], ...]
    """(height, width) of the opened images, the most frequent first."""
    opened: int
    """Frames that were read for the figures."""
    depth: DepthCheck | None
    """None where the list carries no ground truth."""

    def text(self) -> str:
        """Return the check in three lines."""
        sizes = ", ".join(f"{height}x{width}" for height, width in self.sizes[:4])
        others = " and others" if len(self.sizes) > 4 else ""
        missing = f", {len(self.missing)} missing ({self.missing[0]})" if self.missing else ""
        depth = self.depth.text() if self.depth else "no ground truth"
        return (
            f"{self.name}: {_count(self.frames, 'frame')}{missing}\n"
            f"  images {sizes}{others} ({self.opened} read)\n"
            f"  {depth}"
        )


@dataclass(frozen=True)
class DataCheck:
    """A data set, list by list."""

    path: Path
    layout: str
    """In words."""
    lists: tuple[ListCheck, ...]

    @property
    def has_ground_truth(self) -> bool:
        """Tell whether any frame can be trained on or scored."""
        return any(checked.depth for checked in self.lists)

    def text(self) -> str:
        """Return the whole check."""
        lines = [f"{self.path}: {self.layout}", *(checked.text() for checked in self.lists)]
        if not self.has_ground_truth:
            lines.append("no ground truth: good to stream and to calibrate, not to train or score")
        return "\n".join(lines)


def check_data(path: Path, *, progress: Progress = silent) -> DataCheck:
    """Check KITTI raw drives, NYU in DenseDepth's layout, or a plain folder of images.

    Args:
        path: a drive, a date, a root of dates, the root of NYU's ``data/``, or a folder of images.
        progress: called after every opened frame.

    Raises:
        MsfnetError: missing folder, none of the layouts, unreadable files, or depth that
            contradicts the unit its layout declares.
    """
    if not path.is_dir():
        raise MsfnetError(f"no folder at {path}; check the path of the data set")
    if _answers(nyu.find_lists, path):
        return _check_nyu(path, progress)
    if _answers(kitti.find_drives, path):
        return _check_kitti(path, progress)
    return _check_images(path, progress)


def _answers(find: Callable[[Path], object], path: Path) -> bool:
    """Tell whether a layout's finder finds it at ``path``."""
    try:
        find(path)
    except MsfnetError:
        return False
    return True


def _check_nyu(path: Path, progress: Progress) -> DataCheck:
    checks = []
    for name in nyu.find_lists(path):
        whole, missing = _split_missing(nyu_samples(path, name))
        if not whole:
            raise MsfnetError(
                f"list {name}: no frame has both of its files ({missing[0]} is missing); "
                "check the path"
            )
        checks.append(_check_samples(f"list {name}", whole, missing, progress))
    return DataCheck(path, "NYU Depth V2 in DenseDepth's layout", tuple(checks))


def _check_kitti(path: Path, progress: Progress) -> DataCheck:
    drives = kitti.find_drives(path)
    images = {drive: kitti.frame_files(drive) for drive in drives}
    checks = []
    for drive, files in images.items():
        scanned = scanned_frames(drive)
        bare = _without(files, scanned)
        if scanned:
            checks.append(_check_samples(f"{drive.name}, velodyne", scanned, bare, progress))
        else:
            checks.append(_check_files(f"{drive.name}, no velodyne", files, progress))
    mapped = mapped_frames(path)
    if mapped:
        bare = _without([file for files in images.values() for file in files], mapped)
        checks.append(_check_samples("improved depth maps", mapped, bare, progress))
    return DataCheck(path, f"KITTI raw, {_count(len(drives), 'drive')}", tuple(checks))


def _check_images(path: Path, progress: Progress) -> DataCheck:
    files = sorted(f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
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
    chosen = _spread(files)
    sizes: Counter[tuple[int, int]] = Counter()
    for done, file in enumerate(chosen, 1):
        height, width, _ = read_image(file).shape
        sizes[height, width] += 1
        progress(done, len(chosen), name)
    return ListCheck(name, len(files), (), _by_frequency(sizes), len(chosen), None)


def _check_samples(
    name: str, samples: Sequence[Sample], missing: Sequence[str], progress: Progress
) -> ListCheck:
    """Check frames that have ground truth; ``samples`` is not empty."""
    chosen = _spread(samples)
    sizes: Counter[tuple[int, int]] = Counter()
    medians, lows, highs, shares = [], [], [], []
    for done, sample in enumerate(chosen, 1):
        height, width, _ = sample.frame().image.shape
        depth = sample.ground_truth((height, width))
        measured = depth[depth > 0]
        if not measured.size:
            raise MsfnetError(f"{sample.depth_path} gives its image no depth; remove the frame")
        sizes[height, width] += 1
        medians.append(np.median(measured))
        lows.append(measured.min())
        highs.append(measured.max())
        shares.append(measured.size / depth.size)
        progress(done, len(chosen), name)
    figures = (float(min(lows)), float(np.median(medians)), float(max(highs)))
    unit = samples[0].unit
    if not PLAUSIBLE_MEDIAN_M[0] < figures[1] < PLAUSIBLE_MEDIAN_M[1]:
        raise MsfnetError(
            f"{name}: read as {unit}, the median depth is {figures[1]:.3g} m; its files are not in "
            "the unit that the layout declares; convert them"
        )
    depth_check = DepthCheck(unit, figures, float(np.mean(shares)))
    return ListCheck(
        name, len(samples), tuple(missing), _by_frequency(sizes), len(chosen), depth_check
    )


def _spread(items: Sequence[_Item]) -> list[_Item]:
    """Return up to :data:`READ_AT_MOST` items, spread evenly."""
    count = min(len(items), READ_AT_MOST)
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, count).round()]


def _by_frequency(sizes: Counter[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple(size for size, _ in sizes.most_common())


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
