"""The result of a data set's check: figures of its depth, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msfnet_datasets.bad_data import BadSample
from msfnet_datasets.sample import Sample
from msfnet_runtime.typed import to_json
from msfnet_runtime.words import counted

BAD_IN_WORDS = 5
"""The text names at most this many bad samples of a list; the JSON names all."""

BIN_EDGES_M = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0, 40.0, 80.0, float("inf"))
"""The edges of the depth histogram's bins, metres."""


@dataclass(frozen=True)
class DepthCheck:
    """The ground truth of the frames that were opened."""

    unit: str
    """Type and unit that the layout declares, as text."""
    range_m: tuple[float, float, float]
    """Smallest, median and largest measured depth, metres."""
    coverage: float
    """Share of the pixels that carry depth."""
    histogram: tuple[float, ...]
    """Shares of the measured pixels between neighbours of :data:`BIN_EDGES_M`."""

    @property
    def share_beyond_10_m(self) -> float:
        """The share of the measured pixels that the protocol ``indoor`` leaves out."""
        return sum(self.histogram[BIN_EDGES_M.index(10.0) :])

    def text(self) -> str:
        """Return the figures in one line, and the histogram in one line a bin that is used."""
        low, median, high = self.range_m
        lines = [
            f"depth {low:.2f} to {high:.2f} m, median {median:.2f} m, on {self.coverage:.1%} of "
            f"the pixels ({self.unit})"
        ]
        for name, share in zip(bin_names(), self.histogram, strict=True):
            if share:
                lines.append(f"  {name:>9} m {share:6.1%} {'#' * round(40 * share)}".rstrip())
        return "\n  ".join(lines)


def bin_names() -> list[str]:
    """Return the histogram's bins as text, such as ``0.5-1``."""
    return [
        f"{low:g}-{high:g}" if np.isfinite(high) else f"over {low:g}"
        for low, high in pairwise(BIN_EDGES_M)
    ]


@dataclass(frozen=True)
class ListCheck:
    """One list of frames, with ground truth or without."""

    name: str
    frames: int
    """Frames that can be used: image and, where the list has it, ground truth."""
    listed: int
    """Frames that the list names; for a drive, its images."""
    sizes: tuple[tuple[int, int], ...]
    """(height, width) of the opened images, the most frequent first."""
    opened: int
    """Frames that were read for the figures."""
    depth: DepthCheck | None
    """None where the list carries no ground truth."""
    missing: tuple[str, ...] = ()
    """Files that are listed but absent."""
    unmeasured: tuple[str, ...] = ()
    """Images of a drive that no scan or map belongs to."""
    without_ground_truth: int = 0
    """Entries that the list itself declares to have none."""
    bad: tuple[BadSample, ...] = ()
    """Samples that cannot be used, where every file was opened."""
    shown: tuple[Sample, ...] = ()
    """Frames for a contact sheet."""

    def text(self) -> str:
        """Return the check in a few lines."""
        sizes = ", ".join(f"{height}x{width}" for height, width in self.sizes[:4])
        others = " and others" if len(self.sizes) > 4 else ""
        bad = "".join(f"\n  bad: {sample.reason}" for sample in self.bad[:BAD_IN_WORDS])
        depth = self.depth.text() if self.depth else "no ground truth"
        return (
            f"{self.name}: {self._counts()}{bad}\n"
            f"  images {sizes}{others} ({self.opened} read)\n"
            f"  {depth}"
        )

    def _counts(self) -> str:
        """Return the frames as text, and what keeps the others from being used."""
        counts = [counted(self.frames, "frame")]
        if self.frames < self.listed:
            counts = [f"{self.frames} of {counted(self.listed, 'frame')}"]
        if self.missing:
            counts.append(f"{counted(len(self.missing), 'file')} missing ({self.missing[0]})")
        if self.unmeasured:
            counts.append(f"{len(self.unmeasured)} not measured ({self.unmeasured[0]})")
        if self.without_ground_truth:
            counts.append(f"{self.without_ground_truth} declared to have no ground truth")
        if self.bad:
            counts.append(f"{len(self.bad)} bad")
        return ", ".join(counts)


@dataclass(frozen=True)
class DataCheck:
    """A data set, list by list."""

    path: Path
    layout: str
    """The layout's title."""
    lists: tuple[ListCheck, ...]
    protocol: str = ""
    """The evaluation protocol that such data is usually scored under, if it has ground truth."""

    @property
    def has_ground_truth(self) -> bool:
        """Whether any frame can be trained on or scored."""
        return any(checked.depth for checked in self.lists)

    @property
    def bad(self) -> int:
        """How many samples cannot be used, where every file was opened."""
        return sum(len(checked.bad) for checked in self.lists)

    @property
    def missing(self) -> int:
        """How many files are listed but absent."""
        return sum(len(checked.missing) for checked in self.lists)

    def to_json(self) -> str:
        """Return the whole check as JSON."""
        lists = [
            {
                **{f.name: getattr(checked, f.name) for f in fields(checked) if f.name != "shown"},
                "bad": [{"name": b.name, "reason": b.reason} for b in checked.bad],
            }
            for checked in self.lists
        ]
        content = {
            **{"path": str(self.path), "layout": self.layout, "protocol": self.protocol},
            "lists": lists,
        }
        return to_json({**content, "bin_edges_m": BIN_EDGES_M[:-1]})

    def text(self) -> str:
        """Return the whole check."""
        usual = f" (usual protocol: {self.protocol})" if self.has_ground_truth else ""
        lines = [f"{self.path}: {self.layout}{usual}", *(checked.text() for checked in self.lists)]
        if not self.has_ground_truth:
            lines.append(
                "no ground truth: usable for streaming and calibration, not for training or scoring"
            )
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class FrameFigures:
    """The ground truth of one frame."""

    size: tuple[int, int]
    """(height, width) of the frame."""
    range_m: tuple[float, float, float]
    """Smallest, median and largest measured depth, metres."""
    counts: NDArray[np.int64]
    """Measured pixels between neighbours of :data:`BIN_EDGES_M`."""


def figures_of(depth: NDArray[np.float32]) -> FrameFigures:
    """Measure one map, (H, W) metres, 0 = none, at least one pixel measured."""
    measured = np.sort(depth[depth > 0])
    height, width = depth.shape
    return FrameFigures(
        (height, width),
        (float(measured[0]), float(np.median(measured)), float(measured[-1])),
        np.diff(np.searchsorted(measured, np.asarray(BIN_EDGES_M, np.float32))),
    )


def summarise(frames: Sequence[FrameFigures], unit: str) -> DepthCheck:
    """Return the figures of a list; the median is that of the frames' medians."""
    low, median, high = np.array([frame.range_m for frame in frames]).T
    counts = np.sum([frame.counts for frame in frames], axis=0)
    pixels = sum(height * width for height, width in (frame.size for frame in frames))
    return DepthCheck(
        unit,
        (float(low.min()), float(np.median(median)), float(high.max())),
        float(counts.sum() / pixels),
        tuple(float(count / counts.sum()) for count in counts),
    )
