"""Properties that a kind of data set declares; :mod:`msfnet_datasets.layouts` lists all kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from msfnet_datasets.ground_truth import GroundTruth
from msfnet_datasets.sample import SampleList
from msfnet_runtime import MsfnetError
from msfnet_runtime.depth_storage import DepthStorage

GroundTruths = Mapping[GroundTruth, tuple[DepthStorage, ...]]
"""Kinds of ground truth, and how each may be stored."""

ALL = "all"
"""The split of every frame, where a data set has more than its lists."""


@dataclass(frozen=True)
class Part:
    """One part of a data set, as a check presents it."""

    title: str
    samples: SampleList
    """May be empty."""
    unmeasured: tuple[Path, ...] = ()
    """Images that no ground truth belongs to."""


class DatasetLayout(ABC):
    """One way in which data sets lie on the disk.

    To add one, write a subclass in a separate file and enter it in ``LAYOUTS``.
    """

    name: ClassVar[str]
    """The name in recipes and options."""
    title: ClassVar[str]
    """The title of the layout."""
    expects: ClassVar[str]
    """The files by which it is recognised, as text."""
    ground_truths: ClassVar[GroundTruths]
    """The kinds of ground truth it has, the usual one first, and how each may be stored."""
    median_m: ClassVar[tuple[float, float]] = (0.2, 60.0)
    """Where the median depth of a frame can lie, metres; elsewhere its unit is another one."""
    protocol: ClassVar[str]
    """The evaluation protocol it is usually scored under."""
    needs_list: ClassVar[bool] = False
    """It has no list of its own: a list file must be named."""
    sparse: ClassVar[bool] = False
    """Depth is points, which training moves one by one instead of resizing the map."""

    @abstractmethod
    def recognises(self, path: Path, split: str | None) -> bool:
        """Return whether ``path`` is such a data set; ``split`` is the list asked for."""

    @abstractmethod
    def open(
        self, path: Path, split: str | None, depth: DepthStorage | None, kind: GroundTruth
    ) -> SampleList:
        """Find the samples of a split; files that a list names may still be absent.

        Args:
            path: where the data lies.
            split: one of its lists or a list file; None: what it is scored on; :data:`ALL`:
                every frame.
            depth: how depth is stored; None: as the layout has it.
            kind: one of :attr:`ground_truths`.

        Raises:
            MsfnetError: no such data or split.
        """

    def usual_split(self, path: Path) -> str:
        """Return the list that is opened where none is asked for; :data:`ALL`: every frame."""
        return ALL

    def training_lists(self, path: Path) -> tuple[str, str] | None:
        """Return the usual lists to train and to validate on; None: there are none."""
        return None

    def calibration_split(self, path: Path) -> str | None:
        """Return the split that keeps calibration off the frames to score; None: there is none."""
        return None

    def usual_protocol(self, share_beyond_10_m: float) -> str:
        """Return the protocol to score data under, whose share of far depth is known."""
        return self.protocol

    def describe(self, path: Path) -> str:
        """Return what lies at ``path``, as text."""
        return self.title

    def parts(self, path: Path, split: str | None, depth: DepthStorage | None) -> Sequence[Part]:
        """Return what a check presents one by one: each list, each drive, or the split asked for.

        Raises:
            MsfnetError: as :meth:`open`.
        """
        title = f"list {Path(split).name}" if split else "all frames"
        return [Part(title, self.open(path, split or ALL, depth, self.kind(depth)))]

    def kind(
        self, depth: DepthStorage | None, ground_truth: GroundTruth | None = None
    ) -> GroundTruth:
        """Return the first kind of ground truth of a storage; None fits any storage or kind.

        Raises:
            MsfnetError: the layout has no such ground truth, or does not store it so.
        """
        if ground_truth and ground_truth not in self.ground_truths:
            raise MsfnetError(
                f"layout {self.name} has no {ground_truth} depth; choose "
                f"{' or '.join(self.ground_truths)}"
            )
        for kind, storages in self.ground_truths.items():
            if ground_truth in (None, kind) and (depth is None or depth in storages):
                return kind
        kinds = [ground_truth] if ground_truth else self.ground_truths
        known = dict.fromkeys(storage for kind in kinds for storage in self.ground_truths[kind])
        stored = f"{ground_truth} depth" if ground_truth else "depth"
        raise MsfnetError(
            f"layout {self.name} does not store {stored} as {depth}; choose {' or '.join(known)}"
        )
