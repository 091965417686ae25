"""Looks a data set over before anyone trains on it: what is there, what is missing, which unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msfnet_benchmarks.samples import (
    Sample,
    kitti_improved_samples,
    kitti_raw_samples,
    nyu_samples,
)
from msfnet_runtime import MsfnetError
from msfnet_runtime.progress import Progress, silent
from msfnet_runtime.sources import kitti, nyu

READ_AT_MOST = 64
"""Pairs of each list that are opened, spread evenly."""

PLAUSIBLE_MEDIAN_M = (0.2, 60.0)
"""A list whose median depth lies outside was written in another unit than its layout declares."""


@dataclass(frozen=True)
class ListCheck:
    """One list of frames with ground truth."""

    name: str
    frames: int
    """Pairs in the list whose files are both there."""
    missing: tuple[str, ...]
    """Files that are listed but absent, or frames without a measurement."""
    sizes: tuple[tuple[int, int], ...]
    """(height, width) of the opened images, the most frequent first."""
    opened: int
    """Pairs that were read for the figures below."""
    depth_m: tuple[float, float, float]
    """Smallest, median and largest measured depth, metres."""
    coverage: float
    """Share of the pixels that carry depth."""

    def text(self) -> str:
        """Return the check in three lines."""
        low, median, high = self.depth_m
        sizes = ", ".join(f"{height}x{width}" for height, width in self.sizes[:4])
        missing = f", {len(self.missing)} missing ({self.missing[0]})" if self.missing else ""
        return (
            f"{self.name}: {self.frames} frames{missing}\n"
            f"  images {sizes}{' and others' if len(self.sizes) > 4 else ''}\n"
            f"  depth {low:.2f} to {high:.2f} m, median {median:.2f} m, on {self.coverage:.1%} of "
            f"the pixels ({self.opened} frames read)"
        )


@dataclass(frozen=True)
class DataCheck:
    """A data set, list by list."""

    path: Path
    layout: str
    """In words."""
    lists: tuple[ListCheck, ...]

    def text(self) -> str:
        """Return the whole check."""
        return "\n".join(
            [f"{self.path}: {self.layout}", *(checked.text() for checked in self.lists)]
        )


def check_data(path: Path, *, progress: Progress = silent) -> DataCheck:
    """Check KITTI raw drives or NYU in DenseDepth's layout.

    Args:
        path: a drive, a date, a root of dates, or the root of NYU's ``data/``.
        progress: called after every opened frame.

    Raises:
        MsfnetError: missing folder, neither layout, unreadable files, or depth that contradicts
            the unit its layout declares.
    """
    if not path.is_dir():
        raise MsfnetError(f"no folder at {path}; check the path of the data set")
    try:
        lists = nyu.find_lists(path)
    except MsfnetError:
        return _check_kitti(path, progress)
    checks = []
    for name in lists:
        samples = nyu_samples(path, name)
        whole, missing = _split_missing(samples)
        checks.append(_check_list(f"list {name}", whole, missing, progress))
    return DataCheck(path, "NYU Depth V2 in DenseDepth's layout", tuple(checks))


def _check_kitti(path: Path, progress: Progress) -> DataCheck:
    try:
        drives = kitti.find_drives(path)
    except MsfnetError:
        raise MsfnetError(
            f"{path} holds neither KITTI drives (DATE/DRIVE/image_02/data) nor NYU lists "
            "(data/nyu2_*.csv); check the path"
        ) from None
    checks = []
    for drive in drives:
        scanned = kitti_raw_samples(drive)
        measured = {sample.image_path for sample in scanned}
        bare = [str(f) for f in kitti.frame_files(drive) if f not in measured]
        checks.append(_check_list(f"{drive.name}, velodyne", scanned, bare, progress))
    try:
        improved = kitti_improved_samples(path)
    except MsfnetError:
        improved = []
    if improved:
        checks.append(_check_list("improved depth maps", improved, [], progress))
    return DataCheck(path, f"KITTI raw, {len(drives)} drives", tuple(checks))


def _split_missing(samples: Sequence[Sample]) -> tuple[list[Sample], list[str]]:
    missing = [
        str(path)
        for sample in samples
        for path in (sample.image_path, sample.depth_path)
        if not path.is_file()
    ]
    absent = set(missing)
    whole = [s for s in samples if not absent & {str(s.image_path), str(s.depth_path)}]
    return whole, missing


def _check_list(
    name: str, samples: Sequence[Sample], missing: Sequence[str], progress: Progress
) -> ListCheck:
    if not samples:
        raise MsfnetError(f"{name}: no frame has both of its files ({missing[0]}); check the path")
    count = min(len(samples), READ_AT_MOST)
    chosen = [samples[int(i)] for i in np.linspace(0, len(samples) - 1, count).round()]
    sizes: Counter[tuple[int, int]] = Counter()
    medians, lows, highs, shares = [], [], [], []
    for done, sample in enumerate(chosen, 1):
        image = sample.frame().image
        size = image.shape[0], image.shape[1]
        depth = sample.ground_truth(size)
        measured = depth[depth > 0]
        if not measured.size:
            raise MsfnetError(f"{sample.depth_path} gives its image no depth; remove the frame")
        sizes[size] += 1
        medians.append(np.median(measured))
        lows.append(measured.min())
        highs.append(measured.max())
        shares.append(measured.size / depth.size)
        progress(done, count, name)
    median = float(np.median(medians))
    if not PLAUSIBLE_MEDIAN_M[0] < median < PLAUSIBLE_MEDIAN_M[1]:
        raise MsfnetError(
            f"{name}: the median depth is {median:.3g} m, so its files are not in the unit the "
            "layout declares; convert them"
        )
    return ListCheck(
        name=name,
        frames=len(samples),
        missing=tuple(missing),
        sizes=tuple(size for size, _ in sizes.most_common()),
        opened=count,
        depth_m=(float(min(lows)), median, float(max(highs))),
        coverage=float(np.mean(shares)),
    )
